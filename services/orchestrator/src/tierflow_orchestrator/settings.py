"""What the orchestrator can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode
from tierflow_runtime.settings import StatefulSettings


def _split(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


class OrchestratorSettings(StatefulSettings):
    """Settings of Tier 2, from TIERFLOW_*."""

    port: int = Field(default=7702, ge=0, le=65535, description="a port; 0 takes any that is free")
    executors: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        min_length=1,
        description="addresses of executors, separated by commas: host:port, or dns:///name:port for one address per executor",
    )
    executor_lost_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="seconds without an answer after which an executor's attempts are lost"
    )
    keep_days: int = Field(default=30, ge=1, le=3650, description="days for which ended runs are kept")
    most_runs: int = Field(default=50_000, ge=1, description="runs in memory above which new ones are refused")
