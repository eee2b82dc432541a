"""Whether JetStream has every event of the journals, and nothing else (H4, R19, R20)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, DeliverPolicy
from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime.messaging import EVENTS
from tierflow_runtime.subjects import RELIABLE, class_of, subjects_of

from tierflow_testing.auditing.report import Report

Digests = Mapping[str, Mapping[int, int]]
"""By entity and sequence number: a hash of the event."""

_PAGE = 500


def digest(event: event_pb2.Event) -> int:
    """A hash of an event's content, the same wherever the event is read in this process."""
    return hash(event.SerializeToString(deterministic=True))


class Published:
    """What a stream holds."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[int, int]] = defaultdict(dict)
        self.repeated = 0
        self.messages = 0
        self.wrong: list[tuple[str, str]] = []
        self.expired = False
        """The stream has forgotten its oldest messages: what is missing may have been there."""

    def take(self, subject: str, data: bytes) -> None:
        """Takes one message."""
        self.messages += 1
        batch = event_pb2.EventBatch.FromString(data)
        source = batch.source
        seen = self.seen[source.entity_id]
        prefix = subjects_of(source.tenant, source.swarm_id, source.run_id).prefix
        for event in batch.events:
            expected = f"{prefix}.{RELIABLE[class_of(event)]}"
            if subject != expected:
                self.wrong.append(("an event on another's subject (H10)", f"{source.entity_id} {event.seq}: {subject}"))
            known, found = seen.get(event.seq), digest(event)
            if known is None:
                seen[event.seq] = found
            elif known == found:
                self.repeated += 1
            else:
                self.wrong.append(("two events with one number (R20)", f"{source.entity_id} {event.seq}"))


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url, max_reconnect_attempts=3, connect_timeout=5)
    try:
        yield client
    finally:
        await client.close()


async def read_stream(nats_url: str, timeout: float = 60.0) -> Published:
    """Everything that the stream of events holds now. Raises what nats-py raises, TimeoutError."""
    published = Published()
    async with asyncio.timeout(timeout), _connected(nats_url) as client:
        stream = client.jetstream(timeout=10)
        state = (await stream.stream_info(EVENTS)).state
        published.expired = state.first_seq > 1
        if not state.messages:
            return published
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, mem_storage=True)
        consumer = await stream.pull_subscribe("", stream=EVENTS, config=config)
        last = 0
        while last < state.last_seq:
            for message in await consumer.fetch(_PAGE, timeout=10):
                last = message.metadata.sequence.stream
                published.take(message.subject, message.data)
                await message.ack()
        await consumer.unsubscribe()
    return published


def missing(journal: Digests, published: Published) -> list[str]:
    """Events of the journal that the stream does not have, a line for each entity."""
    lines = []
    for entity_id, events in journal.items():
        absent = sorted(events.keys() - published.seen.get(entity_id, {}).keys())
        if absent:
            lines.append(f"{entity_id}: {len(absent)} of {len(events)}, {absent[:9]}")
    return lines


async def check_stream(nats_url: str, journal: Digests, report: Report, timeout: float) -> None:
    """Compares the stream with the journal. What is missing is waited for, at most `timeout` seconds: the relay may still be at it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    while True:
        try:
            published = await read_stream(nats_url, max(10.0, until - loop.time()))
            absent = [] if published.expired else missing(journal, published)
        except (NatsError, OSError, TimeoutError) as error:
            published, absent = Published(), [f"the stream cannot be read: {type(error).__name__}: {error}"]
        if not absent or loop.time() > until:
            break
        await asyncio.sleep(1.0)
    for line in absent:
        report.problem("events missing on JetStream (H4)", line)
    _compare(journal, published, report)


def _compare(journal: Digests, published: Published, report: Report) -> None:
    for kind, text in published.wrong:
        report.problem(kind, text)
    for entity_id, events in published.seen.items():
        stored: Any = journal.get(entity_id, {})
        for seq, found in events.items():
            if stored.get(seq) != found:
                report.problem("published, and not in the journal (R21)", f"{entity_id} {seq}")
    report.counts["messages"] = published.messages
    report.counts["events_published"] = sum(len(events) for events in published.seen.values())
    report.counts["events_repeated"] = published.repeated
