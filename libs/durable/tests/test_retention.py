"""Partitions of the journal: made ahead, dropped when nothing in them is needed any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tierflow_durable import retention
from tierflow_durable.batch import blob_name
from tierflow_durable.durable import Durable
from tierflow_durable.ids import floor_of, uuid7
from tierflow_durable.reading import ListFilter
from tierflow_durable.retention import DAY, Retention
from tierflow_runtime.values import FailureError
from tierflow_testing.counter import Add, End, Node

Start = Callable[..., Awaitable[Node]]


class _Moved:
    """The database's clock, moved."""

    def __init__(self, node: Node, days: float) -> None:
        self._node, self._by = node, int(days * DAY)

    def now(self) -> int:
        return self._node.durable.clock.now() + self._by


class _Away:
    """JetStream, out of reach."""

    connected = False
    room = 0


def _at(node: Node, days: float) -> Retention:
    """What retention does so many days from now; it keeps what ended within 30 days."""
    return Retention(node.durable.database, _Moved(node, days), keep_days=30)


async def _partitions(connection: Any) -> set[str]:
    names = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'toy.journal'::regclass"
    )
    return {row["name"].removeprefix("toy.") for row in names} - {"journal_default"}


async def _old_entities(node: Node, days: float, count: int = 3) -> list[str]:
    """Ended and acknowledged entities with ids of a day that is `days` from now, in a partition of that day."""
    await _at(node, days).prepare()
    ids = [uuid7(node.durable.clock.now() + int(days * DAY)) for _ in range(count)]
    for entity_id in ids:
        await node.host.create(entity_id, Add(n=1))
        await node.durable.router.command(entity_id, End())
        node.host.writer.acknowledge(entity_id, 1)
    await node.host.writer.flushed()
    await node.durable.relay.save()
    return ids


def _name(node: Node, days: float) -> str:
    return f"journal_{(node.durable.clock.now() + int(days * DAY)) // DAY}"


@pytest.fixture(autouse=True)
def _by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes' own rounds would drop the old partitions of these tests while they are still empty."""

    async def never(_: Durable) -> None: ...

    monkeypatch.setattr(Durable, "_tend", never)


@pytest.fixture
async def connection(toy: str) -> Any:
    made = await asyncpg.connect(toy)
    yield made
    await made.close()


async def test_partitions_are_made_ahead(start_node: Start, connection: Any) -> None:
    """R34: before the first row is written there are partitions for today and the next days, also when several start at once; rows go there."""
    nodes = await asyncio.gather(*(start_node(name, lease=30.0) for name in "abc"))
    node = nodes[0]
    assert {_name(node, days) for days in range(retention.AHEAD + 1)} <= await _partitions(connection)
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    place = await connection.fetchval(
        "SELECT tableoid::regclass::text FROM toy.journal WHERE entity_id = $1", entity_id
    )
    assert place.removeprefix("toy.") in {_name(node, 0), _name(node, -0.001)}
    definitions = await connection.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'toy' AND tablename = $1", place.removeprefix("toy.")
    )
    assert len(definitions) == 2
    await _at(node, 10).prepare()
    assert _name(node, 10) in await _partitions(connection)


async def test_a_day_with_rows_in_the_default_partition(start_node: Start, connection: Any) -> None:
    """R34: where rows of a day are in the default partition already, that day gets no partition, and all goes on."""
    node = await start_node()
    entity_id = uuid7(node.durable.clock.now() + 5 * DAY)
    await node.host.create(entity_id, Add(n=1))
    await _at(node, 4).prepare()
    made = await _partitions(connection)
    assert _name(node, 5) not in made
    assert {_name(node, 4), _name(node, 6)} <= made
    assert await node.durable.router.command(entity_id, Add(n=1)) == 2


async def test_what_is_over_is_dropped(start_node: Start, connection: Any) -> None:
    """R34, I13: a partition goes with the rows of its entities when all ended before the horizon; those of other days stay."""
    node = await start_node()
    gone, kept = await _old_entities(node, -40), await _old_entities(node, -3)
    assert await _at(node, 0).tend()  # they ended just now: the horizon is 30 days ago
    assert {_name(node, -40), _name(node, -3)} <= await _partitions(connection)
    assert await _at(node, 26).tend()  # ... and now before it? not yet
    assert _name(node, -40) in await _partitions(connection)
    kept.append(uuid7())
    await node.host.create(kept[-1], Add(n=1))
    assert await _at(node, 30.5).tend()
    left = await _partitions(connection)
    assert _name(node, -40) not in left
    assert _name(node, 0) in left
    with pytest.raises(FailureError) as caught:
        await node.durable.reader.view(gone[0], lambda state: state)
    assert caught.value.failure.code == "NOT_FOUND"
    listed = {row.id for row in (await node.durable.reader.page(ListFilter(tenant="t"))).rows}
    assert not listed & set(gone)
    assert kept[-1] in listed
    assert await node.durable.router.command(kept[-1], Add(n=1)) == 2


@pytest.mark.parametrize("why", ["not ended", "owned", "unacknowledged", "not relayed"])
async def test_what_is_needed_is_kept(start_node: Start, connection: Any, why: str) -> None:
    """R34: a partition stays whole while one of its entities has not ended, is owned, or is not acknowledged by the tier above or by JetStream."""
    node = await start_node(publisher=_Away() if why == "not relayed" else None)
    ids = await _old_entities(node, -40)
    if why == "not ended":
        ids.append(uuid7(node.durable.clock.now() - 40 * DAY))
        await node.host.create(ids[-1], Add(n=1))
        await node.durable.relay.save()
    elif why == "owned":
        await connection.execute("UPDATE toy.entity SET owner = $2 WHERE id = $1", ids[0], node.durable.instance_id)
    elif why == "unacknowledged":
        await connection.execute("INSERT INTO toy.unacknowledged (id, generation, ended_at) VALUES ($1, 1, 1)", ids[0])
    before = await connection.fetchval("SELECT count(*) FROM toy.entity")
    assert await _at(node, 60).tend()
    assert _name(node, -40) in await _partitions(connection)
    assert await connection.fetchval("SELECT count(*) FROM toy.entity") == before
    kept = _at(node, 60)
    assert await kept.tend()
    assert kept.overdue >= 1
    assert (kept.unpublished > 0) == (why == "not relayed")  # an operator learns that it is the event stream

    if why == "not relayed":
        await connection.execute("UPDATE toy.watermark SET position = (SELECT max(position) FROM toy.journal)")
    else:
        await connection.execute("UPDATE toy.entity SET ended_at = created_at, owner = NULL")
        await connection.execute("DELETE FROM toy.unacknowledged")
        await node.durable.relay.save()
    assert await _at(node, 60).tend()
    assert _name(node, -40) not in await _partitions(connection)


async def test_without_an_event_stream_nothing_is_owed_to_it(start_node: Start, connection: Any) -> None:
    """R34, R20: where NATS is given up for good, what departed instances could not publish does not keep journals for ever."""
    node = await start_node("a", publisher=_Away(), lease=2.0)
    await _old_entities(node, -40)
    await node.die()
    heir = await start_node("b", lease=2.0)
    async with asyncio.timeout(60):
        while await connection.fetchval(
            "SELECT count(*) FROM toy.watermark WHERE id = $1", node.durable.instance_id
        ):  # the lease runs out, the peer fences it
            await asyncio.sleep(0.05)
    assert await _at(heir, 60).tend()
    assert _name(heir, -40) not in await _partitions(connection)


async def test_a_living_instance_holds_nothing_back(start_node: Start, connection: Any) -> None:
    """R34: what an instance wrote and relayed is dropped while it lives on, however much its positions are behind the clock."""
    node = await start_node()
    await _old_entities(node, 2)
    assert await _at(node, 40).tend()
    assert _name(node, 2) not in await _partitions(connection)


async def test_dropping_disturbs_nobody(start_node: Start, connection: Any) -> None:
    """R34, R1: a reader that is at it puts the drop off; commits wait for a moment at most, and the next round drops."""
    node = await start_node()
    await _old_entities(node, -40)
    await _at(node, 60).prepare()
    reading = connection.transaction()
    await reading.start()
    await connection.fetch("SELECT count(*) FROM toy.journal")
    dropping = asyncio.create_task(_at(node, 60).tend())
    made = await asyncio.wait_for(asyncio.gather(*(node.host.create(uuid7(), Add(n=1)) for _ in range(50))), timeout=60)
    assert all(each.created for each in made)
    assert await dropping
    await reading.rollback()
    assert _name(node, -40) in await _partitions(connection)
    assert await _at(node, 60).tend()
    assert _name(node, -40) not in await _partitions(connection)
    assert not node.fenced.done()


async def test_an_entity_that_is_made_at_the_last_moment(start_node: Start, connection: Any) -> None:
    """R34: an entity that appears between the look and the drop keeps its partition."""
    node = await start_node()
    await _at(node, -40).prepare()
    old = _at(node, 0)
    forgotten = old._forgotten
    entity_id = uuid7(node.durable.clock.now() - 40 * DAY)

    async def late(*arguments: Any) -> bool:
        over = await forgotten(*arguments)
        if entity_id not in node.host.entities:
            await node.host.create(entity_id, Add(n=1))
        return over

    old._forgotten = late  # type: ignore[method-assign]
    assert await old.tend()
    assert _name(node, -40) in await _partitions(connection)
    assert await connection.fetchval("SELECT count(*) FROM toy.journal WHERE entity_id = $1", entity_id) == 1


async def test_strays_and_request_ids_go_too(
    start_node: Start, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R34, R8: rows from before the first partition, and all old request ids, in small statements until none is left; younger ones stay."""
    monkeypatch.setattr(retention, "AT_ONCE", 10)
    node = await start_node()
    now = node.durable.clock.now()
    stray = uuid7(now - 90 * DAY)
    await node.host.create(stray, Add(n=1))
    await node.durable.router.command(stray, End())
    node.host.writer.acknowledge(stray, 1)
    await node.host.writer.flushed()
    for number in range(35):
        created = now - (31 if number else 29) * DAY
        await connection.execute("INSERT INTO toy.request VALUES ('t', $1, '', $2, $3)", str(number), stray, created)
    await node.durable.relay.save()
    assert await _at(node, 0).tend()
    assert [row["request_id"] for row in await connection.fetch("SELECT request_id FROM toy.request")] == ["0"]
    assert await connection.fetchval("SELECT count(*) FROM toy.journal") == 2
    assert await _at(node, 31).tend()
    assert await connection.fetchval("SELECT count(*) FROM toy.journal WHERE entity_id < $1", floor_of(now - DAY)) == 0
    assert await connection.fetchval("SELECT count(*) FROM toy.entity") == 0


async def test_large_values_that_nobody_uses_are_deleted(start_node: Start, connection: Any) -> None:
    """R33, R34: a large value goes once nobody has taken it up for longer than entities are kept, and none from before refers to it; else it stays, whole."""
    node = await start_node()
    contents = {name: name.encode() * 400_000 for name in ("unused", "used", "again", "young")}
    names = {name: blob_name(content) for name, content in contents.items()}
    for name, content in contents.items():
        assert await node.host.writer.put_blob(names[name], content)
    sleeper = uuid7(node.durable.clock.now() - 40 * DAY)
    await node.host.create(sleeper, Add(n=1, text=names["used"]))
    await connection.execute(
        "UPDATE toy.blob SET stored_at = stored_at - $1 WHERE sha256 <> $2", 40 * DAY, bytes.fromhex(names["young"])
    )
    assert not await node.host.writer.put_blob(
        names["again"], contents["again"]
    )  # it was there: and is from today again

    async def left() -> set[str]:
        rows = await connection.fetch(
            "SELECT encode(sha256, 'hex') AS name, count(*) AS n, max(chunks) AS of FROM toy.blob GROUP BY 1"
        )
        assert all(row["n"] == row["of"] for row in rows)
        return {name for name in names if names[name] in {row["name"] for row in rows}}

    assert await _at(node, 0).tend()
    assert await left() == {"used", "again", "young"}
    await node.durable.router.command(sleeper, End())
    node.host.writer.acknowledge(sleeper, 1)
    await node.host.writer.flushed()
    await node.durable.relay.save()
    assert await _at(node, 31).tend()
    assert await left() == {"again", "young"}
    assert await _at(node, 33).tend()
    assert await left() == set()
