"""What the orchestrator can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from tierflow_runtime.settings import Addresses, StatefulSettings


class OrchestratorSettings(StatefulSettings):
    """Settings of Tier 2, from TIERFLOW_*."""

    port: int = Field(default=7702, ge=0, le=65535, description="a port; 0 takes any that is free")
    executors: Addresses = Field(
        min_length=1,
        description="addresses of executors, separated by commas: host:port, or dns:///name:port for one address per executor",
    )
    executor_lost_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="seconds without an answer after which an executor's attempts are lost"
    )
    keep_days: int = Field(default=30, ge=1, le=3650, description="days for which ended runs are kept")
    policy_file: Path | None = Field(
        default=None, description="a file of norms; with it, handlers with side effects need a permission"
    )
    most_runs: int = Field(default=50_000, ge=1, description="runs in memory above which new ones are refused")
