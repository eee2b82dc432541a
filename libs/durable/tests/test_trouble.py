"""The durable library in trouble: defects, lost answers, races while entities change hands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from tierflow_durable.ids import uuid7
from tierflow_durable.migrations import migrate
from tierflow_runtime.publisher import Heard
from tierflow_runtime.values import Failure, FailureError
from tierflow_testing.counter import Add, End, Node

Start = Callable[..., Awaitable[Node]]
DRAIN = 120
"""Seconds; no drain needs them."""


@pytest.fixture
async def start(database: str) -> AsyncIterator[Start]:
    await migrate(database, "toy")
    nodes: list[Node] = []

    async def make(name: str = "a", **options: object) -> Node:
        node = Node(database, name, **options)
        await node.durable.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        await node.durable.close()


async def test_defect_ends_one_entity_only(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """F27, F28: a defect while deciding ends that entity; what it had decided before is kept, others go on."""
    node = await start()
    broken, other = uuid7(), uuid7()
    for entity_id in (broken, other):
        await node.host.create(entity_id, Add(n=1))
    decide = node.host.machine.decide

    def failing(state, command, now):  # type: ignore[no-untyped-def]
        if state.id == broken and command == Add(n=13):
            state.total = 999
            raise ZeroDivisionError
        return decide(state, command, now)

    monkeypatch.setattr(node.host.machine, "decide", failing)
    node.host.apply(node.host.entities[broken], Add(n=5))
    with pytest.raises(FailureError) as caught:
        await node.durable.router.command(broken, Add(n=13))
    assert caught.value.failure.code == "INTERNAL"
    assert await node.durable.reader.wait_ended(broken, 60)
    assert await node.durable.reader.view(broken, lambda state: state.total) == 6
    assert await node.durable.router.command(other, Add(n=1)) == 2


@pytest.mark.interpreted
async def test_loading_is_tried_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """R16, Lesson 29: an entity that was claimed and could not be loaded, because the database went away, is loaded when it is back."""
    node = await start("a", lease=60.0)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await node.die()
    heir = Node(node.durable.database.url, "a", lease=60.0)
    load = heir.host.loader.load
    failures = iter([True])

    async def failing(wanted: str):  # type: ignore[no-untyped-def]
        if next(failures, False):
            raise FailureError(Failure(code="DATABASE_UNAVAILABLE", message="away"))
        return await load(wanted)

    monkeypatch.setattr(heir.host.loader, "load", failing)
    await heir.durable.start()
    while entity_id not in heir.host.entities:
        await asyncio.sleep(0.01)
    await heir.durable.close()


@pytest.mark.interpreted
async def test_positions_follow_the_order_of_relaying(start: Start, database: str) -> None:
    """R19: rows are handed to the relay by rising position, whatever the order in which their entities were touched; else a watermark skips rows."""
    node = await start()
    seen: list[int] = []
    enqueue = node.durable.relay.enqueue

    def note(position: int, *rest: object, last: bool) -> None:
        seen.append(position)
        enqueue(position, *rest, last=last)

    node.durable.relay.enqueue = note
    await asyncio.gather(
        *(node.host.create(entity_id, Add(n=1)) for entity_id in reversed([uuid7() for _ in range(50)]))
    )
    assert seen == sorted(seen)
    assert node.durable.relay.lag == 0
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT max(position) FROM toy.journal") == node.durable.relay.watermark
    await connection.close()


async def test_a_storm_of_crashes_condemns_nobody(start: Start, database: str) -> None:
    """R13, F27: what was adopted too often together with others comes back one by one; nothing innocent is set aside."""
    node = await start()
    ids = [uuid7() for _ in range(8)]
    await asyncio.gather(*(node.host.create(entity_id, Add(n=1)) for entity_id in ids))
    for _ in range(5):
        await node.die()
        node = await start("a")
        await asyncio.wait_for(_all_in_memory(node, ids), 60)
    assert [await node.durable.router.command(entity_id, Add(n=1)) for entity_id in ids] == [2] * len(ids)
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT max(adoptions) FROM toy.entity") == 0
    await connection.close()


async def _all_in_memory(node: Node, ids: list[str]) -> None:
    while node.host.entities.keys() != set(ids):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("query", ["adopt", "due"])
async def test_a_claim_without_an_answer(start: Start, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """R11, R15, Lesson 29: entities that were claimed by a statement whose answer was lost are found and loaded; nobody else would."""
    node = await start("a", lease=60.0)
    ids = [uuid7() for _ in range(5)]
    for entity_id in ids:
        await node.host.create(entity_id, Add(n=1))
    if query == "due":
        await node.durable.drain(60)
    await node.die()
    heir = Node(node.durable.database.url, "a", lease=60.0)
    fetch, lost = heir.durable.database.fetch, []

    async def losing(name, /, **values):  # type: ignore[no-untyped-def]
        rows = await fetch(name, **values)
        if name == query and rows and not lost:
            lost.extend(rows)
            raise FailureError(Failure(code="DATABASE_UNAVAILABLE", message="the answer is lost"))
        return rows

    monkeypatch.setattr(heir.durable.database, "fetch", losing)
    await heir.durable.start()
    await asyncio.wait_for(_all_in_memory(heir, ids), 60)
    assert len(lost) == len(ids)
    await heir.durable.close()


@pytest.mark.interpreted
async def test_created_again_while_it_is_adopted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3, R16, R28: a request that is sent again while its entity is being adopted attaches to it; the copy that it made does not push the stored one out."""
    node = await start("a", lease=60.0)
    ids = [uuid7() for _ in range(3)]
    for entity_id in ids:
        await node.host.create(entity_id, Add(n=1))
    await node.die()
    heir = Node(node.durable.database.url, "a", lease=60.0)
    load, answers = heir.host.loader.load, []

    async def meanwhile(entity_id: str):  # type: ignore[no-untyped-def]
        loaded = await load(entity_id)
        if (
            len(answers) < 3
        ):  # a copy comes into being although the entity is being loaded: nobody knew yet that it is here
            monkeypatch.setattr(heir.host.owning, "is_loading", lambda _: False)
            heir.host.create_now(entity_id, Add(n=100), None, answers.append)
        return loaded

    monkeypatch.setattr(heir.host.loader, "load", meanwhile)
    await heir.durable.start()
    while (
        len(answers) < 3 or heir.host.entities.keys() != set(ids) or any(e.birth for e in heir.host.entities.values())
    ):
        await asyncio.sleep(0.01)
    assert [answer.created for answer in answers] == [False] * 3
    assert [await heir.durable.router.command(entity_id, Add(n=1)) for entity_id in ids] == [2, 2, 2]
    await heir.durable.close()


@pytest.mark.interpreted
async def test_created_again_while_it_is_loaded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3, R28: a request for an entity that is on its way into memory is answered at once: it exists."""
    node = await start("a", lease=60.0)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await node.die()
    heir = Node(node.durable.database.url, "a", lease=60.0)
    load, go_on, asked = heir.host.loader.load, asyncio.Event(), asyncio.Event()

    async def slowly(wanted: str):  # type: ignore[no-untyped-def]
        asked.set()
        await go_on.wait()
        return await load(wanted)

    monkeypatch.setattr(heir.host.loader, "load", slowly)
    await heir.durable.start()
    await asyncio.wait_for(asked.wait(), 60)
    assert not (await asyncio.wait_for(heir.host.create(entity_id, Add(n=100)), 60)).created
    go_on.set()
    assert await heir.durable.router.command(entity_id, Add(n=1)) == 2
    await heir.durable.close()


class Deaf:
    """A publisher whose acknowledgements come when the test says so."""

    connected = True
    room = 1000

    def __init__(self) -> None:
        self.sent: list[object] = []

    def send(self, message: object, heard: Heard) -> None:
        self.sent.append(message)
        asyncio.get_running_loop().call_soon(heard, b"")


async def test_nothing_is_born_while_draining(start: Start, toy: str) -> None:
    """R12, R19, Q22: from the moment at which an instance hands over it makes nothing new: what it would make has neither an owner nor a relay."""
    node = await start("a", publisher=Deaf())
    await node.host.create(uuid7(), Add(n=1))
    await node.durable.drain(60)
    with pytest.raises(FailureError) as caught:
        await node.host.create(uuid7(), Add(n=1))
    assert caught.value.failure.code == "UNAVAILABLE"


async def test_what_is_not_relayed_keeps_its_watermark(start: Start, toy: str) -> None:
    """R19, H4: rows that are beyond the watermark when an instance leaves are left to the peers, whatever it believed to have relayed."""
    node = await start("a", publisher=Deaf())
    await node.host.create(uuid7(), Add(n=1))
    connection = await asyncpg.connect(toy)
    await node.durable.database.fetch("drop_watermark", id=node.durable.instance_id)
    assert await connection.fetchval("SELECT count(*) FROM toy.watermark") == 1
    await node.durable.drain(60)
    assert await connection.fetchval("SELECT count(*) FROM toy.watermark") == 0
    await connection.close()


async def test_drain_under_load(start: Start) -> None:
    """R12, Q22: an instance hands over while commands keep coming; what they change is on neither side twice nor lost."""
    a, b = await start("a", lease=30.0), await start("b", lease=30.0)
    ids = [uuid7() for _ in range(20)]
    await asyncio.gather(*(a.host.create(entity_id, Add(n=0)) for entity_id in ids))
    over = asyncio.Event()

    async def keep_telling(entity_id: str) -> int:
        told = 0
        while not over.is_set():
            told += a.host.tell(entity_id, Add(n=1))
            await asyncio.sleep(0)
        return told

    telling = [asyncio.create_task(keep_telling(entity_id)) for entity_id in ids]
    while a.host.entities[ids[-1]].state.total < 5:
        await asyncio.sleep(0.01)
    await asyncio.wait_for(a.durable.drain(DRAIN), DRAIN / 2)  # it ends by itself, although the commands do not
    over.set()
    told = await asyncio.gather(*telling)
    assert [await b.durable.router.command(entity_id, Add(n=0)) for entity_id in ids] == told


async def test_an_ended_entity_may_have_something_to_note(
    start: Start, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14, R23: a command that an ended entity answers with events (the cost of a late result) is stored; the entity is let go again."""
    node = await start()
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await node.durable.router.command(entity_id, End())
    decide = node.host.machine.decide

    def noting(state, command, now):  # type: ignore[no-untyped-def]
        if command != Add(n=5):
            return decide(state, command, now)
        ended, state.ended_at = state.ended_at, None
        decision = decide(state, command, now)
        state.ended_at = ended
        return decision

    monkeypatch.setattr(node.host.machine, "decide", noting)
    assert await asyncio.wait_for(node.durable.router.command(entity_id, Add(n=5)), 60) == 6
    async with asyncio.timeout(60):
        while entity_id in node.host.entities:
            await asyncio.sleep(0.01)
    connection = await asyncpg.connect(database)
    row = await connection.fetchrow("SELECT owner, seq, ended_at FROM toy.entity WHERE id = $1", entity_id)
    await connection.close()
    assert (row["owner"], row["seq"]) == (None, 3)
    assert row["ended_at"] is not None
