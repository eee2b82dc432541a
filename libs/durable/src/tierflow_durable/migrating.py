"""The `migrate` command of a stateful tier."""

from __future__ import annotations

import asyncio
import sys

from tierflow_runtime.settings import EXIT_CONFIGURATION, MigrationSettings, load_settings, print_problems

from tierflow_durable.migrations import migrate


def migrate_command(schema: str, *packages: str) -> int:
    """Creates or upgrades a schema; the exit code: 0, or 78 where the database cannot be used."""
    settings = load_settings(MigrationSettings)
    try:
        applied = asyncio.run(migrate(settings.database_url, schema, *packages))
    except Exception as error:  # noqa: BLE001 - whatever the database says, the operator is told in one line
        print_problems(
            f"TIERFLOW_DATABASE_URL: the schema {schema!r} cannot be migrated: {error} ({type(error).__name__}); start Postgres, or correct the address"
        )
        return EXIT_CONFIGURATION
    for name in applied:
        print(f"applied {name}", file=sys.stdout)
    if not applied:
        print(f"schema {schema!r} is up to date")
    return 0
