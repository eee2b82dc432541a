"""Connections to Postgres: the pool for reads, the dedicated sessions of the writer and of the lease."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import asyncpg
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

from tierflow_durable.sqlfile import Statement, statement
from tierflow_durable.troubles import Troubles

log = get_log(__name__)

WEATHER = ("08", "28", "40", "53", "57", "55")
"""SQLSTATE classes that pass by themselves, or by somebody's hand, without a restart: connection, authorisation, rollback, resources, operator, lock not available (rule R5)."""

PASSING = ("25006", "25P04")
"""Of others: the server takes no writes for the moment (a standby that is being promoted), a statement took longer than a lease allows (rule R9)."""

BAD_ROW = ("22", "23", "54")
"""SQLSTATE classes that one row is to blame for: data, constraint, program limit (rule R5)."""

DISCONNECTED = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncio.TimeoutError,
    ConnectionError,
)
"""The connection broke or could not be made; the outcome of what was sent is not known. (asyncpg has an internal error for use after the server said goodbye.)"""

PATIENCE = 8.0
"""Seconds for which a call waits for a database that restarts; calls between tiers wait for ten."""

LONGEST_STATEMENT = 30.0
"""Seconds after which a statement of the pool is given up, by its caller and by the server: what got no answer is not carried out any later."""

ANSWER = 300.0
"""Seconds for which the answer to a statement is waited for where the server does not end it sooner."""

APPLICATION = "tierflow"

WRITER_SETTINGS = {
    # Tested: generic plans win at every batch size, and by far over many partitions. Index plans only: unnest() is mis-estimated otherwise.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error, or an empty string where it has none."""
    return getattr(error, "sqlstate", None) or ""


def is_weather(error: BaseException) -> bool:
    """Whether waiting and trying again is right: the database is away, busy, restarting or read-only for the moment."""
    state = sqlstate(error)
    return isinstance(error, DISCONNECTED) or state[:2] in WEATHER or state in PASSING


def is_bad_row(error: BaseException) -> bool:
    """Whether one row of a batch is to blame."""
    return sqlstate(error)[:2] in BAD_ROW or isinstance(error, asyncpg.DataError)


_VIEW = "SELECT set_config('tierflow.tenant', $1, false), set_config('tierflow.user', $2, false)"


class Viewer(NamedTuple):
    """Whose rows a list may show: of this tenant, and where it is not empty of this user."""

    tenant: str
    user_id: str = ""


class Database:
    """One tier's schema in one database: a small pool for reads, and sessions of their own on demand. `connect` raises at once when it cannot."""

    def __init__(self, url: str, schema: str, *, pool_size: int = 6) -> None:
        self.url = url
        self.schema = schema
        self._size = pool_size
        self._pool: asyncpg.Pool[Any] | None = None
        self.troubles = Troubles()

    def _settings(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        return {"search_path": self.schema, "jit": "off", "application_name": APPLICATION, **(extra or {})}

    async def session(
        self, *, writer: bool = False, transaction_timeout: float | None = None
    ) -> asyncpg.Connection[Any]:
        """A new connection of its own. Raises what asyncpg raises.

        A connection can die in silence (a firewall has forgotten it): what the server would have ended by now is not waited for any longer.
        """
        settings = self._settings(WRITER_SETTINGS if writer else None)
        answer = ANSWER
        if transaction_timeout is not None:
            settings["transaction_timeout"] = str(int(transaction_timeout * 1000))
            answer = transaction_timeout + 1
        return await asyncpg.connect(
            self.url, server_settings=settings, timeout=10, command_timeout=answer, statement_cache_size=100
        )

    async def pool(self) -> asyncpg.Pool[Any]:
        """The pool, made on first use."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self.url,
                min_size=0,
                max_size=self._size,
                server_settings=self._settings({"transaction_timeout": str(int(LONGEST_STATEMENT * 1000))}),
                timeout=5,
                command_timeout=LONGEST_STATEMENT,
            )
        return self._pool

    async def fetch(self, query: str | Statement, /, **values: Any) -> list[Any]:
        """The rows of a named statement. Raises FailureError DATABASE_UNAVAILABLE while the database is away."""
        return await self._fetch(statement(query) if isinstance(query, str) else query, None, **values)

    async def fetch_seen(self, viewer: Viewer, query: Statement, /, **values: Any) -> list[Any]:
        """The rows of a list that somebody may see: through the views `seen_…`, which show those of the viewer alone, whatever the statement says (I12).

        Waits and raises as `fetch_patiently`; a viewer without a tenant sees nothing.
        """
        return await self._patiently(lambda: self._fetch(query, viewer, **values))

    async def _fetch(self, wanted: Statement, viewer: Viewer | None, /, **values: Any) -> list[Any]:
        try:
            pool = await self.pool()
            async with pool.acquire(timeout=10) as connection:
                if viewer is not None:
                    # For this use of the connection: what the pool takes back it resets.
                    await connection.fetchval(_VIEW, viewer.tenant, viewer.user_id)
                return await connection.fetch(wanted.text, *wanted.arguments(**values))
        except Exception as error:
            if is_weather(error):
                kind = self.troubles.note(error)
                log.warning("the database failed a call", kind=kind, statement=wanted.name, reason=_words(error))
                raise unavailable(wanted.name, f"{kind}: {_words(error)}") from error
            raise

    async def fetchrow(self, query: str | Statement, /, **values: Any) -> Any | None:
        """The first row of a statement that may be repeated, or None. Waits and raises as `fetch_patiently`."""
        rows = await self.fetch_patiently(query, **values)
        return rows[0] if rows else None

    async def fetch_patiently(self, query: str | Statement, /, **values: Any) -> list[Any]:
        """As `fetch`, for statements that may be repeated: a database that restarts makes callers wait and not fail (K11).

        Raises FailureError DATABASE_UNAVAILABLE after PATIENCE seconds.
        """
        return await self._patiently(lambda: self.fetch(query, **values))

    async def _patiently(self, look: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        pause = 0.05
        while True:
            try:
                return await look()
            except FailureError:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 0.5)

    async def close(self) -> None:
        """Closes the pool."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), 5)
            except DISCONNECTED:
                pool.terminate()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def unavailable(operation: str, detail: str = "") -> FailureError:
    """The error of a call that found the database away."""
    return FailureError(
        failure(
            "DATABASE_UNAVAILABLE",
            "the database is not reachable now; the call changed nothing and may be repeated",
            component="database",
            operation=operation,
            detail=detail,
        )
    )
