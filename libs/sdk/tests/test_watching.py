"""Watching: typed events, no gap and no repeat over any number of broken connections."""

import random

import grpc
import pytest
from tierflow import Client, Event, Gap, InvalidRequest, PermissionDenied, Unavailable
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.events.v1 import event_pb2
from tierflow_testing.fake_coordinator import FakeCoordinator, rich


def _batch(entity: str, *seqs: int, last: bool = False, token: str = "") -> api.WatchSwarmResponse:
    run_id = entity if entity.startswith("run") else ""
    source = event_pb2.EventSource(kind="run" if run_id else "swarm", entity_id=entity, swarm_id="swarm", run_id=run_id)
    events = [event_pb2.Event(seq=seq, step_id="a", step_completed=event_pb2.StepCompleted()) for seq in seqs]
    if last:
        events[-1] = event_pb2.Event(seq=seqs[-1], swarm_ended=event_pb2.SwarmEnded(to=state_pb2.SWARM_STATE_COMPLETED))
    return api.WatchSwarmResponse(
        batch=event_pb2.EventBatch(source=source, events=events), resume_token=token or f"{entity}:{seqs[-1]}"
    )


def _ready(seq: int) -> api.WatchSwarmResponse:
    return api.WatchSwarmResponse(ready=api.WatchReady(after_seq=seq), resume_token=f"swarm:{seq}")


async def test_a_watch_cut_twenty_times_has_no_gap_and_no_repeat(fake: FakeCoordinator, client: Client) -> None:
    """H26: the connection breaks after every other message; each connection repeats some of what was seen."""
    chance = random.Random(26)
    position, scripts = 0, []
    while len(scripts) < 21:
        script = [_ready(position)]
        start = max(1, position + 1 - chance.randrange(3))
        upto = position + chance.randrange(1, 6)
        script.append(_batch("swarm", *range(start, upto + 1), last=len(scripts) == 20))
        position = upto
        scripts.append(script)
    fake.watches = scripts
    places = [script[-1].resume_token for script in scripts[:-1]]
    watch = client.watch("swarm")
    seen = [item.seq async for item in watch if isinstance(item, Event)]
    assert seen == list(range(1, position + 1))
    assert watch.connections == 21
    assert [request.resume_token for request in fake.watch_requests] == ["", *places]


async def test_a_token_from_the_middle_of_a_batch_goes_on_there(fake: FakeCoordinator, client: Client) -> None:
    """H26: an event's token is exact even where several events came in one message; another process goes on with it."""
    batches = [_ready(0), _batch("run-1", 1, 2, token="t1"), _batch("run-1", 3, 4, 5, token="t2")]
    fake.watches = [batches, []]
    token = ""
    async for item in client.watch("swarm"):
        token = item.resume_token
        if isinstance(item, Event) and item.seq == 4:
            break
    fake.watches = [[_ready(0), _batch("run-1", 3, 4, 5, token="t2"), _batch("swarm", 1, last=True)]]
    rest = [(item.entity_id, item.seq) async for item in client.watch("swarm", token) if isinstance(item, Event)]
    assert fake.watch_requests[-1].resume_token == "t1"
    assert rest == [("run-1", 5), ("swarm", 1)]


async def test_gaps_are_told(fake: FakeCoordinator, client: Client) -> None:
    """S3: history that is gone is shown as gone."""
    gap = api.WatchSwarmResponse(gap=api.WatchGap(entity_id="swarm", from_seq=0, to_seq=7), resume_token="swarm:6")
    fake.watches = [[_ready(0), gap, _batch("swarm", 7, 8, last=True)]]
    items = [item async for item in client.watch("swarm")]
    assert isinstance(items[0], Gap)
    assert (items[0].from_seq, items[0].to_seq) == (0, 7)
    assert [item.seq for item in items if isinstance(item, Event)] == [7, 8]


async def test_events_are_typed(fake: FakeCoordinator, client: Client) -> None:
    """H22: an event says what it is, whose and where, and has its message as it is in the contract."""
    progress = event_pb2.EventBatch(
        source=event_pb2.EventSource(entity_id="run-1", swarm_id="swarm", run_id="run-1"),
        events=[
            event_pb2.Event(
                step_id="a[3]", attempt=2, progress_reported=event_pb2.ProgressReported(percent=40, message="reading")
            )
        ],
    )
    fake.watches = [
        [
            _ready(0),
            api.WatchSwarmResponse(progress=progress),
            api.WatchSwarmResponse(idle=api.WatchIdle()),
            _batch("swarm", 1, last=True),
        ]
    ]
    first, last = [item async for item in client.watch("swarm") if isinstance(item, Event)]
    assert (first.type, first.run_id, first.step_id, first.attempt, first.seq) == (
        "progress_reported",
        "run-1",
        "a[3]",
        2,
        0,
    )
    assert first.data == {"percent": 40.0, "message": "reading"}
    assert isinstance(last.message, event_pb2.SwarmEnded)


async def test_a_break_after_the_swarms_end_is_mended(fake: FakeCoordinator, client: Client) -> None:
    """H26: the swarm's end may come before the last of its runs' events; a break in between loses none of these."""
    fake.watches = [
        [_ready(0), _batch("run-1", 1), _batch("swarm", 1, last=True)],
        [_ready(1), _batch("run-1", 2, 3)],
    ]
    seen = [(item.entity_id, item.seq) async for item in client.watch("swarm") if isinstance(item, Event)]
    assert seen == [("run-1", 1), ("swarm", 1), ("run-1", 2), ("run-1", 3)]


async def test_a_watch_resumed_after_the_end_ends(fake: FakeCoordinator, client: Client) -> None:
    """H26: a token of the last event leads to nothing more, and to no waiting."""
    fake.watches = [[_ready(1)]]
    assert [item async for item in client.watch("swarm", "swarm:1")] == []
    assert len(fake.watch_requests) == 1


async def test_refusals_end_a_watch(fake: FakeCoordinator) -> None:
    """H23, N12: what cannot get better is raised, and nobody there is raised once patience is over."""
    async with Client(fake.address, patience=0.1) as client:
        fake.errors["WatchSwarm"] = rich(
            grpc.StatusCode.PERMISSION_DENIED, "not your swarm", reason="PERMISSION_DENIED"
        )
        with pytest.raises(PermissionDenied):
            _ = [item async for item in client.watch("swarm")]
        with pytest.raises(InvalidRequest):
            client.watch("swarm", "a|b|c")
        await fake.stop()
        with pytest.raises(Unavailable):
            _ = [item async for item in client.watch("swarm")]
