"""The auditor: reads everything that is stored and published, and says what of it contradicts the invariants and the rules.

It shares no code with the services' cores. It reads one snapshot of the database, so that it may be used while the system works; with `settled` it also demands
that nothing is left to do.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from tierflow_flow import from_canonical

from tierflow_testing.auditing.executions import Attempts, check_executions
from tierflow_testing.auditing.reading import History, histories
from tierflow_testing.auditing.report import Report
from tierflow_testing.auditing.runs import STUCK_AFTER, RunSummary, check_run
from tierflow_testing.auditing.schedules import ScheduleSummary, check_schedule, compare_schedules
from tierflow_testing.auditing.stream import check_stream, digest
from tierflow_testing.auditing.swarms import SwarmSummary, check_requests, check_swarm, compare
from tierflow_testing.history import shape_of

__all__ = ["Report", "audit"]

COORDINATOR, ORCHESTRATOR, SCHEDULES = "coordinator", "orchestrator", "schedules"
ACKNOWLEDGED_WITHIN = 60_000_000
"""Microseconds after which a result that Tier 1 has not acknowledged is a problem even while the system works."""


@dataclass(slots=True)
class _Read:
    """What was read of all entities."""

    swarms: dict[str, SwarmSummary] = field(default_factory=dict)
    runs: dict[str, RunSummary] = field(default_factory=dict)
    schedules: dict[str, ScheduleSummary] = field(default_factory=dict)
    digests: dict[str, dict[int, int]] = field(default_factory=dict)
    attempts: Attempts = field(default_factory=Attempts)

    def remember(self, history: History) -> None:
        self.digests[history.id] = {event.seq: digest(event) for event in history.events}


async def audit(
    database_url: str,
    nats_url: str | None = None,
    *,
    settled: bool = False,
    executions: pathlib.Path | None = None,
    executors_lived: bool = False,
    patience: float = 60.0,
) -> Report:
    """Checks what is stored, and what is published.

    Args:
        database_url: The database of both tiers.
        nats_url: The event stream; not looked at where it is None or empty.
        settled: Nothing is under way: every entity must have ended, every result must be acknowledged.
        executions: A file in which handlers have noted each of their executions.
        executors_lived: No executor died: nothing may have been executed twice.
        patience: Seconds for which the relay and what is settling are waited for.

    Raises:
        OSError, asyncpg.PostgresError: The database cannot be read.
    """
    connection: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    try:
        if settled:
            await _until_settled(connection, patience)
        if nats_url:
            await _until_relayed(connection, patience)
        report = Report()
        read = _Read()
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await _read_all(connection, read, report, settled=settled)
        await _check_sessions(connection, report)
    finally:
        await connection.close()
    compare(read.swarms, read.runs, report)
    compare_schedules(read.schedules, read.swarms, report)
    if executions is not None:
        check_executions(executions, read.attempts, report, executors_lived=executors_lived)
    if nats_url:
        await check_stream(nats_url, read.digests, report, patience)
    return report


async def _read_all(connection: asyncpg.Connection[Any], read: _Read, report: Report, *, settled: bool) -> None:
    now = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    flows = await _flows(connection)
    async for history in histories(connection, ORCHESTRATOR, report):
        read.runs[history.id] = check_run(history, flows, now, report)
        read.attempts.take(history.id, history.events)
        read.remember(history)
    async for history in histories(connection, COORDINATOR, report):
        read.swarms[history.id] = check_swarm(history, now, report)
        read.remember(history)
    async for history in histories(connection, SCHEDULES, report):
        read.schedules[history.id] = check_schedule(history, now, report)
        read.remember(history)
    requests = await connection.fetch(f"SELECT tenant, request_id, entity_id::text FROM {COORDINATOR}.request")
    check_requests([tuple(row) for row in requests], read.swarms, report)
    await _check_owners(connection, SCHEDULES, now, report, settled=settled)
    await _check_leftovers(connection, SCHEDULES, now, report, settled=False)  # A schedule may go on for ever.
    for schema in (COORDINATOR, ORCHESTRATOR):
        await _check_owners(connection, schema, now, report, settled=settled)
        await _check_leftovers(connection, schema, now, report, settled=settled)


async def _flows(connection: asyncpg.Connection[Any]) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """By hash of the flow: its shape."""
    rows = await connection.fetch(f"SELECT hash, definition FROM {ORCHESTRATOR}.flow")
    return {row["hash"]: shape_of(from_canonical(row["definition"])) for row in rows}


async def _check_owners(
    connection: asyncpg.Connection[Any], schema: str, now: int, report: Report, *, settled: bool
) -> None:
    """No entity is left with somebody who may not write (R11)."""
    rows = await connection.fetch(
        f"SELECT entity.id::text, entity.owner::text, fence.fenced_at FROM {schema}.entity LEFT JOIN {schema}.fence ON fence.id = entity.owner "
        "WHERE entity.owner IS NOT NULL AND coalesce(fence.fenced, true)"
    )
    for row in rows:
        passing = not settled and row["fenced_at"] is not None and now - row["fenced_at"] < STUCK_AFTER
        report.expect(passing, "owned by a fenced instance (R11)", f"{schema} {row['id']}: {row['owner']}")


async def _check_leftovers(
    connection: asyncpg.Connection[Any], schema: str, now: int, report: Report, *, settled: bool
) -> None:
    """What has ended is acknowledged; what is settled has ended; snapshots are not ahead of their journals."""
    before = now if settled else now - ACKNOWLEDGED_WITHIN
    rows = await connection.fetch(
        f"SELECT id::text FROM {schema}.unacknowledged WHERE ended_at < $1 UNION "
        f"SELECT id::text FROM {schema}.entity WHERE unacknowledged AND ended_at < $1",
        before,
    )
    for row in rows:
        report.problem("ended and not acknowledged (R28)", f"{schema} {row['id']}")
    if settled:
        for row in await connection.fetch(
            f"SELECT id::text, state, reason FROM {schema}.entity WHERE ended_at IS NULL"
        ):
            report.problem("not ended (K1)", f"{schema} {row['id']}: {row['state']} {row['reason']}")
    rows = await connection.fetch(
        f"SELECT entity_id::text, seq FROM {schema}.snapshot s WHERE seq > (SELECT max(seq) FROM {schema}.journal j WHERE j.entity_id = s.entity_id)"
    )
    for row in rows:
        report.problem("a snapshot ahead of its journal (K6)", f"{schema} {row['entity_id']}: {row['seq']}")


async def _check_sessions(connection: asyncpg.Connection[Any], report: Report) -> None:
    """Nobody holds a transaction open (F31)."""
    query = (
        "SELECT pid, application_name, state, query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%' "
        "AND pid <> pg_backend_pid() AND state_change < now() - interval '1 second'"
    )
    for row in await connection.fetch(query):
        report.problem("a transaction left open (F31)", f"{row['pid']} {row['application_name']}: {row['query'][:80]}")


async def _until_settled(connection: asyncpg.Connection[Any], patience: float) -> None:
    """Waits until nothing is open or unacknowledged; gives up silently: the audit then says what is."""
    query = "SELECT " + " + ".join(
        f"(SELECT count(*) FROM {schema}.entity WHERE ended_at IS NULL OR unacknowledged) + (SELECT count(*) FROM {schema}.unacknowledged)"
        for schema in (COORDINATOR, ORCHESTRATOR)
    )
    await _until(connection, query, patience)


async def _until_relayed(connection: asyncpg.Connection[Any], patience: float) -> None:
    """Waits until every watermark has reached the last row of its instance (R19); gives up silently: the audit then says what is missing."""
    query = "SELECT " + " + ".join(
        f"(SELECT count(*) FROM {schema}.watermark w WHERE w.position < "
        f"(SELECT coalesce(max(position), 0) FROM {schema}.journal j WHERE j.instance = w.id))"
        for schema in (COORDINATOR, ORCHESTRATOR, SCHEDULES)
    )
    await _until(connection, query, patience)


async def _until(connection: asyncpg.Connection[Any], query: str, patience: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while await connection.fetchval(query) and loop.time() < until:  # noqa: ASYNC110 - others write it, nobody tells
        await asyncio.sleep(0.2)
