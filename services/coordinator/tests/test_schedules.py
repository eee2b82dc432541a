"""Schedules on a real database: the public calls, firing, overlaps, takeover. A scripted Tier 2 runs what they make."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.explanation_pb2 import BLOCKER_KIND_CHILD, BLOCKER_KIND_PAUSE, BLOCKER_KIND_TIMER
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as swarms
from tierflow_contracts.coordinator.v1 import schedule_pb2 as api
from tierflow_durable.reading import ListFilter
from tierflow_runtime.errors import failure_of
from tierflow_runtime.values import Failure
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

DAILY = ["0 2 * * *"]


async def refused(call: Awaitable[Any]) -> Failure:
    """The refusal of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure_of(caught.value)


def spec_of(**fields: Any) -> pb.ScheduleSpec:
    """A schedule of `greet`, every second unless told otherwise."""
    if not {"cron", "every"} & fields.keys():
        fields["every"] = Duration(seconds=1)
    spec = pb.ScheduleSpec(**fields)
    if not spec.HasField("swarm"):
        spec.swarm.flow.name = "greet"
        spec.swarm.input.json = '{"name":"${{ schedule.name }}","at":"${{ schedule.time }}"}'
    return spec


async def create(tier1: Any, name: str = "n", **fields: Any) -> api.Schedule:
    """Makes a schedule."""
    request = api.CreateScheduleRequest(name=name, spec=spec_of(**fields))
    answer: api.CreateScheduleResponse = await tier1.stub.CreateSchedule(request)
    return answer.schedule


async def shown(tier1: Any, name: str = "n") -> api.Schedule:
    """A schedule as it is."""
    answer: api.GetScheduleResponse = await tier1.stub.GetSchedule(api.GetScheduleRequest(name=name))
    return answer.schedule


async def test_it_fires(tier1: Any, tier2: FakeOrchestrator) -> None:
    """Q6: a schedule fires at its times; each swarm has its label, its firing in its input, and its outcome is shown."""
    await create(tier1)

    async def three() -> api.Schedule | None:
        schedule = await shown(tier1)
        return schedule if schedule.counts.succeeded >= 3 else None

    schedule = await eventually(three)
    times = [firing.time.seconds for firing in schedule.recent]
    assert times == sorted(times, reverse=True)
    assert {firing.outcome for firing in schedule.recent} == {state_pb2.OUTCOME_SUCCESS}
    listed = await tier1.stub.ListSwarms(swarms.ListSwarmsRequest(labels={"tierflow.schedule": "n"}))
    assert {swarm.context.swarm_id for swarm in listed.swarms} >= {firing.swarm_id for firing in schedule.recent}
    swarm = await tier1.get(schedule.recent[-1].swarm_id)
    fields = swarm.input.value.struct_value.fields
    assert fields["name"].string_value == "n"
    # The label is the engine's own: Tier 2 would refuse a request that has it.
    assert not any(label.startswith("tierflow.") for run in tier2.requests for label in run.context.labels)
    assert fields["at"].string_value == schedule.recent[-1].firing_id


async def test_what_is_wrong_is_said_at_once(tier1: Any) -> None:
    """Q6, A5: everything that is wrong with a schedule is listed, each with its field, and nothing is stored."""
    spec = spec_of(cron=["61 * * * *", "@never"], time_zone="Mars/Olympus", jitter=Duration(seconds=-1), max_firings=-1)
    spec.swarm.input.json = '{"a": "${{ schedule.weather }}"}'
    spec.swarm.options.priority = 1000
    spec.swarm.options.validate_only = True
    spec.swarm.labels["tierflow.mine"] = "x"
    told = await refused(tier1.stub.CreateSchedule(api.CreateScheduleRequest(name="a b", spec=spec)))
    assert told.code == "INVALID_REQUEST"
    assert {violation.field for violation in told.violations} == {
        "name", "spec.cron[0]", "spec.cron[1]", "spec.time_zone", "spec.jitter", "spec.max_firings", "spec.swarm.input",
        "spec.swarm.options.validate_only", "spec.swarm.options.priority", "spec.swarm.labels['tierflow.mine']",
    }  # fmt: skip
    bare = await refused(tier1.stub.CreateSchedule(api.CreateScheduleRequest(name="n", spec=pb.ScheduleSpec())))
    assert {violation.field for violation in bare.violations} == {"spec", "spec.swarm"}
    past = spec_of(cron=DAILY, end_at=Timestamp(seconds=1_600_000_000))
    over = await refused(tier1.stub.CreateSchedule(api.CreateScheduleRequest(name="n", spec=past)))
    assert "would never fire" in over.message
    unknown = spec_of(cron=DAILY)
    unknown.swarm.flow.name = "no-such-flow"
    missing = await refused(tier1.stub.CreateSchedule(api.CreateScheduleRequest(name="n", spec=unknown)))
    assert missing.code in ("FLOW_NOT_FOUND", "NOT_FOUND")  # the scripted Tier 2 says the latter
    assert not (await tier1.stub.ListSchedules(api.ListSchedulesRequest())).schedules


async def test_names_are_taken_once(make_coordinator: Callable[..., Awaitable[Any]]) -> None:
    """Q6, R3, R8: of those who make one name at the same time one wins; its request may be repeated; after deletion the name is free."""
    one, other = await make_coordinator(name="a"), await make_coordinator(name="b")
    spec = spec_of(cron=DAILY)
    calls = [
        tier1.stub.CreateSchedule(api.CreateScheduleRequest(name="n", spec=spec, request_id=f"r{number}"))
        for number, tier1 in enumerate((one, other, one, other))
    ]
    answers: list[Any] = []
    for call in calls:
        try:
            answers.append((await call).created)
        except grpc.aio.AioRpcError as error:
            answers.append(failure_of(error).code)
    assert sorted(map(str, answers)) == ["ALREADY_EXISTS", "ALREADY_EXISTS", "ALREADY_EXISTS", "True"]
    winner = f"r{answers.index(True)}"
    again = await other.stub.CreateSchedule(api.CreateScheduleRequest(name="n", spec=spec, request_id=winner))
    assert not again.created
    assert (await one.stub.DeleteSchedule(api.DeleteScheduleRequest(name="n"))).state == pb.SCHEDULE_STATE_DELETED
    gone = await refused(one.stub.GetSchedule(api.GetScheduleRequest(name="n")))
    assert gone.code == "NOT_FOUND"
    anew = await other.stub.CreateSchedule(api.CreateScheduleRequest(name="n", spec=spec))
    assert anew.created
    assert anew.schedule.schedule_id != again.schedule.schedule_id


async def test_steering(tier1: Any, tier2: FakeOrchestrator) -> None:
    """Q6, S5: pause, why it does not fire, trigger with its swarm, update of a version, resume, next times."""
    await create(tier1, cron=DAILY, time_zone="Europe/Berlin", jitter=Duration(seconds=600))
    stub = tier1.stub
    paused = await stub.PauseSchedule(api.PauseScheduleRequest(name="n", reason="holiday"))
    assert (paused.applied, paused.state) == (True, pb.SCHEDULE_STATE_PAUSED)
    why = (await stub.GetSchedule(api.GetScheduleRequest(name="n"))).explanation
    assert [(blocker.kind, blocker.description) for blocker in why.blockers] == [
        (BLOCKER_KIND_PAUSE, "it is paused: holiday")
    ]
    tier2.mode = "accept"
    request = api.TriggerScheduleRequest(name="n", command_id="c1")
    first, again = await stub.TriggerSchedule(request), await stub.TriggerSchedule(request)
    assert first.applied
    assert first.firing.swarm_id == again.firing.swarm_id != ""
    skipped = await stub.TriggerSchedule(api.TriggerScheduleRequest(name="n"))
    assert (skipped.applied, skipped.firing.state) == (False, pb.FIRING_STATE_SKIPPED)
    why = (await stub.GetSchedule(api.GetScheduleRequest(name="n"))).explanation
    assert {blocker.kind for blocker in why.blockers} == {BLOCKER_KIND_PAUSE, BLOCKER_KIND_CHILD}
    spec = (await shown(tier1)).spec
    spec.cron[0] = "30 3 * * *"
    stale = await refused(stub.UpdateSchedule(api.UpdateScheduleRequest(name="n", spec=spec, expected_version=9)))
    assert stale.code == "STATE_CONFLICT"
    updated = await stub.UpdateSchedule(api.UpdateScheduleRequest(name="n", spec=spec, expected_version=1))
    assert updated.schedule.version == 2
    resumed = await stub.ResumeSchedule(api.ResumeScheduleRequest(name="n"))
    assert resumed.state == pb.SCHEDULE_STATE_ACTIVE
    answer = await stub.GetSchedule(api.GetScheduleRequest(name="n"))
    assert answer.explanation.blockers[-1].kind == BLOCKER_KIND_TIMER
    times = (await stub.ListScheduleTimes(api.ListScheduleTimesRequest(name="n", limit=3))).times
    assert len(times) == 3
    assert times[0].time == answer.schedule.next_time
    assert times[0].fires_at == answer.schedule.next_fire


async def test_backfill(tier1: Any) -> None:
    """Q6: a backfill makes a swarm for each time of the range, one after the other; what it would do can be asked first; the future is refused."""
    await create(tier1, cron=DAILY)
    now = (await shown(tier1)).created_at.seconds
    range_ = {"from": Timestamp(seconds=now - 5 * 86_400), "to": Timestamp(seconds=now)}
    asked = await tier1.stub.BackfillSchedule(api.BackfillScheduleRequest(name="n", validate_only=True, **range_))
    assert len(asked.times) == 5
    assert not asked.applied
    request = api.BackfillScheduleRequest(name="n", command_id="b", **range_)
    assert (await tier1.stub.BackfillSchedule(request)).applied
    assert (await tier1.stub.BackfillSchedule(request)).applied  # The same command: nothing more.

    async def all_done() -> bool:
        return len((await shown(tier1)).recent) == 5

    await eventually(all_done)
    schedule = await shown(tier1)
    assert [firing.time for firing in reversed(schedule.recent)] == list(asked.times)
    assert schedule.counts.succeeded == 5
    ahead = {"from": Timestamp(seconds=now), "to": Timestamp(seconds=now + 86_400)}
    told = await refused(tier1.stub.BackfillSchedule(api.BackfillScheduleRequest(name="n", **ahead)))
    assert told.violations[0].field == "to"


async def test_swarms_that_overlap_are_cancelled(tier1: Any, tier2: FakeOrchestrator) -> None:
    """Q6: with CANCEL_RUNNING the swarm at work is really cancelled, and the next begins after its end."""
    tier2.mode = "accept"
    await create(tier1, overlap=pb.OVERLAP_POLICY_CANCEL_RUNNING)

    async def replaced() -> api.Schedule | None:
        schedule = await shown(tier1)
        return schedule if any(f.outcome == state_pb2.OUTCOME_CANCELLED for f in schedule.recent) else None

    schedule = await eventually(replaced)
    stopped = next(firing for firing in schedule.recent if firing.swarm_id)
    assert (await tier1.get(stopped.swarm_id)).state == state_pb2.SWARM_STATE_STOPPED


async def test_a_peer_goes_on(make_coordinator: Callable[..., Awaitable[Any]], tier2: FakeOrchestrator) -> None:
    """Q6, R11, R14, R16: when the owner ends as by a crash, a peer takes the schedule over; no time fires twice, and none is lost."""
    one = await make_coordinator(name="a", lease_seconds=2.0, heartbeat_seconds=0.5)
    other = await make_coordinator(name="b", lease_seconds=2.0, heartbeat_seconds=0.5)
    await create(one, overlap=pb.OVERLAP_POLICY_ALLOW)

    async def fired(tier1: Any, count: int) -> api.Schedule | None:
        schedule = await shown(tier1)
        return schedule if schedule.counts.succeeded >= count else None

    await eventually(lambda: fired(one, 2))
    await one.stop(graceful=False)
    before = (await shown(other)).counts.fired
    schedule = await eventually(lambda: fired(other, before + 3))
    times = sorted(firing.time.seconds for firing in schedule.recent)
    assert times == list(range(times[0], times[0] + len(times)))
    assert schedule.counts.missed == 0
    made = [run.request.context.swarm_id for run in tier2.runs.values()]
    assert len(set(made)) == len(made)
    asked = await other.stub.ListSwarms(swarms.ListSwarmsRequest(labels={"tierflow.schedule": "n"}, page_size=1000))
    ids = [swarm.context.swarm_id for swarm in asked.swarms]
    assert len(ids) >= schedule.counts.fired
    assert {firing.swarm_id for firing in schedule.recent} <= set(ids)


async def test_others_do_not_see_it(tier1: Any) -> None:
    """Q6, L4: another user's schedule does not exist for reads, and is refused for commands; another tenant's never exists."""
    await create(tier1, cron=DAILY)
    other = (("tierflow-user", "eve"),)
    stranger = (("tierflow-tenant", "elsewhere"),)
    get, pause = api.GetScheduleRequest(name="n"), api.PauseScheduleRequest(name="n")
    assert (await refused(tier1.stub.GetSchedule(get, metadata=other))).code == "NOT_FOUND"
    assert (await refused(tier1.stub.PauseSchedule(pause, metadata=other))).code == "PERMISSION_DENIED"
    assert (await refused(tier1.stub.PauseSchedule(pause, metadata=stranger))).code == "NOT_FOUND"
    listed = await tier1.stub.ListSchedules(api.ListSchedulesRequest(), metadata=other)
    assert not listed.schedules


async def test_who_sleeps_costs_a_row(tier1: Any) -> None:
    """Q6, R15: schedules that wait for their next time are in nobody's memory, and have no timer; each is a row with its wake time."""
    for number in range(40):
        await create(tier1, f"n{number}", cron=DAILY, jitter=Duration(seconds=60))
    durable = tier1.coordinator.schedules.durable
    await eventually(lambda: not durable.host.entities)
    page = await durable.reader.page(ListFilter(tenant="default", limit=100))
    assert len(page.rows) == 40
    assert all(row.owner is None and row.wake_at is not None for row in page.rows)
    named = {schedule.name: schedule async for schedule in _all(tier1)}
    assert {row.name: row.wake_at for row in page.rows} == {
        name: schedule.next_fire.ToMicroseconds() for name, schedule in named.items()
    }


async def _all(tier1: Any) -> AsyncIterator[api.Schedule]:
    request = api.ListSchedulesRequest(page_size=15)
    while True:
        answer = await tier1.stub.ListSchedules(request)
        for schedule in answer.schedules:
            yield schedule
        request.page_token = answer.next_page_token
        if not request.page_token:
            return
