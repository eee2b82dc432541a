"""The `purge-cache` command: stored results of steps are dropped, while orchestrators serve or not."""

from __future__ import annotations

import asyncio

from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database
from tierflow_runtime.settings import EXIT_CONFIGURATION, MigrationSettings, load_settings, print_problems
from tierflow_runtime.values import FailureError

from tierflow_orchestrator.cache import StepCache
from tierflow_orchestrator.settings import SCHEMA


def purge_command(tenant: str | None = None) -> int:
    """Drops all stored results, or those of a tenant; the exit code: 0, or 78 where the database cannot be used."""
    settings = load_settings(MigrationSettings)
    try:
        dropped = asyncio.run(_purge(settings.database_url, tenant))
    except FailureError as error:
        print_problems(f"TIERFLOW_DATABASE_URL: stored results cannot be dropped: {error}")
        return EXIT_CONFIGURATION
    print(f"dropped {dropped} stored results")
    return 0


async def _purge(url: str, tenant: str | None) -> int:
    database = Database(url, SCHEMA)
    try:
        return await StepCache(database, DatabaseClock()).purge(tenant)
    finally:
        await database.close()
