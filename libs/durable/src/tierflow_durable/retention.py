"""Keeping the tables small: partitions of the journal by time, old request ids, departed instances (rule R34)."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.clock import DatabaseClock
from tierflow_durable.database import Database, is_weather
from tierflow_durable.ids import floor_of, moment_of
from tierflow_durable.sqlfile import statement

log = get_log(__name__)

DAY: Micros = 86_400_000_000
AHEAD = 3
"""Days for which partitions are made ahead."""


class Retention:
    """Makes partitions ahead of time and drops those whose every entity has ended before the horizon and is relayed and acknowledged."""

    def __init__(self, database: Database, clock: DatabaseClock, *, keep_days: int) -> None:
        self._database = database
        self._clock = clock
        self.keep: Micros = keep_days * DAY

    async def tend(self) -> None:
        """One round. Safe on several instances at once: what one is doing the other skips."""
        try:
            connection = await self._database.session()
        except Exception as error:
            if is_weather(error):
                return
            raise
        try:
            await self._make_partitions(connection)
            await self._drop_partitions(connection)
            before = self._clock.now() - max(self.keep, 7 * DAY)
            await self._database.fetch("forget_requests", before=before)
            await self._database.fetch("forget_instances", before=self._clock.now() - DAY)
        except (FailureError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            log.warning("retention waits", extra={"error": f"{type(error).__name__}: {error}"})
        finally:
            connection.terminate()

    async def _make_partitions(self, connection: asyncpg.Connection[Any]) -> None:
        today = self._clock.now() // DAY * DAY
        have = {row["name"] for row in await connection.fetch(statement("partitions").text)}
        for day in range(1, AHEAD + 1):
            start = today + day * DAY
            name = f"journal_{start // DAY}"
            if name not in have:
                await connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF journal FOR VALUES FROM ('{floor_of(start)}') TO ('{floor_of(start + DAY)}') "
                    "WITH (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_freeze_min_age = 0)"
                )

    async def _drop_partitions(self, connection: asyncpg.Connection[Any]) -> None:
        horizon = self._clock.now() - self.keep
        for row in await connection.fetch(statement("partitions").text):
            bounds = re.findall(r"'([0-9a-f-]{36})'", row["bound"])
            if len(bounds) != 2 or moment_of(bounds[1]) > horizon:
                continue
            query = statement("partition_busy")
            values = query.arguments(low=bounds[0], high=bounds[1], horizon=horizon, relayed=moment_of(bounds[1]))
            if await connection.fetchval(query.text, *values):
                continue
            log.info("dropping a journal partition", partition=row["name"])
            await connection.execute(f"ALTER TABLE journal DETACH PARTITION {row['name']} CONCURRENTLY")
            await connection.execute(f"DROP TABLE {row['name']}")
