"""`python -m tierflow_coordinator` serves; `python -m tierflow_coordinator migrate` creates or upgrades the schema."""

from __future__ import annotations

import asyncio
import sys

from tierflow_durable.migrations import migrate
from tierflow_runtime.process import run_service
from tierflow_runtime.settings import load_settings

from tierflow_coordinator.app import SCHEMA, serve
from tierflow_coordinator.settings import CoordinatorSettings


def main(arguments: list[str]) -> int:
    """Runs the command that the arguments name, and returns the exit code."""
    if arguments == ["migrate"]:
        settings = load_settings(CoordinatorSettings)
        for name in asyncio.run(migrate(settings.database_url, SCHEMA)):
            print(f"applied {name}")
        return 0
    if arguments:
        print("usage: python -m tierflow_coordinator [migrate]", file=sys.stderr)
        return 2
    return run_service(serve, CoordinatorSettings, service="coordinator")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
