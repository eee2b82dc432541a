"""Whether sessions are Postgres's own (Q30).

The stateful tiers need of a session what a pooler in transaction mode breaks in silence: its settings, its advisory locks, its prepared statements, its place in
`pg_stat_activity`. So this is looked at before a service starts, with a pair of sessions, in Postgres's simple protocol, which every pooler carries.
"""

from __future__ import annotations

import uuid
from typing import Final

import asyncpg
from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

LOOKS: Final = 8
"""How often the second session looks for what the first one has set: a pooler with several idle servers takes them in turn."""
_SHARED: Final = "TF001"
_DROPPED: Final = "TF002"
_REFUSED: Final = "08P01"


async def check_direct(database_url: str, schema: str) -> None:
    """Looks whether a session has one server process to itself, and keeps what it was opened with.

    Raises:
        FailureError: CONFIGURATION, where a pooler is in between that a service cannot work through.
        Exception: What asyncpg raises when it cannot look.
    """
    try:
        await _look(database_url, {"search_path": schema, "jit": "off"})
    except asyncpg.PostgresError as error:
        problem = _PROBLEMS.get(error.sqlstate or "")
        if problem is None:
            raise
        raise _unfit(f"{problem} ({error})" if error.sqlstate == _REFUSED else problem) from error


_PROBLEMS: Final = {
    _SHARED: "a pooler in transaction mode is in between: sessions share server processes",
    _DROPPED: "a pooler is in between that drops the settings of sessions",
    _REFUSED: "a pooler is in between that refuses the settings of sessions",
}


async def _look(database_url: str, settings: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    first = await asyncpg.connect(database_url, server_settings=settings, timeout=10)
    try:
        kept = " OR ".join(f"current_setting('{name}') <> '{value}'" for name, value in settings.items())
        await first.execute(_raise_if(kept, _DROPPED))
        second = await asyncpg.connect(database_url, server_settings=settings, timeout=10)
        try:
            for _ in range(LOOKS):
                await first.execute(f"SET tierflow.probe = '{mark}'")
                await second.execute(_raise_if(f"current_setting('tierflow.probe', true) = '{mark}'", _SHARED))
        finally:
            await _end(second)
    finally:
        await _end(first)


async def _end(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Says goodbye without a statement: there may be nobody who knows it any more."""
    connection.terminate()


def _raise_if(condition: str, code: str) -> str:
    return f"DO $$ BEGIN IF {condition} THEN RAISE SQLSTATE '{code}'; END IF; END $$"


def _unfit(problem: str) -> FailureError:
    return FailureError(
        failure(
            "CONFIGURATION",
            f"TIERFLOW_DATABASE_URL: {problem}; connect to Postgres directly",
            component="database",
            operation="check_direct",
        )
    )
