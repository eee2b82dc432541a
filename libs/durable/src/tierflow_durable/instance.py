"""An instance: one running process with a lease and a fence (rules R9 to R12)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import Micros

from tierflow_durable.clock import DatabaseClock, boot_time
from tierflow_durable.database import APPLICATION, Database, is_weather
from tierflow_durable.sqlfile import statement
from tierflow_durable.writer import Fenced

log = get_log(__name__)


class Instance:
    """This process as its peers see it. The lease is counted on the boot-time clock from before each renewal was sent (rule R25)."""

    def __init__(
        self,
        database: Database,
        clock: DatabaseClock,
        *,
        instance_id: str,
        name: str,
        address: str,
        lease: float = 10.0,
        heartbeat: float = 2.0,
    ) -> None:
        self._database = database
        self._clock = clock
        self.id = instance_id
        self.name = name
        self.address = address
        self.lease: Micros = int(lease * 1_000_000)
        self._heartbeat = heartbeat
        self._connection: asyncpg.Connection[Any] | None = None
        self._lease_until: Micros = 0
        self._unbroken_since: Micros = 0
        self._server_start: Micros = 0
        self.reachable = True
        """Whether the last heartbeat reached the database: readiness shows within seconds what the lease shows later (L6)."""
        self.replaced: list[str] = []
        """Older incarnations of the same name that this one has fenced."""
        self.backend_pid: Callable[[], int] = lambda: 0
        self.on_fenced_peer: Callable[[], None] = lambda: None
        self.check_database: Callable[[asyncpg.Connection[Any]], Awaitable[None]] = _take_as_it_is
        """Raises Fenced where a new session finds another database than the one that was lost (rule R18): also while nothing is written."""

    @property
    def alive(self) -> bool:
        """Whether the lease is good: only then may this instance answer from memory or talk to executors (rules R7, R25)."""
        return boot_time() < self._lease_until

    async def _session(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            connection = await self._database.session(transaction_timeout=self.lease / 2_000_000)
            await self.check_database(connection)
            self._connection = connection
            self._unbroken_since = boot_time()
        return self._connection

    async def _fetch(self, query_name: str, /, **values: Any) -> list[Any]:
        query = statement(query_name)
        connection = await self._session()
        return await asyncio.wait_for(connection.fetch(query.text, *query.arguments(**values)), self.lease / 2_000_000)

    async def register(self, first_position: int) -> None:
        """Enters this instance and fences older ones of its name (rule R12). Raises what asyncpg raises."""
        before = boot_time()
        row = (await self._fetch("now"))[0]
        self._clock.observe(row["now"], before, boot_time())
        sent = boot_time()
        old = await self._fetch(
            "register",
            id=self.id,
            name=self.name,
            address=self.address,
            lease=self.lease,
            pid=self.backend_pid(),
            position=first_position,
        )
        self._lease_until = sent + self.lease
        self._server_start = row["server_start"]
        self.replaced = [str(line["id"]) for line in old]
        for line in await self._fetch("old_backends", ids=self.replaced):
            await self._fetch("terminate", pid=line["backend_pid"], application=APPLICATION)

    async def run(self) -> None:
        """Beats for ever, and fences peers whose lease has run out. Raises Fenced."""
        while True:
            await asyncio.sleep(self._heartbeat)
            try:
                await self.beat()
                if await self._fence_expired():
                    self.on_fenced_peer()
            except Fenced:
                raise
            except Exception as error:
                if not is_weather(error):
                    raise
                self.reachable = False
                kind = self._database.troubles.note(error)
                log.warning("heartbeat failed", kind=kind, reason=f"{type(error).__name__}: {error}")
                self._unbroken_since = boot_time()
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None

    async def beat(self) -> None:
        """Renews the lease. Raises Fenced, or what asyncpg raises."""
        sent = boot_time()
        rows = await self._fetch(
            "heartbeat", id=self.id, lease=self.lease, pid=self.backend_pid(), address=self.address
        )
        if not rows:
            raise Fenced("a peer has fenced this instance")
        self._clock.observe(rows[0]["now"], sent, boot_time())
        if rows[0]["server_start"] != self._server_start:
            self._server_start = rows[0]["server_start"]
            self._unbroken_since = sent
        self._lease_until = sent + self.lease
        self.reachable = True

    @property
    def may_fence(self) -> bool:
        """Rule R10: only who has itself beaten without a break for one full lease."""
        return boot_time() - self._unbroken_since >= self.lease and self._clock.now() - self._server_start >= self.lease

    async def _fence_expired(self) -> bool:
        if not self.may_fence:
            return False
        fenced = False
        for row in await self._fetch("expired", me=self.id):
            await self._fetch("terminate", pid=row["backend_pid"], application=APPLICATION)
            if await self._fetch("fence", me=self.id, id=row["id"]):
                log.warning(
                    "fenced an instance whose lease ran out",
                    instance_id=str(row["id"]),
                    instance_name=row["name"],
                )
                fenced = True
        return fenced

    async def leave(self) -> None:
        """Says goodbye after everything was handed over: the fence is closed for good."""
        self._lease_until = 0
        await self._fetch("leave", id=self.id)

    async def close(self) -> None:
        """Closes the session."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _take_as_it_is(connection: asyncpg.Connection[Any]) -> None:
    """Nothing was written yet."""
