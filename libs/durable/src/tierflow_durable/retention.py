"""Keeping the tables small: partitions of the journal by day, what ended long ago, old request ids, departed instances (rule R34)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import asyncpg
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.audit_trail import FORGET, KEEP
from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import DISCONNECTED, Database, is_weather
from tierflow_durable.ids import floor_of, moment_of
from tierflow_durable.sqlfile import Statement, statement

log = get_log(__name__)

DAY: Micros = 86_400_000_000
AHEAD = 3
"""Days for which partitions are made ahead."""

AT_ONCE = 2000
BLOBS_AT_ONCE = 100
"""Rows that one statement deletes."""

MAKING_LOCK = 0x7F10_0002
DROPPING_LOCK = 0x7F10_0003

LOCK_TIMEOUT = "200ms"
"""For how long a change of partitions may make commits wait; it is tried again with the next round."""

_FIRST = "00000000-0000-0000-0000-000000000000"


class _Partition(NamedTuple):
    """Journal rows of the entities low … high (exclusive)."""

    name: str
    low: str
    high: str


class Retention:
    """Makes partitions ahead of time, and drops those whose every entity has ended before the horizon and is relayed and acknowledged.

    The rows of those entities go first, so that nothing is listed that cannot be read any more. Safe on several instances at once.
    """

    def __init__(self, database: Database, clock: DatabaseClock, *, keep_days: int) -> None:
        self._database = database
        self._clock = clock
        self.keep: Micros = keep_days * DAY
        self.overdue = 0
        """Partitions whose day is over for long and that are still needed, as of this instance's last round."""
        self.unpublished = 0
        """Of these: kept because events in them are not on the event stream."""

    async def prepare(self) -> None:
        """Makes the partitions of today and the next days, before the first row is written. Without them rows go to the default partition."""
        await self._with_session(self._make_partitions)

    async def tend(self) -> bool:
        """One round; False where it has to be tried again."""
        return await self._with_session(self._round)

    async def _with_session(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[None]]) -> bool:
        try:
            connection = await self._database.session()
        except Exception as error:
            if is_weather(error):
                return False
            raise
        try:
            await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            await work(connection)
        except (FailureError, asyncpg.PostgresError, *DISCONNECTED) as error:
            log.warning("retention waits", reason=f"{type(error).__name__}: {error}")
            return False
        finally:
            try:
                await connection.close(timeout=2)
            except DISCONNECTED:
                connection.terminate()
        return True

    async def _round(self, connection: asyncpg.Connection[Any]) -> None:
        await self._make_partitions(connection)
        self.overdue = self.unpublished = 0
        if not await connection.fetchval(*_call("try_lock", key=DROPPING_LOCK)):
            return  # A peer is at it.
        await self._drop_partitions(connection)
        await self._forget_blobs()
        await self._delete("forget_requests", before=self._clock.now() - max(self.keep, 7 * DAY))
        await self._delete(FORGET, before=floor_of(self._clock.now() - KEEP))
        await self._delete("forget_checkpoints", before=self._clock.now() - self.keep)
        await self._database.fetch("forget_instances", before=self._clock.now() - DAY)

    # --- making ---

    async def _make_partitions(self, connection: asyncpg.Connection[Any]) -> None:
        today = self._clock.now() // DAY * DAY
        wanted = [_day(today + day * DAY) for day in range(AHEAD + 1)]
        have = {partition.name for partition in await _partitions(connection)}
        if have.issuperset(partition.name for partition in wanted):
            return
        await connection.execute("SET lock_timeout = '5s'")
        await connection.execute(*_call("lock", key=MAKING_LOCK))
        await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        have = {partition.name for partition in await _partitions(connection)}
        for partition in wanted:
            if partition.name not in have:
                await self._make(connection, partition)

    async def _make(self, connection: asyncpg.Connection[Any], partition: _Partition) -> None:
        """Attaching locks only the default partition, not the journal: commits go on. One implicit transaction: a half-made one cannot stay."""
        try:
            await connection.execute(
                f"CREATE TABLE {partition.name} (LIKE journal INCLUDING ALL) "
                "WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_freeze_min_age = 0);"
                f"ALTER TABLE {partition.name} ENABLE ROW LEVEL SECURITY;"
                f"ALTER TABLE journal ATTACH PARTITION {partition.name} FOR VALUES FROM ('{partition.low}') TO ('{partition.high}')"
            )
        except asyncpg.CheckViolationError:
            # The default partition has rows of that day already; they stay where they are.
            log.info("a journal partition cannot be made any more", partition=partition.name)

    # --- dropping ---

    async def _drop_partitions(self, connection: asyncpg.Connection[Any]) -> None:
        horizon = self._clock.now() - self.keep
        known = sorted(await _partitions(connection), key=lambda partition: partition.low)
        if known and await self._forgotten(connection, _FIRST, known[0].low, horizon):
            # Ids from before the first partition: their rows are in the default partition.
            await self._delete("forget_strays", below=known[0].low)
        for partition in known:
            if moment_of(partition.high) > horizon:
                break
            if await self._forgotten(connection, partition.low, partition.high, horizon):
                await self._drop(connection, partition)
            else:
                await self._note_overdue(connection, partition)
        if self.unpublished:
            log.warning("journal partitions are kept: their events are not on the event stream", count=self.unpublished)

    async def _note_overdue(self, connection: asyncpg.Connection[Any], partition: _Partition) -> None:
        self.overdue += 1
        if await connection.fetchval(*_call("range_unpublished", low=partition.low, high=partition.high)):
            self.unpublished += 1

    async def _forgotten(self, connection: asyncpg.Connection[Any], low: str, high: str, horizon: Micros) -> bool:
        """Deletes the rows of a range's entities, if all have ended before the horizon and are acknowledged by the tier above and by JetStream."""
        values = {"low": low, "high": high, "horizon": horizon}
        if await connection.fetchval(*_call("range_busy", **values)):
            return False
        await self._delete("forget_entities", **values)
        # A late result may have come in between: then the range is needed after all.
        return not await connection.fetchval(*_call("range_inhabited", low=low, high=high))

    async def _drop(self, connection: asyncpg.Connection[Any], partition: _Partition) -> None:
        """Postgres detaches concurrently only where there is no default partition (decision 11), so commits wait, for a moment at most.

        One implicit transaction: while it holds the journal, it looks whether an entity of that range was made after all.
        """
        try:
            await connection.execute(
                f"ALTER TABLE journal DETACH PARTITION {partition.name};"
                f"DO $$ BEGIN IF EXISTS (SELECT 1 FROM entity WHERE id >= '{partition.low}' AND id < '{partition.high}') "
                "THEN RAISE EXCEPTION USING ERRCODE = 'lock_not_available', MESSAGE = 'new entities'; END IF; END $$;"
                f"DROP TABLE {partition.name}"
            )
            log.info("a journal partition is dropped", partition=partition.name)
        except asyncpg.LockNotAvailableError as error:
            log.info("a journal partition is in use; it is dropped later", partition=partition.name, reason=str(error))

    async def _forget_blobs(self) -> None:
        """Deletes large values that nobody has taken up since before the horizon, and to which no entity from before it refers that is still there.

        Younger entities need not be looked at: what they refer to, they have taken up. Two days more make up for clocks, and for taking up being noted once a day.
        """
        horizon = self._clock.now() - self.keep
        after: bytes | None = b""
        while after is not None:
            found = await self._database.fetchrow(
                "forget_blobs", before=horizon - 2 * DAY, floor=floor_of(horizon), after=after, limit=BLOBS_AT_ONCE
            )
            after = found["last"] if found is not None else None
            if found is not None and found["n"]:
                log.info("large values that nobody uses are deleted", count=found["n"])

    async def _delete(self, query: str | Statement, /, **values: Any) -> None:
        """Deletes in small statements until nothing is left to delete."""
        while (row := await self._database.fetchrow(query, limit=AT_ONCE, **values)) is not None and row["n"] > 0:
            pass


async def _partitions(connection: asyncpg.Connection[Any]) -> list[_Partition]:
    """The journal's partitions, the default one left out."""
    found = []
    for row in await connection.fetch(*_call("partitions")):
        bounds = re.findall(r"'([0-9a-f-]{36})'", row["bound"])
        if len(bounds) == 2:
            found.append(_Partition(row["name"], *bounds))
    return found


def _day(start: Micros) -> _Partition:
    return _Partition(f"journal_{start // DAY}", floor_of(start), floor_of(start + DAY))


def _call(query: str, /, **values: Any) -> tuple[Any, ...]:
    wanted = statement(query)
    return wanted.text, *wanted.arguments(**values)
