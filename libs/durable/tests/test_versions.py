"""Instances of two versions on one database: what only the newer one can read is left to it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import asyncpg
import pytest
from tierflow_durable import owning
from tierflow_durable.ids import uuid7
from tierflow_durable.machine import UnknownRecord
from tierflow_runtime.values import FailureError
from tierflow_testing.counter import Add, Fact, Node, Park
from tierflow_testing.waiting import eventually

Start = Callable[..., Awaitable[Node]]
NEWER = "of a kind that came later"


@pytest.fixture
async def connection(toy: str) -> AsyncIterator[Any]:
    made = await asyncpg.connect(toy)
    yield made
    await made.close()


def make_old(node: Node) -> None:
    """Lets a node know no event with the text `NEWER`."""
    known = node.host.machine.decode

    def decode(data: bytes) -> Iterable[tuple[int, int, Fact]]:
        for seq, time, fact in known(data):
            if fact.text == NEWER:
                raise UnknownRecord(f"event {seq} of a counter")
            yield seq, time, fact

    node.host.machine.decode = decode


async def created(node: Node, command: Add) -> str:
    """A counter that is stored."""
    made = await node.host.create(uuid7(node.durable.clock.now()), command)
    return str(made.entity_id)


async def test_what_an_old_version_cannot_read_waits_for_a_new_one(
    start_node: Start, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q23, A12, Lesson 30: an old instance that adopts an entity with an event of a kind that it does not know lets it go, unharmed, and goes on with all else; a command says that it may be sent again; a new instance takes it as soon as it is due."""
    monkeypatch.setattr(owning, "LEFT_FOR", 1_000_000)
    first = await start_node("a", lease=60.0)
    newer = [await created(first, Add(n=5, text=NEWER)) for _ in range(3)]
    plain = await created(first, Add(n=7))
    await first.die()
    old = await start_node("a", lease=60.0)  # of the same name: it takes over at once
    make_old(old)

    async def free(entity_id: str) -> bool:
        row = await connection.fetchrow("SELECT owner, wake_at, reason FROM toy.entity WHERE id = $1", entity_id)
        assert row["reason"] == ""
        return row["owner"] is None and row["wake_at"] is not None

    await eventually(lambda: plain in old.host.entities, 60)
    for entity_id in newer:
        await eventually(lambda entity_id=entity_id: free(entity_id), 60)
    assert await old.durable.router.command(plain, Add(n=1), "a") == 8
    with pytest.raises(FailureError) as refused:
        await old.durable.router.command(newer[0], Add(n=1), "b")
    assert refused.value.failure.code == "UNAVAILABLE"
    assert refused.value.failure.retryable
    with pytest.raises(FailureError, match="newer version"):
        await old.durable.reader.view(newer[0], lambda state: state.total)

    new = await start_node("newer", lease=60.0)
    await eventually(lambda: all(entity_id in new.host.entities for entity_id in newer), 60)
    for entity_id in newer:
        assert await new.durable.router.command(entity_id, Add(n=1), f"c-{entity_id}") == 6
    assert old.host.instance.alive


async def test_a_parked_one_keeps_its_moment(
    start_node: Start, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q23, R15: what was parked until a moment far away, and was claimed for a command by an old instance, is parked again until then by the new one that takes it."""
    monkeypatch.setattr(owning, "LEFT_FOR", 100_000)
    new = await start_node("new", lease=60.0)
    moment = new.durable.clock.now() + 3_600_000_000
    entity_id = await created(new, Add(n=5, text=NEWER))
    await new.durable.router.command(entity_id, Park(wake_at=moment), "a")

    async def parked() -> bool:
        row = await connection.fetchrow("SELECT owner, wake_at FROM toy.entity WHERE id = $1", entity_id)
        return row["owner"] is None and row["wake_at"] == moment

    await eventually(parked, 60)
    old = await start_node("old", lease=60.0)
    make_old(old)
    with pytest.raises(FailureError, match="newer version"):
        await old.durable.router.command(entity_id, Add(n=1), "b")
    await eventually(parked, 60)
