"""What a coordinator can be told, by `TIERFLOW_*` variables."""

from __future__ import annotations

from pydantic import Field
from tierflow_runtime.settings import Addresses, Port, StatefulSettings


class CoordinatorSettings(StatefulSettings):
    """Settings of Tier 1."""

    port: Port = Field(default=7701, description="a port; 0 takes any that is free")
    orchestrators: Addresses = Field(
        default=("127.0.0.1:7702",),
        min_length=1,
        description="host:port of each orchestrator, or dns:///name:port, separated by commas",
    )
    max_swarms: int = Field(
        default=100_000, ge=1, description="how many swarms may be under way before new ones are refused"
    )
    park_seconds: float = Field(
        default=60.0, ge=0.1, le=86_400, description="seconds after which a swarm that only waits is let go"
    )
    keep_days: int = Field(default=30, ge=8, le=36_500, description="days for which ended swarms are kept")
