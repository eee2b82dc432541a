"""From the commit to JetStream: the way of events, and what becomes of those that go it twice."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tierflow_durable.ids import uuid7
from tierflow_durable.migrations import migrate
from tierflow_durable.outlet import Outlet
from tierflow_durable.packing import Message, messages_of_row
from tierflow_runtime.messaging import Messaging
from tierflow_runtime.publisher import Heard
from tierflow_testing.auditing.stream import Published, read_stream
from tierflow_testing.counter import Add, End, Node
from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.waiting import eventually

Start = Callable[..., Awaitable[Node]]


@asynccontextmanager
async def _messaging(url: str, name: str) -> AsyncIterator[Messaging]:
    messaging = Messaging(url, name)
    loop = asyncio.create_task(messaging.run())
    try:
        yield messaging
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


@pytest.fixture
async def start(database: str) -> AsyncIterator[Start]:
    await migrate(database, "toy")
    nodes: list[Node] = []

    async def make(name: str, **options: Any) -> Node:
        node = Node(database, name, **options)
        await node.durable.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        await node.durable.close()


class _Watched(Outlet):
    """Notes through which modules of ours each message has come."""

    def __init__(self, messaging: Messaging) -> None:
        super().__init__(messaging)
        self.ways: list[list[str]] = []

    def send(self, message: Message, heard: Heard) -> None:
        way, frame = [], sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.startswith("tierflow_") and (not way or way[-1] != module):
                way.append(module)
            frame = frame.f_back  # type: ignore[assignment]
        self.ways.append(way)
        super().send(message, heard)


async def test_few_hops(start: Start, nats_url: str) -> None:
    """H17, B16, R21: between the commit and JetStream there is the relay and nothing else; what is published is the journal's row, in one message."""
    async with _messaging(nats_url, "a") as messaging:
        await messaging.wait_connected()
        outlet = _Watched(messaging)
        node = await start("a", publisher=outlet, lease=30.0)
        taken: list[str] = []
        enqueue = node.durable.relay.enqueue

        def noting(*row: Any, last: bool) -> None:
            frame, way = sys._getframe(1), []
            while frame is not None:
                module = frame.f_globals.get("__name__", "")
                if module.startswith("tierflow_") and (not way or way[-1] != module):
                    way.append(module)
                frame = frame.f_back  # type: ignore[assignment]
            taken.append(" ".join(way))
            enqueue(*row, last=last)

        node.durable.relay.enqueue = noting  # type: ignore[method-assign]
        entity_id = uuid7()
        await node.host.create(entity_id, Add(n=1))
        await node.durable.router.command(entity_id, End())
        await eventually(lambda: node.durable.relay.lag == 0)
        assert {way[0] for way in outlet.ways} == {"tierflow_durable.relay"}
        assert all(len(way) <= 3 for way in outlet.ways)
        assert set(taken) == {"tierflow_durable.host tierflow_durable.writer tierflow_durable.durable"}
    published = await read_stream(nats_url)
    assert list(published.seen) == [entity_id]
    assert sorted(published.seen[entity_id]) == [1, 2]
    assert published.messages == len(outlet.ways) <= 2


async def test_the_same_message_twice(nats_url: str) -> None:
    """H19, R20: a message that is published again, because its acknowledgement was lost, is on the stream once; JetStream says that it had it."""
    async with _messaging(nats_url, "a") as messaging:
        await messaging.wait_connected()
        arguments = ("tierflow.v1.t.-.r.audit", b"", "r/audit/1+0/a")
        first = await messaging.publisher.publish(*arguments)
        again = await messaging.publisher.publish(*arguments)
        other = await messaging.publisher.publish("tierflow.v1.t.-.r.audit", b"", "r/audit/2+0/a")
    assert (first.duplicate, again.duplicate, other.duplicate) == (False, True, False)
    assert other.seq == first.seq + 1
    assert (await read_stream(nats_url)).messages == 2


async def test_events_that_come_again(start: Start, nats_url: str) -> None:
    """H19, H18, R19, R20: what a crash makes a peer publish once more, packed otherwise, is each event once to a reader that goes by entity and number."""
    async with _messaging(nats_url, "a") as messaging, _messaging(nats_url, "b") as other:
        await asyncio.gather(messaging.wait_connected(), other.wait_connected())
        node = await start("a", publisher=Outlet(messaging), lease=60.0)
        ids = [uuid7() for _ in range(20)]
        for entity_id in ids:
            await node.host.create(entity_id, Add(n=1))
        for _ in range(5):
            await asyncio.gather(*(node.durable.router.command(entity_id, Add(n=1)) for entity_id in ids))
        await asyncio.gather(*(node.durable.router.command(entity_id, End()) for entity_id in ids))
        await eventually(lambda: node.durable.relay.lag == 0)
        await node.die()
        await node.durable.database.fetch("rewind_watermark", id=node.durable.instance_id)
        heir = await start("a", publisher=Outlet(other), lease=60.0)

        async def relayed() -> bool:
            return not await heir.durable.database.fetch("orphaned_watermarks", me=heir.durable.instance_id)

        await eventually(relayed)
    published = await read_stream(nats_url)
    assert set(published.seen) == set(ids)
    assert all(sorted(events) == list(range(1, 8)) for events in published.seen.values())
    assert published.wrong == []


async def test_more_is_no_repetition_of_less(start: Start, own_nats: EmbeddedNats) -> None:
    """R20, H4, Lesson 9: rows that were gathered while JetStream was away reach it though the first of them was published alone, by who fills a new stream."""
    url = own_nats.url
    async with _messaging(url, "a") as messaging:
        await messaging.wait_connected()
        node = await start("a", publisher=Outlet(messaging), lease=60.0)
        own_nats.kill()
        await eventually(lambda: not messaging.connected)
        entity_id = uuid7()
        await node.host.create(entity_id, Add(n=1))
        for _ in range(4):
            await node.durable.router.command(entity_id, Add(n=1))
        own_nats.start()
        rows = await node.durable.database.fetch("journal_after", instance=node.durable.instance_id, after=0, limit=1)
        (alone,) = messages_of_row("run", rows[0], node.durable.instance_id)
        async with _messaging(url, "b") as filler:
            await filler.wait_connected()
            await filler.publisher.publish(alone.subject, alone.payload, alone.msg_id, alone.headers)
        await eventually(lambda: node.durable.relay.lag == 0)
    published: Published = await read_stream(url)
    assert sorted(published.seen[entity_id]) == [1, 2, 3, 4, 5]
