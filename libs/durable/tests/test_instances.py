"""Leases, fences, and positions: what instances write about themselves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tierflow_durable.ids import uuid7
from tierflow_testing.counter import Add, End, Node
from tierflow_testing.waiting import eventually

Start = Callable[..., Awaitable[Node]]


@pytest.fixture
async def connection(toy: str) -> AsyncIterator[Any]:
    made = await asyncpg.connect(toy)
    yield made
    await made.close()


async def test_heartbeats_touch_one_row(start_node: Start, connection: Any) -> None:
    """R9, J4: the lease moves by the database's clock, in a row of its own; the fence row, which commits read, is not written by heartbeats."""
    node = await start_node(lease=3.0)
    me = node.durable.instance_id
    first = await connection.fetchrow("SELECT *, xmin FROM toy.instance WHERE id = $1", me)
    fence = await connection.fetchrow("SELECT *, xmin FROM toy.fence WHERE id = $1", me)
    assert (first["name"], fence["fenced"]) == ("a", False)

    async def renewed() -> Any:
        row = await connection.fetchrow("SELECT * FROM toy.instance WHERE id = $1", me)
        return row if row["lease_until"] > first["lease_until"] + 500_000 else None

    row = await eventually(renewed)
    now = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    assert 0 < row["lease_until"] - now <= 3_000_000
    assert await connection.fetchrow("SELECT *, xmin FROM toy.fence WHERE id = $1", me) == fence


async def test_the_writers_session_is_known_and_bounded(start_node: Start, connection: Any) -> None:
    """R9, R12: the writer's transactions end before the lease, its session is published, and who fences it ends that session."""
    node = await start_node(lease=4.0)
    writer = node.host.writer
    assert await writer._connection.fetchval("SHOW transaction_timeout") == "3200ms"

    async def published() -> bool:
        row = await connection.fetchrow("SELECT backend_pid FROM toy.instance WHERE id = $1", node.durable.instance_id)
        return row["backend_pid"] == writer.backend_pid != 0

    await eventually(published)
    pid = writer.backend_pid
    assert await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid) == 1
    await start_node("a", lease=4.0)

    async def gone() -> bool:
        return await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid) == 0

    await eventually(gone)
    await asyncio.wait_for(node.fenced, 60)


async def test_a_commit_that_takes_longer_than_the_lease_allows(start_node: Start, connection: Any) -> None:
    """R9, R5: a statement that a lock holds up is given up before the lease ends, and tried again: the instance lives, the answer is right."""
    node = await start_node(lease=1.0)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    holding = connection.transaction()
    await holding.start()
    await connection.execute("LOCK TABLE toy.journal IN SHARE MODE")
    asked = asyncio.create_task(node.durable.router.command(entity_id, Add(n=10)))
    first = await eventually(lambda: _waiting(connection))

    async def sent_again() -> bool:
        return bool(await _waiting(connection) - first)

    await eventually(sent_again)
    assert not asked.done()
    await holding.rollback()
    assert await asyncio.wait_for(asked, 60) == 11
    assert not node.fenced.done()


async def _waiting(connection: Any) -> set[int]:
    query = "SELECT pid FROM pg_locks WHERE relation = 'toy.journal'::regclass AND NOT granted"
    return {row["pid"] for row in await connection.fetch(query)}


async def test_positions_are_no_cursor(start_node: Start, connection: Any) -> None:
    """Lesson 42, R2, R22: what is committed late, with a lower position than what was read before, is read nonetheless; and no sequence is used anywhere."""
    assert await connection.fetchval("SELECT count(*) FROM pg_sequences") == 0
    slow, fast = await start_node("slow", lease=30.0), await start_node("fast", lease=30.0)
    late, early = uuid7(), uuid7()
    await slow.host.create(late, Add(n=1))
    await fast.host.create(early, Add(n=1))
    seen: list[tuple[str, int]] = []

    async def follow(entity_id: str) -> None:
        async for row in fast.durable.reader.watch(entity_id, 0):
            seen.append((entity_id, row.seq))  # noqa: PERF401 - looked at while it grows

    watching = [asyncio.create_task(follow(entity_id)) for entity_id in (late, early)]
    holding = connection.transaction()
    await holding.start()
    await connection.execute("SELECT 1 FROM toy.fence WHERE id = $1 FOR UPDATE", slow.durable.instance_id)
    held_up = asyncio.create_task(slow.durable.router.command(late, End()))
    await eventually(lambda: slow.host.entities[late].seq == 2)
    await fast.durable.router.command(early, End())
    await eventually(lambda: (early, 2) in seen)
    assert (late, 2) not in seen
    await holding.rollback()
    await asyncio.wait_for(asyncio.gather(held_up, *watching), 60)
    assert sorted(seen) == sorted((entity_id, seq) for entity_id in (late, early) for seq in (1, 2))
    positions = dict(await connection.fetch("SELECT entity_id::text, position FROM toy.journal WHERE seq = 2"))
    assert positions[late] < positions[early]
