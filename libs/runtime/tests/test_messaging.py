"""Messaging, against a real nats-server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.js.api import StorageType, StreamConfig
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime.messaging import EVENTS, PROGRESS, Messaging, StreamLimits, StreamMade
from tierflow_runtime.publisher import Ack, EventPublisher
from tierflow_runtime.subjects import subjects_of
from tierflow_runtime.values import FailureError
from tierflow_testing.nats import EmbeddedNats

STEPS = "tierflow.v1.acme.s1.r1.steps"
SMALL = StreamLimits(events_bytes=64 * 1024**2, progress_bytes=8 * 1024**2)


class Connected:
    """A messaging with its loop, and what it told of streams."""

    def __init__(self, url: str, **more: object) -> None:
        self.made: list[StreamMade] = []
        self.messaging = Messaging(url, "test", limits=SMALL, on_stream=self._on_stream, **more)
        self.publisher = self.messaging.publisher
        self._changed = asyncio.Condition()

    async def _on_stream(self, made: StreamMade) -> None:
        async with self._changed:
            self.made.append(made)
            self._changed.notify_all()

    async def streams(self, count: int) -> list[StreamMade]:
        """Waits until so many streams were told of."""
        async with self._changed, asyncio.timeout(60):
            await self._changed.wait_for(lambda: len(self.made) >= count)
        return self.made

    async def up(self) -> None:
        """Waits for the connection."""
        async with asyncio.timeout(60):
            await self.messaging.wait_connected()

    async def __aenter__(self) -> "Connected":
        self._loop = asyncio.create_task(self.messaging.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)


@pytest.fixture
async def connected(nats_url: str) -> AsyncIterator[Connected]:
    async with Connected(nats_url) as one:
        await one.up()
        yield one


def batch(count: int = 3, first: int = 1) -> ev.EventBatch:
    """Step events of one run, in order."""
    source = ev.EventSource(kind="run", entity_id="r1", tenant="acme", swarm_id="s1", run_id="r1")
    return ev.EventBatch(
        source=source,
        events=[ev.Event(seq=first + n, step_started=ev.StepStarted(attempt_id="a")) for n in range(count)],
    )


async def refused(future: asyncio.Future[Ack]) -> str:
    """The code of the failure with which a future ends."""
    with pytest.raises(FailureError) as caught:
        await asyncio.wait_for(future, 60)
    return caught.value.failure.code


async def test_streams(connected: Connected) -> None:
    """H11: two streams, one that keeps on disk what is acknowledged and knows repeats, one in memory with the last value of each subject."""
    assert connected.messaging.client is not None
    stream = connected.messaging.client.jetstream()
    events = (await stream.stream_info(EVENTS)).config
    assert (events.storage, events.duplicate_window, events.max_msgs_per_subject) == (StorageType.FILE, 30, -1)
    progress = (await stream.stream_info(PROGRESS)).config
    assert (progress.storage, progress.max_msgs_per_subject, progress.max_age) == (StorageType.MEMORY, 1, 300)
    (made,) = await connected.streams(1)
    assert (made.name, made.made_here, made.lost) == (EVENTS, True, False)


async def test_a_batch_is_one_message(connected: Connected) -> None:
    """H3, H17, H19, R20: events of one entity and class are one message under their subject, with an id by which a repeat is known, and the trace."""
    sent = batch()
    first = await connected.publisher.publish_batch(sent, ev.EVENT_CLASS_STEPS, instance="i1", traceparent="00-t")
    again = await connected.publisher.publish_batch(sent, ev.EVENT_CLASS_STEPS, instance="i1")
    assert (first.stream, first.duplicate) == (EVENTS, False)
    assert (again.seq, again.duplicate) == (first.seq, True)
    assert connected.messaging.client is not None
    message = await connected.messaging.client.jetstream().get_msg(EVENTS, first.seq)
    assert message.subject == STEPS
    assert message.headers == {"Nats-Msg-Id": "r1/steps/1/i1", "traceparent": "00-t"}
    assert ev.EventBatch.FromString(message.data) == sent


async def test_unknown_events_are_not_published(connected: Connected) -> None:
    """A11: an event without a payload, one of another class, an empty batch, progress as if it were reliable: refused, nothing sent."""
    nothing = batch()
    nothing.events.add(seq=9)
    cases = [
        (nothing, ev.EVENT_CLASS_STEPS),
        (batch(), ev.EVENT_CLASS_LIFECYCLE),
        (batch(0), ev.EVENT_CLASS_STEPS),
        (batch(), ev.EVENT_CLASS_UNSPECIFIED),
    ]
    progress = ev.EventBatch(source=batch().source, events=[ev.Event(progress_reported=ev.ProgressReported(percent=5))])
    cases.append((progress, ev.EVENT_CLASS_PROGRESS))
    for wrong, event_class in cases:
        assert await refused(connected.publisher.publish_batch(wrong, event_class, instance="i")) == "INTERNAL"
    with pytest.raises(FailureError):
        connected.publisher.publish_progress(STEPS, batch())
    assert connected.messaging.client is not None
    assert (await connected.messaging.client.jetstream().stream_info(EVENTS)).state.messages == 0


async def test_wildcards(connected: Connected) -> None:
    """H10: who subscribes to one swarm of one tenant gets only that."""
    assert connected.messaging.client is not None
    mine = await connected.messaging.client.subscribe("tierflow.v1.acme.s1.>")
    for tenant, swarm in (("acme", "s1"), ("acme", "s2"), ("other", "s1"), ("acme.s1", "x")):
        await connected.publisher.publish(
            subjects_of(tenant, swarm, "r").of(ev.EVENT_CLASS_AUDIT), b"x", f"{tenant}{swarm}"
        )
    await connected.publisher.publish(subjects_of("acme", "s1").of(ev.EVENT_CLASS_TOOLS), b"y", "last")
    got = [await mine.next_msg(timeout=60) for _ in range(2)]
    assert [one.subject for one in got] == ["tierflow.v1.acme.s1.r.audit", "tierflow.v1.acme.s1.-.tools"]
    assert mine.pending_msgs == 0


async def test_progress_is_fire_and_forget(connected: Connected) -> None:
    """H11: of progress the last value per step is kept; it waits for nothing and is never acknowledged."""
    subject = subjects_of("acme", "s1", "r1").progress("fetch")
    for percent in range(50):
        event = ev.Event(progress_reported=ev.ProgressReported(percent=percent))
        connected.publisher.publish_progress(subject, ev.EventBatch(source=batch().source, events=[event]))
    await connected.publisher.publish(STEPS, b"x", "after")
    assert connected.messaging.client is not None
    stream = connected.messaging.client.jetstream()
    last = await stream.get_last_msg(PROGRESS, subject)
    assert ev.EventBatch.FromString(last.data).events[0].progress_reported.percent == 49
    assert (await stream.stream_info(PROGRESS)).state.messages == 1
    assert (connected.publisher.acknowledged, connected.publisher.dropped) == (1, 0)


async def test_many_in_flight(connected: Connected) -> None:
    """H3, H16: thousands are in flight at once within the bound, all are stored once and in order."""
    publisher = connected.publisher
    futures = []
    for number in range(10_000):
        if not publisher.room:
            await publisher.wait_room()
        futures.append(publisher.publish(STEPS, b"x" * 300, f"m{number}"))
        assert publisher.in_flight <= 4096
    acks = await asyncio.gather(*futures)
    assert [ack.seq for ack in acks] == list(range(1, 10_001))
    assert publisher.in_flight == 0


async def test_beyond_the_bound(nats_url: str) -> None:
    """H4: what does not fit is refused at once and typed, not dropped in silence (Lesson 9)."""
    async with Connected(nats_url, in_flight=2) as small:
        await small.up()
        futures = [small.publisher.publish(STEPS, b"x", f"b{n}") for n in range(3)]
        assert small.publisher.room == 0
        assert await refused(futures[2]) == "QUEUE_FULL"
        await asyncio.gather(*futures[:2])
        await small.publisher.wait_room()
        assert small.publisher.room == 2


async def test_too_large(connected: Connected) -> None:
    """Lesson 27, Lesson 34: an event larger than the server takes fails typed and for good, and the connection lives on."""
    assert connected.messaging.client is not None
    largest = connected.messaging.client.max_payload
    future = connected.publisher.publish(STEPS, b"x" * largest, "large")
    with pytest.raises(FailureError) as caught:
        await future
    assert (caught.value.failure.code, caught.value.failure.retryable) == ("MESSAGE_TOO_LARGE", False)
    await connected.publisher.publish(STEPS, b"x" * (largest - 200), "fits")


async def test_larger_than_the_stream_allows(connected: Connected) -> None:
    """Lesson 27: the same where it is the stream that refuses."""
    assert connected.messaging.client is not None
    stream = connected.messaging.client.jetstream()
    config: StreamConfig = (await stream.stream_info(EVENTS)).config
    config.max_msg_size = 100
    await stream.update_stream(config)
    assert await refused(connected.publisher.publish(STEPS, b"x" * 200, "m")) == "MESSAGE_TOO_LARGE"


async def test_start_without_nats(own_nats: EmbeddedNats) -> None:
    """B11, R21: without NATS a process starts, publishing fails at once and typed, progress is dropped and counted; when it comes, all works."""
    own_nats.stop()
    async with Connected(own_nats.url) as late:
        assert await refused(late.publisher.publish(STEPS, b"x", "m")) == "EVENTS_UNAVAILABLE"
        late.publisher.hint("tierflow.v1.hint")
        assert late.publisher.dropped == 1
        assert not late.messaging.connected
        own_nats.start()
        await late.up()
        assert late.messaging.connected
        assert (await late.publisher.publish(STEPS, b"x", "m")).seq == 1


async def test_a_lost_connection(own_nats: EmbeddedNats) -> None:
    """H3, H4, H11: when the server dies, everything in flight fails soon and typed, so that it is published again; what was acknowledged survives."""
    async with Connected(own_nats.url) as one:
        await one.up()
        await one.publisher.publish(STEPS, b"x", "kept")
        futures = [one.publisher.publish(STEPS, b"x" * 1000, f"m{n}") for n in range(2000)]
        own_nats.kill()
        ended = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 60)
        codes = {error.failure.code for error in ended if isinstance(error, FailureError)}
        assert codes <= {"EVENTS_UNAVAILABLE"}
        assert all(isinstance(end, Ack | FailureError) for end in ended)
        assert one.publisher.in_flight == 0
        own_nats.start()
        await one.up()
        again = await one.publisher.publish(STEPS, b"x", "kept")
        assert again.duplicate
        await asyncio.gather(*(one.publisher.publish(STEPS, b"x" * 1000, f"m{n}") for n in range(2000)))
        assert one.messaging.client is not None
        state = (await one.messaging.client.jetstream().stream_info(EVENTS)).state
        assert state.messages == 2001
        assert [made.lost for made in one.made] == [False]


async def test_a_server_that_lost_its_data(own_nats: EmbeddedNats) -> None:
    """R20, Lesson 41: a stream that is gone is made anew, and the relay is told that it must refill."""
    async with Connected(own_nats.url) as one:
        await one.up()
        await one.publisher.publish(STEPS, b"x", "m")
        own_nats.wipe()
        made = await one.streams(2)
        assert (made[1].made_here, made[1].lost) == (True, True)
        ack = await one.publisher.publish(STEPS, b"x", "m")
        assert (ack.seq, ack.duplicate) == (1, False)


async def test_a_stream_that_was_deleted(connected: Connected) -> None:
    """R20: a stream that goes while the connection stays is noticed by the first message that finds none."""
    assert connected.messaging.client is not None
    await connected.messaging.client.jetstream().delete_stream(EVENTS)
    assert await refused(connected.publisher.publish(STEPS, b"x", "m")) == "EVENTS_UNAVAILABLE"
    made = await connected.streams(2)
    assert (made[1].made_here, made[1].lost) == (True, True)
    assert (await connected.publisher.publish(STEPS, b"x", "m")).seq == 1


async def test_two_processes_make_one_stream(nats_url: str) -> None:
    """R19: two processes that start together end up with the same streams; an existing stream keeps the limits that an operator gave it."""
    async with Connected(nats_url) as one, Connected(nats_url) as other:
        await one.streams(1)
        await other.streams(1)
        assert one.made[0].created == other.made[0].created
        assert one.made[0].made_here or other.made[0].made_here
        assert one.messaging.client is not None
        stream = one.messaging.client.jetstream()
        config: StreamConfig = (await stream.stream_info(EVENTS)).config
        config.max_bytes = 77 * 1024**2
        await stream.update_stream(config)
        async with Connected(nats_url) as third:
            assert not (await third.streams(1))[0].made_here
        assert (await stream.stream_info(EVENTS)).config.max_bytes == 77 * 1024**2


async def test_no_acknowledgement(own_nats: EmbeddedNats) -> None:
    """H3, Lesson 20: a message that nobody acknowledges in time has failed; the wait is bounded."""
    silent = Client()
    await silent.connect(own_nats.url)
    taken = await silent.subscribe("nowhere.in.particular")
    publisher = EventPublisher(ack_timeout=0.2)
    sending = asyncio.create_task(publisher.run())
    await publisher.connected(silent)
    assert await refused(publisher.publish("nowhere.in.particular", b"x", "m")) == "EVENTS_UNAVAILABLE"
    assert (await taken.next_msg(timeout=60)).headers == {"Nats-Msg-Id": "m"}
    assert publisher.in_flight == 0
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await silent.close()


async def test_nothing_is_left_behind(nats_url: str) -> None:
    """B15: a messaging that is cancelled leaves no task, and everything that was published has an end."""
    before = asyncio.all_tasks()
    async with Connected(nats_url) as one:
        await one.up()
        futures = [one.publisher.publish(STEPS, b"x", f"m{n}") for n in range(10)]
        assert await one.publisher.drained(30)
        late = one.publisher.publish(STEPS, b"x", "late")
    assert all(future.done() for future in [*futures, late])
    assert asyncio.all_tasks() == before
