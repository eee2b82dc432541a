"""The schemas on a Postgres as a provider rents it out."""

import pathlib
from collections.abc import Callable

import asyncpg
import pytest
from tierflow_testing.processes import run_once

TIERS = ("tierflow_coordinator", "tierflow_orchestrator")


@pytest.mark.parametrize("service", TIERS)
async def test_a_plain_role_is_enough(
    service: str, template_of: Callable[[str], str], new_database: Callable[..., str]
) -> None:
    """Q30: the schema is made by a role that is no superuser and may make neither databases nor roles; it needs no extension."""
    connection = await asyncpg.connect(new_database(template_of(service)))
    try:
        role = await connection.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        owners = await connection.fetch(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        extensions = await connection.fetch("SELECT extname FROM pg_extension")
    finally:
        await connection.close()
    assert role is not None
    assert not any(role.values())
    assert [row["tableowner"] for row in owners] == ["tierflow"]
    assert [row["extname"] for row in extensions] == ["plpgsql"]


@pytest.mark.parametrize("service", TIERS)
async def test_migrating_again_changes_nothing(
    service: str, template_of: Callable[[str], str], new_database: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    """I16: the command may run twice, as a Job that is started again does."""
    url = new_database(template_of(service))
    connection = await asyncpg.connect(url)
    tables = "SELECT count(*) FROM pg_class"
    before = await connection.fetchval(tables)
    assert (
        run_once(service, "migrate", environment={"TIERFLOW_DATABASE_URL": url}, log=tmp_path / "again.log").wait() == 0
    )
    assert await connection.fetchval(tables) == before
    await connection.close()
