"""Watching a swarm: READY first, its own events and its run's, resumable at every message, scoped to the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import nats
import pytest
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.events.v1 import event_pb2
from tierflow_coordinator.places import Place
from tierflow_coordinator.watch import _Watch
from tierflow_runtime.subjects import subjects_of
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]


class Watcher:
    """A client that watches, from a place on."""

    def __init__(self, tier1: Any, swarm_id: str, token: str = "", *, progress: bool = False, **metadata: str) -> None:
        pairs = tuple((f"tierflow-{key}", value) for key, value in metadata.items())
        request = api.WatchSwarmRequest(swarm_id=swarm_id, resume_token=token, include_progress=progress)
        self.call = tier1.stub.WatchSwarm(request, metadata=pairs)
        self.messages: list[api.WatchSwarmResponse] = []
        self.times: list[float] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.call:
            self.messages.append(message)
            self.times.append(time.monotonic())

    @property
    def events(self) -> list[tuple[str, int, str]]:
        """Entity, sequence number and kind of each event, in the order in which they came."""
        return [
            (message.batch.source.kind, event.seq, event.WhichOneof("payload") or "")
            for message in self.messages
            for event in message.batch.events
        ]


SWARM = [
    ("swarm", 1, "swarm_created"),
    ("swarm", 2, "run_requested"),
    ("swarm", 3, "run_taken"),
    ("swarm", 4, "swarm_state_changed"),
    ("swarm", 5, "run_finished"),
    ("swarm", 6, "swarm_ended"),
]
RUN = [("run", 1, "run_created"), ("run", 2, "step_started"), ("run", 3, "run_ended")]


async def watched_run(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> Any:
    """A swarm whose run has begun a step."""
    tier2.mode = "accept"
    answer = await tier1.submit(request_of())
    await eventually(lambda: answer.run_id in tier2.runs)
    await tier2.add_event(answer.run_id, event_pb2.Event(step_id="a", step_started=event_pb2.StepStarted()))
    return answer


async def test_watch_to_the_end(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """H8, H22, H18: READY comes first, then every event of the swarm and of its run, gapless, soon; then the stream ends."""
    answer = await watched_run(tier1, tier2, request_of)
    watcher = Watcher(tier1, answer.swarm_id)
    await eventually(lambda: ("run", 2, "step_started") in watcher.events)
    assert watcher.messages[0].HasField("ready")
    assert watcher.messages[0].ready.after_seq == 0
    changed = time.monotonic()
    await tier2.finish(answer.run_id)
    await asyncio.wait_for(watcher.task, 60)
    assert [event for event in watcher.events if event[0] == "swarm"] == SWARM
    assert [event for event in watcher.events if event[0] == "run"] == RUN
    assert watcher.times[-1] - changed < 5
    assert all(message.batch.source.swarm_id == answer.swarm_id for message in watcher.messages if message.batch.events)


async def test_a_run_that_ends_at_once(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """H8, R22: what the run says of itself comes before what its swarm says of its end, however late it is read."""
    answer = await watched_run(tier1, tier2, request_of)
    await tier2.finish(answer.run_id)
    await eventually(lambda: tier1_ended(tier1, answer.swarm_id))
    for _ in range(5):
        watcher = Watcher(tier1, answer.swarm_id)
        await asyncio.wait_for(watcher.task, 60)
        assert watcher.events.index(RUN[-1]) < watcher.events.index(("swarm", 5, "run_finished"))


async def tier1_ended(tier1: Any, swarm_id: str) -> bool:
    """Whether the swarm is COMPLETED."""
    answer = await tier1.stub.GetSwarm(api.GetSwarmRequest(swarm_id=swarm_id))
    return bool(answer.swarm.state == state_pb2.SWARM_STATE_COMPLETED)


async def test_watch_from_every_token(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """H26, S3: from every token the rest follows, without a gap and without a repetition."""
    answer = await watched_run(tier1, tier2, request_of)
    await tier2.finish(answer.run_id)
    whole = Watcher(tier1, answer.swarm_id)
    await asyncio.wait_for(whole.task, 60)
    assert len(whole.messages) > 3
    for index, message in enumerate(whole.messages):
        rest = Watcher(tier1, answer.swarm_id, message.resume_token)
        await asyncio.wait_for(rest.task, 60)
        seen = {
            (part.batch.source.kind, event.seq) for part in whole.messages[: index + 1] for event in part.batch.events
        }
        expected = {event[:2] for event in SWARM + RUN} - seen
        assert sorted(event[:2] for event in rest.events) == sorted(expected)


async def test_watch_that_is_cut(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """H26, S3: a watch that is cut twenty times while things happen, over two replicas, sees each event once."""
    replicas = [await make_coordinator(name="a"), await make_coordinator(name="b")]
    answer = await watched_run(replicas[0], tier2, request_of)
    token, seen = "", []
    for number in range(20):
        watcher = Watcher(replicas[number % 2], answer.swarm_id, token)
        step = event_pb2.Event(step_id=f"s{number}", step_started=event_pb2.StepStarted())
        await tier2.add_event(answer.run_id, step)
        await eventually(lambda watcher=watcher, n=number: len(watcher.messages) >= (2 if n else 3))
        watcher.call.cancel()
        await asyncio.gather(watcher.task, return_exceptions=True)
        seen += watcher.events
        token = watcher.messages[-1].resume_token
    await tier2.finish(answer.run_id)
    last = Watcher(replicas[0], answer.swarm_id, token)
    await asyncio.wait_for(last.task, 60)
    seen += last.events
    assert sorted(event[:2] for event in seen) == sorted(
        [("swarm", n) for n in range(1, 7)] + [("run", n) for n in range(1, 24)]
    )


async def test_watch_is_scoped(tier1: Any, request_of: Requests) -> None:
    """H23, L4: another user's swarm may not be watched; another tenant's does not exist."""
    answer = await tier1.stub.SubmitSwarm(request_of(), metadata=(("tierflow-user", "ann"),))
    expected = [
        ({"user": "eve"}, grpc.StatusCode.PERMISSION_DENIED),
        ({"tenant": "acme"}, grpc.StatusCode.NOT_FOUND),
        ({"tenant": "acme", "user": "ann"}, grpc.StatusCode.NOT_FOUND),
    ]
    for metadata, status in expected:
        watcher = Watcher(tier1, answer.swarm_id, **metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watcher.task
        assert caught.value.code() is status
        assert not watcher.messages
    own = Watcher(tier1, answer.swarm_id, user="ann")
    await asyncio.wait_for(own.task, 60)


@pytest.mark.parametrize("token", ["nonsense", "e30", "eyJzIjotMSwiciI6e319", "eyJzIjoxLCJyIjpbXX0", "====", "\u00fc"])
async def test_bad_token(tier1: Any, request_of: Requests, token: str) -> None:
    """H26: what is no token is refused."""
    answer = await tier1.submit(request_of())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await Watcher(tier1, answer.swarm_id, token).task
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_tokens() -> None:
    """H26: a token is the place it stands for, and may travel in addresses."""
    place = Place(7, {"run": 3})
    token = place.token()
    assert "=" not in token
    assert "/" not in token
    assert Place.of(token).token() == token
    assert Place.of("").token() == Place().token()


async def test_idle_notices(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """H22: a watch on which nothing happens says so, with a token to come back by."""
    tier1.coordinator.servicer._watches._idle_after = 0.1
    answer = await watched_run(tier1, tier2, request_of)
    watcher = Watcher(tier1, answer.swarm_id)
    await eventually(lambda: sum(message.HasField("idle") for message in watcher.messages) >= 2)
    idle = next(message for message in watcher.messages if message.HasField("idle"))
    assert idle.resume_token
    await tier2.finish(answer.run_id)
    await asyncio.wait_for(watcher.task, 60)
    assert [event for event in watcher.events if event[0] == "swarm"] == SWARM


async def test_watch_while_tier_2_is_away(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R22, S3: while Tier 2 is away the swarm's own events come; its run's follow when it is back, none missing."""
    answer = await watched_run(tier1, tier2, request_of)
    await tier2.stop()
    watcher = Watcher(tier1, answer.swarm_id)
    await eventually(lambda: ("swarm", 2, "run_requested") in watcher.events)
    await tier2.start()
    await eventually(lambda: ("run", 2, "step_started") in watcher.events)
    await tier2.finish(answer.run_id)
    await asyncio.wait_for(watcher.task, 60)
    assert [event for event in watcher.events if event[0] == "run"] == RUN


async def test_watch_of_a_run_that_never_was(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """H23: a swarm that was cancelled before its run was taken is watched to its end."""
    tier2.mode = "silent"
    answer = await tier1.submit(request_of())
    watcher = Watcher(tier1, answer.swarm_id)
    await tier1.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=answer.swarm_id))
    await asyncio.wait_for(watcher.task, 60)
    assert watcher.events[-1][2] == "swarm_ended"


async def test_progress(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests, nats_url: str) -> None:
    """H2, H23, H11: who asks for progress gets what handlers report for this swarm, and nothing of others; it moves no token."""
    tier1 = await make_coordinator(nats_url=nats_url)
    answer = await watched_run(tier1, tier2, request_of)
    with_progress = Watcher(tier1, answer.swarm_id, progress=True)
    without = Watcher(tier1, answer.swarm_id)
    await eventually(lambda: len(with_progress.messages) >= 3 and len(without.messages) >= 3)
    client = await nats.connect(nats_url)
    reported = event_pb2.Event(step_id="a", progress_reported=event_pb2.ProgressReported(percent=40, kind="thinking"))
    payload = event_pb2.EventBatch(events=[reported]).SerializeToString()
    own = subjects_of("default", answer.swarm_id, answer.run_id).progress("a")
    other = subjects_of("acme", answer.swarm_id, answer.run_id).progress("a")

    async def heard() -> bool:
        await client.publish(other, payload)
        await client.publish(own, payload)
        return any(message.HasField("progress") for message in with_progress.messages)

    await eventually(heard, interval=0.1)
    await client.close()
    told = next(message for message in with_progress.messages if message.HasField("progress"))
    assert told.progress.events[0].progress_reported.percent == 40
    await tier2.finish(answer.run_id)
    await asyncio.wait_for(with_progress.task, 60)
    await asyncio.wait_for(without.task, 60)
    assert not any(message.HasField("progress") for message in without.messages)
    assert [event for event in with_progress.events if event[0] == "swarm"] == SWARM


async def test_progress_comes_after_the_beginning() -> None:
    """H2: progress that is heard before anything was read of a run is sent right behind what the run says of its own beginning."""
    unused: Any = None
    watch = _Watch(unused, unused, unused, event_pb2.EventSource(), Place(0, {}), now=lambda: 0, idle=1.0)
    reported = event_pb2.EventBatch(events=[event_pb2.Event(step_id="a")])
    watch.heard_progress(reported)
    assert watch._queue.empty()
    await watch._send_run_events("r", event_pb2.EventBatch(events=[event_pb2.Event(seq=1)]))
    watch.heard_progress(reported)
    sent = [watch._queue.get_nowait()[0] for _ in range(3)]
    assert [message.WhichOneof("kind") for message in sent if message is not None] == ["batch", "progress", "progress"]


async def test_without_nats_nothing_is_missing(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """B11, H5, R21: with NATS away swarms run and are watched all the same."""
    tier1 = await make_coordinator(nats_url="nats://127.0.0.1:1")
    answer = await watched_run(tier1, tier2, request_of)
    watcher = Watcher(tier1, answer.swarm_id, progress=True)
    await tier2.finish(answer.run_id)
    await asyncio.wait_for(watcher.task, 60)
    assert [event for event in watcher.events if event[0] == "swarm"] == SWARM
    assert (await tier1.get(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
