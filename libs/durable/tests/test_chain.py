"""Histories that show when they were changed (S12, K6)."""

from __future__ import annotations

import timeit
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tierflow_durable.chain import Verified, next_link, verify
from tierflow_durable.ids import uuid7
from tierflow_testing.counter import Add, End, Node

Start = Callable[..., Awaitable[Node]]


async def written(node: Node, n: int = 5, text: str = "x") -> str:
    """An entity with some rows of history."""
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    for _ in range(n):
        await node.durable.router.command(entity_id, Add(n=1, text=text))
    return entity_id


async def found(node: Node, entity_id: str, last: int) -> Verified:
    return await verify(node.durable.database, entity_id, last)


async def meddle(database: str, statement: str, *values: Any) -> None:
    """Changes what is stored, as somebody with access to the database can."""
    connection = await asyncpg.connect(database)
    await connection.execute(statement, *values)
    await connection.close()


async def test_what_nobody_touched_is_intact(start_node: Start, toy: str) -> None:
    """S12, K7: over the death of its owner, a claim by another and its end, in one chain."""
    first = await start_node("a")
    entity_id = await written(first)
    before = await found(first, entity_id, 6)
    assert (before.events, before.broken_at, before.unproven, len(before.head)) == (6, None, 0, 32)
    await first.die()
    heir = await start_node("a")
    await heir.durable.router.command(entity_id, Add(n=1))
    await heir.durable.router.command(entity_id, End())
    assert await heir.durable.reader.wait_ended(entity_id, 60)
    after = await found(heir, entity_id, 8)
    assert (after.events, after.broken_at) == (8, None)
    assert after.head != before.head


FLIP = "UPDATE toy.journal SET data = set_byte(data, length(data) - 1, get_byte(data, length(data) - 1) # 1)"


@pytest.mark.parametrize(
    ("statement", "place", "words"),
    [
        (FLIP + " WHERE entity_id = $1 AND seq = 3", 3, "not as it was written"),
        (FLIP + " WHERE entity_id = $1 AND seq = 6", 6, "not as it was written"),
        (
            "UPDATE toy.journal SET chain = set_byte(chain, 0, get_byte(chain, 0) # 1) WHERE entity_id = $1 AND seq = 2",
            2,
            "not as it was",
        ),
        ("UPDATE toy.journal SET chain = NULL WHERE entity_id = $1 AND seq = 4", 4, "has lost its hash"),
        ("DELETE FROM toy.journal WHERE entity_id = $1 AND seq = 3", 3, "events 3 to 3 are missing"),
        ("DELETE FROM toy.journal WHERE entity_id = $1 AND seq = 1", 1, "events 1 to 1 are missing"),
        ("DELETE FROM toy.journal WHERE entity_id = $1 AND seq = 6", 6, "ends at event 5; there were 6"),
        ("DELETE FROM toy.journal WHERE entity_id = $1", 1, "ends at event 0; there were 6"),
        (
            "UPDATE toy.journal j SET data = o.data, chain = o.chain FROM toy.journal o"
            " WHERE j.entity_id = $1 AND j.seq = 3 AND o.entity_id = $1 AND o.seq = 4",
            3,
            "not as it was written, or one before it was exchanged",
        ),
    ],
)
async def test_every_change_is_found_with_its_place(
    start_node: Start, toy: str, statement: str, place: int, words: str
) -> None:
    """S12: a byte flipped, a hash gone or changed, rows that are missing, exchanged or cut off."""
    node = await start_node("a")
    entity_id = await written(node)
    await meddle(toy, statement, entity_id)
    seen = await found(node, entity_id, 6)
    assert seen.broken_at == place
    assert words in seen.problem
    assert seen.events == place - 1


async def test_rows_of_another_do_not_fit(start_node: Start, toy: str) -> None:
    """S12: a whole history that was put in the place of another is not it."""
    node = await start_node("a")
    one, other = await written(node), await written(node)
    await meddle(toy, "DELETE FROM toy.journal WHERE entity_id = $1", one)
    await meddle(toy, "UPDATE toy.journal SET entity_id = $1 WHERE entity_id = $2", one, other)
    assert (await found(node, one, 6)).broken_at == 1


async def test_what_is_older_than_the_chain_is_not_proven(start_node: Start, toy: str) -> None:
    """S12, Q23: histories of before go on, and are chained from then on; what is not proven is said."""
    node = await start_node("a")
    entity_id = await written(node)
    await meddle(toy, "UPDATE toy.journal SET chain = NULL WHERE entity_id = $1", entity_id)
    seen = await found(node, entity_id, 6)
    assert (seen.broken_at, seen.unproven) == (None, 6)
    await node.die()
    heir = await start_node("a")
    await heir.durable.router.command(entity_id, Add(n=1))
    later = await found(heir, entity_id, 7)
    assert (later.broken_at, later.unproven, later.events) == (None, 6, 7)
    await meddle(toy, FLIP + " WHERE entity_id = $1 AND seq = 7", entity_id)
    assert (await found(heir, entity_id, 7)).broken_at == 7


async def test_a_snapshot_that_was_changed_is_not_used(start_node: Start, toy: str) -> None:
    """K6, S12: the journal is read instead, nothing is lost, and it is told."""
    node = await start_node("a")
    entity_id = await written(node, 30, "x" * 5000)
    assert await node.durable.database.fetch("snapshots_of", ids=[entity_id])
    sound = await found(node, entity_id, 31)
    assert sound.broken_at is None
    await node.die()
    heir = await start_node("a")
    assert await heir.durable.router.command(entity_id, Add(n=1)) == 32
    assert (await found(heir, entity_id, 32)).broken_at is None
    flip = "UPDATE toy.snapshot SET data = set_byte(data, 20, get_byte(data, 20) # 1) WHERE entity_id = $1"
    await meddle(toy, flip, entity_id)
    assert "snapshot" in (await found(heir, entity_id, 32)).problem
    await heir.die()
    last = await start_node("a")
    assert await last.durable.router.command(entity_id, Add(n=1)) == 33
    assert (await found(last, entity_id, 33)).broken_at is None  # A new one has taken its place.


def test_a_link_costs_little() -> None:
    """S12: less than 20 microseconds for a row of 600 bytes, on any machine that could run this at all."""
    link, data = b"x" * 32, b"y" * 600
    assert min(timeit.repeat(lambda: next_link(link, data), number=1000, repeat=5)) / 1000 < 20e-6
