"""What the orchestrator can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta
from tierflow_runtime.settings import Addresses, Port, Read, StatefulSettings

SCHEMA: Final = "orchestrator"
"""Of the database."""
PACKAGES: Final = ("tierflow_orchestrator",)
"""Where migrations are beside those of the durable library."""


class OrchestratorSettings(StatefulSettings, frozen=True, kw_only=True):
    """Settings of Tier 2, from TIERFLOW_*."""

    port: Annotated[Port, Meta(description="a port; 0 takes any that is free")] = 7702
    executors: Annotated[
        Addresses,
        Meta(
            description="addresses of executors, separated by commas: host:port, or dns:///name:port for one address per executor"
        ),
    ]
    executor_lost_seconds: Annotated[
        float,
        Meta(gt=0, le=3600, description="seconds without an answer after which an executor's attempts are lost"),
    ] = 30.0
    keep_days: Annotated[int, Meta(ge=1, le=3650, description="days for which ended runs are kept")] = 30
    policy_file: Annotated[
        Path | None,
        Meta(description="a file of norms; with it, handlers with side effects need a permission"),
        Read(Path),
    ] = None
    most_runs: Annotated[int, Meta(ge=1, description="runs in memory above which new ones are refused")] = 50_000
