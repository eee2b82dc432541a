"""Named places in histories: what they cost, what they prove, how many are kept (K5, K6, K12)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from tierflow_durable.checkpoints import Checkpoints
from tierflow_durable.ids import uuid7
from tierflow_runtime.values import FailureError
from tierflow_testing.counter import Add, End, Node, Park, Toy

Start = Callable[..., Awaitable[Node]]
YEAR = 365 * 86_400_000_000


async def grown(node: Node, entity_id: str, n: int, text: str = "x") -> None:
    for _ in range(n):
        await node.durable.router.command(entity_id, Add(n=1, text=text))


async def born(node: Node) -> str:
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    return entity_id


async def stored(database: str, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetch(statement, *values)
    finally:
        await connection.close()


async def test_a_checkpoint_is_what_was_there(start_node: Start) -> None:
    """K5, K6: while it goes on, parked, after its end and at another instance; the same name is the same place, whoever says it."""
    node = await start_node("a")
    entity_id = await born(node)
    await grown(node, entity_id, 4)
    places = node.durable.checkpoints
    first, created = await places.mark(entity_id, "before", actor="ada", reason="risky")
    assert (first.seq, first.actor, first.reason, len(first.head), created) == (5, "ada", "risky", 32, True)
    await grown(node, entity_id, 5)
    assert await places.mark(entity_id, "before", actor="bob") == (first, False)
    await node.durable.router.command(entity_id, Park())
    parked, _ = await places.mark(entity_id, "parked", actor="ada")
    await node.durable.router.command(entity_id, End())
    other = await start_node("b")
    assert (await other.durable.checkpoints.state_of(first)).total == 5
    then = await other.durable.checkpoints.state_of(parked)
    assert (then.total, then.parked, then.ended_at) == (10, True, None)
    assert [one.name for one in await other.durable.checkpoints.list(entity_id)] == ["parked", "before"]
    for wrong in (places.find(entity_id, "no"), places.mark(uuid7(), "x", actor="ada")):
        with pytest.raises(FailureError, match="There is no checkpoint"):
            await wrong


async def test_a_hundred_checkpoints_store_no_state(start_node: Start, toy: str) -> None:
    """K6: between two checkpoints only what changed is stored, once; a checkpoint of a megabyte of history takes less than 300 bytes."""
    node = await start_node("a")
    entity_id = await born(node)
    await grown(node, entity_id, 50, "x" * 20_000)
    before = await stored(toy, "SELECT count(*) AS n, sum(length(data)) AS size FROM toy.journal")
    for number in range(100):
        await node.durable.checkpoints.mark(entity_id, f"c{number}", actor="ada")
    assert await stored(toy, "SELECT count(*) AS n, sum(length(data)) AS size FROM toy.journal") == before
    assert before[0]["size"] > 1_000_000
    (taken,) = await stored(toy, "SELECT sum(pg_column_size(c.*)) AS size FROM toy.checkpoint c")
    assert taken["size"] < 100 * 300


async def test_a_damaged_history_is_no_checkpoint(start_node: Start, toy: str) -> None:
    """K6, S12: what was changed before the place is noticed, what was changed behind it does not matter; an exchanged hash is noticed."""
    node = await start_node("a")
    entity_id = await born(node)
    await grown(node, entity_id, 9)
    places = node.durable.checkpoints
    early = (await places.mark(entity_id, "late", actor="ada"))[0]
    flip = "UPDATE toy.journal SET data = set_byte(data, 9, get_byte(data, 9) # 1) WHERE entity_id = $1 AND seq = $2"
    await grown(node, entity_id, 3)
    await stored(toy, flip, entity_id, 12)
    assert (await places.state_of(early)).total == 10
    await stored(toy, "UPDATE toy.checkpoint SET chain = sha256('x') WHERE entity_id = $1", entity_id)
    with pytest.raises(FailureError, match="not as it was written") as refused:
        await places.state_of(await places.find(entity_id, "late"))
    assert refused.value.failure.code == "HISTORY_DAMAGED"
    await stored(toy, flip, entity_id, 4)
    with pytest.raises(FailureError, match="at event 4"):
        await places.state_of(early)


async def test_checkpoints_are_bounded_in_number_and_age(start_node: Start, toy: str) -> None:
    """K12: the oldest give way to new ones; the reaper takes those that are too old, and those of entities that are gone, and no others."""
    node = await start_node("a")
    entity_id, other = await born(node), await born(node)
    few = Checkpoints(node.host, most=3)
    for number in range(5):
        await few.mark(entity_id, f"c{number}", actor="ada")
    assert [one.name for one in await few.list(entity_id)] == ["c4", "c3", "c2"]
    await few.mark(other, "young", actor="ada")
    await stored(toy, "UPDATE toy.checkpoint SET created_at = created_at - $1 WHERE name IN ('c2', 'c3')", YEAR)
    assert await node.durable.retention.tend()
    assert [one.name for one in await few.list(entity_id)] == ["c4"]
    assert [one.name for one in await few.list(other)] == ["young"]


class Newer(Toy):
    """A build whose snapshots the present one cannot read."""

    def dump(self, state: Any) -> bytes:
        return msgspec.msgpack.encode({"fields": "of tomorrow"})


async def test_snapshots_that_cannot_be_used_are_noticed(start_node: Start, toy: str, capfd: Any) -> None:
    """K6: one with a wrong checksum and one of another version: the journal is read instead, it is counted, and the log says which."""
    node = await start_node("a")
    flipped, newer = await born(node), await born(node)
    await grown(node, flipped, 30, "x" * 5000)
    node.host.machine = Newer()
    await grown(node, newer, 30, "x" * 5000)
    assert len(await stored(toy, "SELECT FROM toy.snapshot")) == 2
    flip = "UPDATE toy.snapshot SET data = set_byte(data, 20, get_byte(data, 20) # 1) WHERE entity_id = $1"
    await stored(toy, flip, flipped)
    await node.die()
    heir = await start_node("a")
    assert await heir.durable.router.command(flipped, Add(n=1)) == 32
    assert await heir.durable.router.command(newer, Add(n=1)) == 32
    assert heir.host.loader.damaged_snapshots == 2
