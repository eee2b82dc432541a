"""What the relay keeps in memory while JetStream is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tierflow_contracts.events.v1 import event_pb2
from tierflow_durable import relay
from tierflow_durable.departed import Message
from tierflow_durable.ids import uuid7
from tierflow_durable.migrations import migrate
from tierflow_runtime.publisher import Heard
from tierflow_testing.counter import Add, Node

BOUND = 20_000
TEXT = "x" * 1000


class Switched:
    """JetStream, away until it is switched on; keeps what it was given."""

    room = 1000

    def __init__(self) -> None:
        self.connected = False
        self.taken: set[tuple[str, int]] = set()

    def send(self, message: Message, heard: Heard) -> None:
        batch = event_pb2.EventBatch.FromString(message.payload)
        self.taken |= {(batch.source.entity_id, event.seq) for event in batch.events}
        heard(b"")


@pytest.fixture
async def away(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Node, Switched]]:
    monkeypatch.setattr(relay, "MOST_BYTES", BOUND)
    await migrate(database, "toy")
    publisher = Switched()
    node = Node(database, "a", publisher=publisher)
    await node.durable.start()
    yield node, publisher
    await node.durable.close()


async def test_memory_is_bounded_by_bytes(away: tuple[Node, Switched]) -> None:
    """R19, H4, J10: while the event stream is away, large events fill no more memory than they may; afterwards none is missing."""
    node, publisher = away
    ids = [uuid7() for _ in range(10)]
    for entity_id in ids:
        await node.host.create(entity_id, Add(n=1, text=TEXT))
    for _ in range(9):
        for entity_id in ids:
            await node.durable.router.command(entity_id, Add(n=1, text=TEXT))
            assert node.durable.relay.held_bytes < BOUND + 2 * len(TEXT)
    assert node.durable.relay.held_bytes >= BOUND
    publisher.connected = True
    async with asyncio.timeout(60):
        while node.durable.relay.lag:
            await asyncio.sleep(0.01)
    assert publisher.taken == {(entity_id, seq) for entity_id in ids for seq in range(1, 11)}
    assert node.durable.relay.held_bytes == 0
