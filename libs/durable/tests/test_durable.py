"""The durable library against a real Postgres."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from tierflow_durable.batch import blob_name
from tierflow_durable.ids import uuid7
from tierflow_durable.machine import RequestKey
from tierflow_durable.migrations import migrate
from tierflow_durable.reading import Idle, ListFilter
from tierflow_durable.writer import FEWEST_ENTITIES, MOST_ENTITIES, most_entities
from tierflow_runtime.values import FailureError
from tierflow_testing.counter import Add, End, Node, Park
from tierflow_testing.waiting import PATIENCE, eventually

Start = Callable[..., Awaitable[Node]]
LONG = 10 * PATIENCE
"""A lease that no test waits for."""


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


def test_a_commit_leaves_half_to_others() -> None:
    """J13: tiers work side by side: of what is in memory a commit takes half, within bounds."""
    assert most_entities(2) == FEWEST_ENTITIES
    assert most_entities(80) == 40
    assert most_entities(100_000) == MOST_ENTITIES


async def test_create_apply_end(start: Start, database: str) -> None:
    """R1, R3, C5: what is decided is in one journal, gapless, and the entity lets go at its end."""
    node = await start()
    entity_id = uuid7()
    made = await node.host.create(entity_id, Add(n=1))
    assert made.created
    for _ in range(10):
        await node.durable.router.command(entity_id, Add(n=2))
    assert await node.durable.reader.view(entity_id, lambda state: state.total) == 21
    await node.durable.router.command(entity_id, End())
    assert await node.durable.reader.wait_ended(entity_id, 60)
    assert entity_id not in node.host.entities
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT first_seq, seq FROM toy.journal WHERE entity_id = $1 ORDER BY seq", entity_id)
    assert [number for row in rows for number in range(row["first_seq"], row["seq"] + 1)] == list(range(1, 13))
    assert await connection.fetchval("SELECT owner FROM toy.entity WHERE id = $1", entity_id) is None
    await connection.close()
    assert await node.durable.router.command(entity_id, Add(n=5)) == 21


async def test_group_commit(start: Start) -> None:
    """R2: what is decided while a statement is in flight shares the next one."""
    node = await start()
    before = node.host.writer.batches
    await asyncio.gather(*(node.host.create(uuid7(), Add(n=1)) for _ in range(1000)))
    assert node.host.writer.batches - before <= 1000 // MOST_ENTITIES + 5


async def test_request_id(start: Start) -> None:
    """R8, A14: the same id and body is one entity, also at once and through two instances; another body is refused."""
    a, b = await start("a"), await start("b")
    key = RequestKey(tenant="t", request_id="r", body_hash=b"1")
    results = await asyncio.gather(*(node.host.create(uuid7(), Add(n=1), key) for node in (a, b) * 10))
    assert len({result.entity_id for result in results}) == 1
    assert sum(result.created for result in results) == 1
    with pytest.raises(FailureError) as caught:
        await a.host.create(uuid7(), Add(n=1), RequestKey(tenant="t", request_id="r", body_hash=b"2"))
    assert caught.value.failure.code == "REQUEST_ID_REUSED"
    assert len(a.host.entities) + len(b.host.entities) == 1


async def test_fenced_instance_cannot_write(start: Start, database: str) -> None:
    """R1, J5: once the fence row is closed, a commit stores nothing and the instance is told to go."""
    node = await start()
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE toy.fence SET fenced = true WHERE id = $1", node.durable.instance_id)
    node.host.apply(node.host.entities[entity_id], Add(n=100))
    await asyncio.wait_for(node.fenced, 60)
    assert await connection.fetchval("SELECT count(*) FROM toy.journal WHERE entity_id = $1", entity_id) == 1
    await connection.close()


async def test_same_name_takes_over_at_once(start: Start) -> None:
    """R12, K8: a new incarnation of a name fences the old one and adopts what it owned, without waiting for the lease."""
    old = await start("a", lease=LONG)
    ids = [uuid7() for _ in range(250)]
    await asyncio.gather(*(old.host.create(entity_id, Add(n=1)) for entity_id in ids))
    await old.die()
    new = await start("a", lease=LONG)
    await eventually(lambda: len(new.notes.opened_ids) >= len(ids))
    assert sorted(new.notes.opened_ids) == sorted(ids)
    assert new.notes.replaced
    assert await new.durable.router.command(ids[0], Add(n=1)) == 2


async def test_peer_adopts_after_lease(start: Start) -> None:
    """R10, R11, J4: a peer that has beaten for a full lease fences one whose lease ran out, and adopts."""
    a, b = await start("a", lease=2.0), await start("b", lease=2.0)
    entity_id = uuid7()
    await a.host.create(entity_id, Add(n=1))
    await a.die()
    assert await b.durable.router.command(entity_id, Add(n=1)) == 2
    assert entity_id in b.host.entities


async def test_forward_needs_owner(start: Start) -> None:
    """R14: a command for another's entity is not decided here while that one lives."""
    a, b = await start("a", lease=30.0), await start("b", lease=30.0)
    entity_id = uuid7()
    await a.host.create(entity_id, Add(n=1))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(b.durable.router.command(entity_id, Add(n=1)), 0.5)
    assert a.host.entities[entity_id].state.total == 1


async def test_parking(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """R15, J8: a waiting entity leaves memory, wakes by itself at its moment, and a command wakes it earlier."""
    monkeypatch.setattr("tierflow_durable.host.PARK_AFTER", 100_000)
    node = await start()
    sleeper, called = uuid7(), uuid7()
    for entity_id in (sleeper, called):
        await node.host.create(entity_id, Add(n=1))
    await node.durable.router.command(called, Park())

    def left(entity_id: str) -> bool:
        return any(closed == entity_id for closed, _ in node.notes.closed_ids)

    def woken() -> int:
        return sum((entity_id, fact.kind) == (sleeper, "woken") for entity_id, fact in node.notes.committed_facts)

    for seconds in (1, 5, 25):  # the first is enough, unless the machine takes longer to store that it waits
        before, moment = woken(), node.durable.clock.now() + seconds * 1_000_000
        await node.durable.router.command(sleeper, Park(wake_at=moment))
        await eventually(lambda before=before: left(sleeper) or woken() > before)
        if left(sleeper):
            break
    await eventually(lambda: left(called))
    assert await node.durable.router.command(called, Add(n=1)) == 2
    await eventually(lambda: woken() > before)
    assert node.durable.clock.now() >= moment
    assert sleeper in node.notes.opened_ids
    await node.durable.router.command(called, Park())  # woken by a command once, it may still be parked again
    await eventually(lambda: called not in node.host.entities)


async def test_short_wait_stays_in_memory(start: Start) -> None:
    """R15: a wait of a moment costs no parking; it is woken by the owner's timer."""
    node = await start()
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await node.durable.router.command(entity_id, Park(wake_at=node.durable.clock.now() + 200_000))
    entity = node.host.entities[entity_id]
    while not entity.state.woken:
        await asyncio.sleep(0.01)
    assert entity.state.woken == 1


async def test_bad_row_is_bisected(start: Start) -> None:
    """R5, Lesson 28: one row that Postgres refuses fails alone; the others of its batch are stored."""
    node = await start()
    node.host.machine.header_of = node.host.machine.header
    poison = uuid7()
    original = node.host.machine.header

    def header(state):  # type: ignore[no-untyped-def]
        made = original(state)
        return (
            made
            if state.id != poison
            else type(made)(**{**{f: getattr(made, f) for f in made.__struct_fields__}, "reason": "nul\0"})
        )

    node.host.machine.header = header
    good = [uuid7() for _ in range(20)]
    results = await asyncio.gather(
        *(node.host.create(entity_id, Add(n=1)) for entity_id in [*good, poison]), return_exceptions=True
    )
    assert isinstance(results[-1], FailureError)
    assert all(not isinstance(result, BaseException) for result in results[:-1])
    assert set(node.host.entities) == set(good)


async def test_handover(start: Start) -> None:
    """R12, Q22: a drained instance's entities are taken by a peer without waiting for a lease."""
    a, b = await start("a", lease=LONG), await start("b", lease=LONG)
    ids = [uuid7() for _ in range(50)]
    await asyncio.gather(*(a.host.create(entity_id, Add(n=1)) for entity_id in ids))
    await a.durable.drain(60)
    await eventually(lambda: len(b.host.entities) == len(ids))


async def test_poison_is_quarantined(start: Start, database: str) -> None:
    """R13, F27: an entity that was adopted four times without progress is set aside, others go on."""
    node = await start()
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    await node.die()
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE toy.entity SET adoptions = 3 WHERE id = $1", entity_id)
    heir = await start("a")
    while await connection.fetchval("SELECT reason FROM toy.entity WHERE id = $1", entity_id) != "QUARANTINED":
        await asyncio.sleep(0.01)
    assert entity_id not in heir.host.entities
    await connection.close()


async def test_watch(start: Start) -> None:
    """R22, H26: a watch yields every row once, in order, tells when idle, and ends with the entity."""
    node = await start()
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    seen: list[int] = []
    idle = asyncio.Event()

    async def follow() -> None:
        async for row in node.durable.reader.watch(entity_id, 0, idle_after=0.1):
            if isinstance(row, Idle):
                idle.set()
            else:
                seen.extend(range(row.first_seq, row.seq + 1))

    watching = asyncio.create_task(follow())
    for _ in range(20):
        await node.durable.router.command(entity_id, Add(n=1))
    await asyncio.wait_for(idle.wait(), 60)
    await node.durable.router.command(entity_id, End())
    await asyncio.wait_for(watching, 60)
    assert seen == list(range(1, 23))


async def test_snapshot(start: Start) -> None:
    """R6, K6: a long journal is loaded from its snapshot and the rest."""
    node = await start("a")
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    for _ in range(30):
        await node.durable.router.command(entity_id, Add(n=1, text="x" * 5000))
    rows = await node.durable.database.fetch("snapshots_of", ids=[entity_id])
    assert rows
    assert rows[0]["seq"] > 1
    await node.die()
    heir = await start("a")
    assert await heir.durable.router.command(entity_id, Add(n=1)) == 32


async def test_list_and_counts(start: Start) -> None:
    """I15, Q14: rows are listed newest first, by filter, page by page."""
    node = await start()
    ids = [uuid7() for _ in range(25)]
    for entity_id in ids:
        await node.host.create(entity_id, Add(n=1))
    await node.durable.router.command(ids[3], End())
    first = await node.durable.reader.page(ListFilter(tenant="t", limit=20))
    second = await node.durable.reader.page(ListFilter(tenant="t", limit=20, before_id=first.next_id))
    assert [row.id for row in first.rows + second.rows] == sorted(ids, reverse=True)
    assert [row.id for row in (await node.durable.reader.page(ListFilter(tenant="t", states=("COMPLETED",)))).rows] == [
        ids[3]
    ]
    assert await node.durable.reader.count_states() == {"RUNNING": 24}
    assert (await node.durable.reader.page(ListFilter(tenant="other"))).rows == []


async def test_blob(start: Start) -> None:
    """R33, Q15: a large value is stored once, by its content, in chunks."""
    node = await start()
    content = bytes(range(256)) * 4000
    assert await node.host.writer.put_blob(blob_name(content), content)
    assert not await node.host.writer.put_blob(blob_name(content), content)
    assert await node.durable.reader.blob(blob_name(content)) == content


async def test_refused_command_changes_nothing(start: Start) -> None:
    """A5: what the machine refuses leaves no event."""
    node = await start()
    entity_id = uuid7()
    with pytest.raises(FailureError):
        await node.host.create(entity_id, Add(n=-1))
    assert entity_id not in node.host.entities
    with pytest.raises(FailureError) as caught:
        await node.durable.router.command(entity_id, Add(n=1))
    assert caught.value.failure.code == "NOT_FOUND"
