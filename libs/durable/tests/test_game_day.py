"""A game day: the database is broken in four ways, and each shows as another kind of trouble, in numbers, in the log, and on what callers are told (F25)."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tierflow_durable.database import Database
from tierflow_durable.migrations import migrate
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.values import Failure, FailureError
from tierflow_testing.cable import Cable
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.waiting import eventually

NOBODY = "01a1f8ab-df7f-7763-94b6-a16b73a395f4"
SCRAPE = 15.0
"""Seconds between two scrapes."""


async def _connection(database: Database, cable: Cable, admin: Any) -> None:
    await cable.cut(refuse=True)


async def _pool(database: Database, cable: Cable, admin: Any) -> None:
    await admin.execute("ALTER ROLE tierflow CONNECTION LIMIT 0")
    await cable.cut()


async def _auth(database: Database, cable: Cable, admin: Any) -> None:
    await admin.execute("ALTER ROLE tierflow NOLOGIN")
    await cable.cut()


async def _timeout(database: Database, cable: Cable, admin: Any) -> None:
    await admin.execute("ALTER ROLE tierflow SET lock_timeout = '200ms'")
    await cable.cut()
    await admin.execute("BEGIN")
    await admin.execute("LOCK TABLE toy.entity")


WAYS: dict[str, Callable[[Database, Cable, Any], Awaitable[None]]] = {
    "connection": _connection,
    "pool": _pool,
    "auth": _auth,
    "timeout": _timeout,
}


def _shown(metrics: Metrics) -> dict[str, float]:
    """What a scrape says of the database, without what is nought."""
    lines = [line for line in metrics.text().splitlines() if line.startswith("tierflow_database_troubles{")]
    values = {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}
    return {kind: value for kind, value in values.items() if value}


async def _told(database: Database, kind: str) -> Failure | None:
    """What a caller is told, once it is this; a connection of the pool may still be found broken first."""
    try:
        await database.fetch("owner", id=NOBODY)
    except FailureError as error:
        return error.failure if error.failure.detail.startswith(f"{kind}:") else None
    return None


@pytest.mark.parametrize("kind", WAYS)
async def test_each_kind_of_trouble_is_told_apart(
    own_postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """F25, P12, F3: within one scrape of its beginning the trouble has its own kind in the metric, in the log line, and in the failure that becomes the span's attribute."""
    url = own_postgres.create_database("game")
    await migrate(url, "toy")
    where = urlsplit(url)
    admin: Any = await asyncpg.connect(own_postgres.admin_url("game"))
    metrics = Metrics("toy")
    async with Cable(where.hostname or "", where.port or 0) as cable:
        database = Database(cable.url(url), "toy")
        database.troubles.show(metrics)
        try:
            await database.fetch("owner", id=NOBODY)
            assert _shown(metrics) == {}
            await WAYS[kind](database, cable, admin)
            with caplog.at_level(logging.WARNING):
                told = await eventually(lambda: _told(database, kind), SCRAPE)
        finally:
            await admin.close()
            await database.close()
    assert (told.code, told.component) == ("DATABASE_UNAVAILABLE", "database")
    assert told.detail.startswith(f"{kind}: ")
    assert _shown(metrics)[kind] >= 1
    assert set(_shown(metrics)) <= {kind, "connection"}
    assert any(f"'kind': '{kind}'" in str(record.__dict__) for record in caplog.records)
