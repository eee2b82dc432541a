"""What a coordinator can be told, by `TIERFLOW_*` variables."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta
from tierflow_runtime.settings import Addresses, Port, StatefulSettings

SCHEMA: Final = "coordinator"
"""Of the database."""
SCHEDULES: Final = "schedules"
"""The schema of schedules, in the same database."""
SCHEDULES_PACKAGE: Final = "tierflow_coordinator.schedules"
"""Has the migrations that they need beside those of the durable library."""


class CoordinatorSettings(StatefulSettings, frozen=True, kw_only=True):
    """Settings of Tier 1."""

    port: Annotated[Port, Meta(description="a port; 0 takes any that is free")] = 7701
    orchestrators: Annotated[
        Addresses,
        Meta(description="host:port of each orchestrator, or dns:///name:port, separated by commas"),
    ] = ("127.0.0.1:7702",)
    max_swarms: Annotated[
        int, Meta(ge=1, description="how many swarms may be under way before new ones are refused")
    ] = 100_000
    park_seconds: Annotated[
        float, Meta(ge=0.1, le=86_400, description="seconds after which a swarm that only waits is let go")
    ] = 60.0
    keep_days: Annotated[int, Meta(ge=8, le=36_500, description="days for which ended swarms are kept")] = 30
