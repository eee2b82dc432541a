"""Streams that change while nobody looks: replaced, without their end, or refusing everything. Against a real nats-server."""

import asyncio
import resource
import shutil

import pytest
from nats.aio.client import Client
from tierflow_runtime.messaging import EVENTS, Messaging, StreamLimits, StreamMade, stream_configs
from tierflow_runtime.standing import is_stuck
from tierflow_runtime.values import FailureError
from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.waiting import eventually

STEPS = "tierflow.v1.acme.s1.r1.steps"
LIMITS = StreamLimits(events_bytes=64 * 1024**2, progress_bytes=8 * 1024**2)


class Watching:
    """A messaging that looks often, with its loop, and what it told of streams."""

    def __init__(self, url: str, limits: StreamLimits = LIMITS) -> None:
        self.made: list[StreamMade] = []
        self.messaging = Messaging(
            url, "test", limits=limits, on_stream=self._on_stream, ack_timeout=0.5, look_every=0.1, stuck_after=1.0
        )
        self.publisher = self.messaging.publisher

    async def _on_stream(self, made: StreamMade) -> None:
        self.made.append(made)

    async def seq(self, name: str) -> int:
        """Publishes one message until it is taken; where it is."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return (await self.publisher.publish(STEPS, b"x" * 2000, name)).seq
                except Exception:  # noqa: BLE001 - whatever it was, the relay would try again
                    await asyncio.sleep(0.05)

    async def __aenter__(self) -> "Watching":
        self._loop = asyncio.create_task(self.messaging.run())
        await asyncio.wait_for(self.messaging.wait_connected(), 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)


async def test_a_stream_is_replaced_in_silence(own_nats: EmbeddedNats) -> None:
    """R20: somebody deletes the stream and makes it again between two messages: that is noticed although every message finds a stream."""
    operator = Client()
    await operator.connect(own_nats.url)
    async with Watching(own_nats.url) as one:
        await one.seq("m")
        context = operator.jetstream()
        await context.delete_stream(EVENTS)
        await context.add_stream(stream_configs(LIMITS)[0])
        await eventually(lambda: len(one.made) > 1, 30)
        assert [made.lost for made in one.made] == [False, True]
        assert len({made.created for made in one.made}) == 2
    await operator.close()


async def test_a_stream_comes_back_without_its_end(own_nats: EmbeddedNats) -> None:
    """R20, Lesson 41: what JetStream has acknowledged and lost is noticed by its place, and counts as another stream, once."""
    async with Watching(own_nats.url) as one:
        await one.seq("first")
        own_nats.stop()
        shutil.copytree(own_nats.store, own_nats.directory / "before")
        own_nats.start()
        assert await one.seq("second") == 2
        assert await one.seq("third") == 3
        own_nats.stop()
        shutil.rmtree(own_nats.store)
        (own_nats.directory / "before").rename(own_nats.store)
        own_nats.start()
        await eventually(lambda: len(one.made) > 1, 30)
        assert one.made[1].lost
        assert one.made[1].created.startswith(one.made[0].created + " ends")
        assert await one.seq("third") == 2
        looks = one.messaging.publisher.acknowledged
        await eventually(lambda: one.messaging.publisher.last_word.seq == 2, 30)
        assert (len(one.made), looks) == (2, one.messaging.publisher.acknowledged)


async def test_a_stream_that_cannot_be_written_is_made_anew(own_nats: EmbeddedNats) -> None:
    """R20, R21: NATS takes nothing more after one write has failed, also when there is space again: the stream is made anew, and the relay is told to fill it."""
    async with Watching(own_nats.url) as one:
        assert await one.seq("m") == 1
        assert one.messaging.client is not None
        context = one.messaging.client.jetstream(timeout=10)
        assert not await is_stuck(context, EVENTS)
        limits = resource.prlimit(own_nats.process_id, resource.RLIMIT_FSIZE)
        resource.prlimit(own_nats.process_id, resource.RLIMIT_FSIZE, (1024, limits[1]))
        with pytest.raises(FailureError):
            await one.publisher.publish(STEPS, b"x" * 2000, "refused")
        assert await is_stuck(context, EVENTS)
        resource.prlimit(own_nats.process_id, resource.RLIMIT_FSIZE, limits)
        assert await is_stuck(context, EVENTS)
        assert await one.seq("again") == 1
        assert [made.lost for made in one.made] == [False, True]
        assert not await is_stuck(context, EVENTS)


async def test_a_small_disk(own_nats: EmbeddedNats) -> None:
    """R20, L6: where NATS has less storage than the stream may take, the stream is smaller instead of missing."""
    async with Watching(own_nats.url, LIMITS._replace(events_bytes=1024**5)) as one:
        assert await one.seq("m") == 1
        assert one.messaging.client is not None
        config = (await one.messaging.client.jetstream().stream_info(EVENTS)).config
        assert 16 * 1024**2 <= config.max_bytes < 1024**5
