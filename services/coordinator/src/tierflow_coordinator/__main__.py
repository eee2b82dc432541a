"""`python -m tierflow_coordinator` serves; `python -m tierflow_coordinator migrate` creates or upgrades the schemas."""

from __future__ import annotations

import sys

from tierflow_coordinator.settings import SCHEDULES, SCHEDULES_PACKAGE, SCHEMA, CoordinatorSettings


def main(arguments: list[str]) -> int:
    """Runs the command that the arguments name, and returns the exit code."""
    if arguments == ["migrate"]:
        from tierflow_durable.migrating import migrate_command  # without the service: a migration loads little

        return migrate_command(SCHEMA) or migrate_command(SCHEDULES, SCHEDULES_PACKAGE)
    if arguments:
        print(
            "usage: python -m tierflow_coordinator [migrate]; settings are variables, see docs/settings.md",
            file=sys.stderr,
        )
        return 2
    from tierflow_runtime.process import run_service

    from tierflow_coordinator.app import serve

    return run_service(serve, CoordinatorSettings, service="coordinator")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
