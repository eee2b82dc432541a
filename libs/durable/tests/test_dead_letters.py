"""What failed beyond automatic help (K4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from tierflow_contracts.events.v1 import event_pb2
from tierflow_durable.dead_letters import DISCARDED, RETRIED, Letter, LetterFilter
from tierflow_durable.ids import moment_of, uuid7
from tierflow_durable.letters import letter_message, publish_again
from tierflow_durable.packing import Message
from tierflow_runtime.values import Failure, FailureError
from tierflow_testing.counter import Add, End, Node
from tierflow_testing.waiting import eventually

Start = Callable[..., Awaitable[Node]]
DAYS = 86_400_000_000


def letter(**more: Any) -> Letter:
    fields: dict[str, Any] = {
        "id": uuid7(), "kind": "RUN", "tenant": "t", "user_id": "ada", "entity_id": uuid7(), "generation": 1, "swarm_id": uuid7(), "name": "bill",
        "version": "1", "trace_id": "", "failure": Failure(code="STEP_FAILED", message="no", cause=Failure(code="X.Y", message="why")),
    }  # fmt: skip
    return Letter(**{**fields, **more})


async def stored(database: str, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(database)
    try:
        return await connection.fetch(statement, *values)
    finally:
        await connection.close()


async def test_a_letter_is_kept_until_somebody_has_dealt_with_it(start_node: Start) -> None:
    """K4: written once; found by its tenant only; by user, swarm, flow and state; what became of it is said once, by whom and why."""
    letters = (await start_node("a")).durable.dead_letters
    first, second, other = letter(), letter(user_id="bob", name="ship"), letter(tenant="u")
    second = msgspec.structs.replace(second, id=uuid7(moment_of(first.id) + 2000))
    for one in (first, second, other, msgspec.structs.replace(first, id=uuid7())):
        await letters.note(one)
    everything = await letters.page(LetterFilter(tenant="t"))
    assert [one.id for one in everything] == [second.id, first.id]
    assert everything[1].failure == first.failure
    for wanted, found in (
        ({"user_id": "bob"}, [second]),
        ({"swarm_id": first.swarm_id}, [first]),
        ({"name": "ship"}, [second]),
        ({"states": ("OPEN",), "before_id": second.id}, [first]),
        ({"states": ("RETRIED",)}, []),
    ):
        assert [one.id for one in await letters.page(LetterFilter(tenant="t", **wanted))] == [one.id for one in found]
    for tenant in ("t", "u"):
        with pytest.raises(FailureError, match="There is no dead letter"):
            await letters.resolve((other if tenant == "t" else first).id, tenant, DISCARDED, actor="eve", reason="x")
    made = uuid7()
    done = await letters.resolve(first.id, "t", RETRIED, actor="ada", reason="mended", retried_as=made)
    assert (done.state, done.actor, done.reason, done.retried_as) == ("RETRIED", "ada", "mended", made)
    assert await letters.resolve(first.id, "t", RETRIED, actor="bob", reason="again", retried_as=made) == done
    with pytest.raises(FailureError, match="RETRIED already, by ada"):
        await letters.resolve(first.id, "t", DISCARDED, actor="bob", reason="no")
    await letters.resolve_of(second.entity_id, 1, actor="bob", reason="not yet")
    assert (await letters.find(second.id, "t")).state == "OPEN"
    await letters.resolve_of(second.entity_id, 2, actor="bob", reason="in the next generation")
    assert (await letters.find(second.id, "t")).actor == "bob"


async def test_a_letter_that_a_crash_swallowed_is_written_later(start_node: Start, toy: str) -> None:
    """K4: the ended entity's row says that there must be one; those that have one, and those that ended otherwise, are left alone."""
    node = await start_node("a")
    ids = [uuid7() for _ in range(3)]
    for entity_id in ids:
        await node.host.create(entity_id, Add(n=1))
        await node.durable.router.command(entity_id, End())
    mark = "UPDATE toy.entity SET outcome = 'FAILURE', reason = $2 WHERE id = $1"
    await stored(toy, mark, ids[0], "DEAD_LETTER")
    await stored(toy, mark, ids[1], "DEAD_LETTER")
    await stored(toy, mark, ids[2], "")
    letters = node.durable.dead_letters
    await letters.note(letter(entity_id=ids[1]))
    seen: list[str] = []

    async def note(entity_id: str) -> None:
        seen.append(entity_id)
        await letters.note(letter(entity_id=entity_id))

    await letters.look(note)
    await letters.look(note)
    assert seen == [ids[0]]
    again = "UPDATE toy.entity SET generation = 2 WHERE id = $1"
    await stored(toy, again, ids[0])
    await letters.look(note)
    assert seen == [ids[0], ids[0]]


async def test_letters_are_forgotten_in_time(start_node: Start, toy: str) -> None:
    """K4: those dealt with after as many days as entities are kept, open ones after six times that."""
    letters = (await start_node("a")).durable.dead_letters

    async def nothing(entity_id: str) -> None:
        raise AssertionError(entity_id)

    old, older, young = letter(name="old"), letter(name="older"), letter(name="young")
    done = letter(name="done")
    for one in (old, older, young, done):
        await letters.note(one)
    await letters.resolve(done.id, "t", DISCARDED, actor="ada", reason="x")
    for one, days in ((old, 40), (done, 40), (older, 181)):
        await stored(toy, "UPDATE toy.dead_letter SET created_at = created_at - $2 WHERE id = $1", one.id, days * DAYS)
    await letters.look(nothing)
    assert {one.name for one in await letters.page(LetterFilter(tenant="t"))} == {"young", "old"}


class Narrow:
    """JetStream that takes nothing above a size."""

    room = 1000
    connected = True

    def __init__(self) -> None:
        self.most = 2000
        self.taken: list[int] = []

    def send(self, message: Message, heard: Callable[[bytes | FailureError], None]) -> None:
        if len(message.payload) > self.most:
            heard(FailureError(Failure(code="MESSAGE_TOO_LARGE", message=f"{len(message.payload)} bytes")))
            return
        self.taken += [event.seq for event in event_pb2.EventBatch.FromString(message.payload).events]
        heard(b"")


async def test_events_that_are_too_large_are_dead_letters(start_node: Start) -> None:
    """K4, R20: what the owner or an heir cannot publish is noted with its place in the journal, once; it is published when the stream takes it, and refused as long as it does not."""
    stream = Narrow()
    node = await start_node("a", publisher=stream)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await node.durable.router.command(entity_id, Add(n=1, text="x" * 5000))
    letters = node.durable.dead_letters

    async def noted() -> list[Letter]:
        return await letters.page(LetterFilter(tenant="t"))

    (one,) = await eventually(noted)
    assert (one.kind, one.entity_id, one.first_seq, one.last_seq) == ("EVENTS", entity_id, 2, 2)
    assert one.failure.code == "MESSAGE_TOO_LARGE"
    await node.durable.relay._departed._publish(await letters.rows_of(one), node.durable.instance_id)
    await node.host.close()
    assert len(await noted()) == 1
    rows = await letters.rows_of(one)
    with pytest.raises(FailureError, match="refuses the events again: "):
        await publish_again(rows, "run", stream)
    stream.most = 10_000
    await publish_again(rows, "run", stream)
    assert stream.taken == [1, 2]
    assert letter_message(one).payload_ref == f"journal/{entity_id}/2-2"
