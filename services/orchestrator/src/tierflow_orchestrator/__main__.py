"""`python -m tierflow_orchestrator` serves; with `migrate` it creates or upgrades the schema, with `purge-cache [TENANT]` it drops stored results of steps."""

from __future__ import annotations

import sys

from tierflow_orchestrator.settings import PACKAGES, SCHEMA, OrchestratorSettings


def command(arguments: list[str]) -> int:
    """Runs what the arguments name, and returns the exit code."""
    if arguments == ["migrate"]:
        from tierflow_durable.migrating import migrate_command  # without the service: a migration loads little

        return migrate_command(SCHEMA, *PACKAGES)
    if arguments[:1] == ["purge-cache"] and len(arguments) <= 2:
        from tierflow_orchestrator.purging import purge_command

        return purge_command(*arguments[1:])
    if arguments:
        print(
            "usage: python -m tierflow_orchestrator [migrate | purge-cache [TENANT]]; settings are variables, see docs/settings.md",
            file=sys.stderr,
        )
        return 2
    from tierflow_runtime.process import run_service

    from tierflow_orchestrator.app import main

    return run_service(main, OrchestratorSettings, service="orchestrator")


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
