"""Looks at the system while it works: processes, database, what is not published yet."""

from __future__ import annotations

import asyncio
import statistics
import urllib.request
from collections.abc import Mapping
from typing import Final

import asyncpg
import psutil
from prometheus_client.parser import text_string_to_metric_families
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import Stack

from benchmarks import measuring
from benchmarks.curves.stage import processes
from benchmarks.sustained.offering import Offer
from benchmarks.sustained.verdict import Sample

_TABLES: Final = (
    "SELECT n.nspname AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'm') AND n.nspname IN ('coordinator', 'orchestrator', 'schedules') GROUP BY 1"
)
_SESSIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
_LAGS: Final = ("tierflow_events_lag", "tierflow_schedule_events_lag")


class Sampler:
    """Takes a sample now and then."""

    def __init__(self, stack: Stack, offer: Offer) -> None:
        self._stack = stack
        self._offer = offer
        self.samples: list[Sample] = []

    async def run(self, interval: float) -> None:
        """Takes samples until it is stopped."""
        loop = asyncio.get_running_loop()
        began = at = loop.time()
        cpu = await asyncio.to_thread(measuring.cpu_of, processes(self._stack))
        connection = await asyncpg.connect(self._stack.database_url)
        try:
            while True:
                await asyncio.sleep(max(0.0, began + interval * (len(self.samples) + 1) - loop.time()))
                now, used = loop.time(), await asyncio.to_thread(measuring.cpu_of, processes(self._stack))
                shares = {name: round((used[name] - cpu[name]) / (now - at) * 100, 1) for name in used}
                at, cpu = now, used
                self.samples.append(await self._sample(connection, now - began, shares))
        finally:
            await connection.close()

    async def _sample(self, connection: asyncpg.Connection, at: float, cpu: Mapping[str, float]) -> Sample:
        offered, ended, recent = self._offer.since_last()
        pids = processes(self._stack)
        memory = await asyncio.to_thread(lambda: {name: measuring.memory_mib(pid) for name, pid in pids.items()})
        tables = {row["name"]: round(row["bytes"] / 1_048_576, 2) for row in await connection.fetch(_TABLES)}
        lag = sum(
            [await metric(service, *_LAGS) for service in (*self._stack.coordinators, *self._stack.orchestrators)]
        )
        return Sample(
            at=round(at, 1),
            offered=offered,
            ended=ended,
            under_way=len(self._offer.under_way),
            p50_ms=round(statistics.median(recent) * 1000, 2) if recent else None,
            p99_ms=round(measuring.percentile(recent, 0.99) * 1000, 2) if recent else None,
            memory=memory,
            cpu=cpu,
            files={name: psutil.Process(pid).num_fds() for name, pid in pids.items() if name != "postgres"},
            tables_mib=tables,
            sessions=await connection.fetchval(_SESSIONS),
            lag=round(lag),
        )


async def metric(service: ServiceProcess, *names: str) -> float:
    """The sum of what a service shows under these names."""

    def read() -> str:
        with urllib.request.urlopen(service.metrics_url, timeout=10) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(read)
    families = text_string_to_metric_families(text)
    return sum(sample.value for family in families for sample in family.samples if sample.name in names)
