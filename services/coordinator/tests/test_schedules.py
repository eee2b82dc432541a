"""Schedules on a real database: the public calls, firing, overlaps, takeover. A scripted Tier 2 runs what they make."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as swarms
from tierflow_contracts.coordinator.v1 import schedule_pb2 as api
from tierflow_testing.fake_orchestrator import FakeOrchestrator


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


async def until(look: Callable[[], Awaitable[Any]], *, within: float = 20.0) -> Any:
    """Looks until there is something."""
    async with asyncio.timeout(within):
        while not (found := await look()):
            await asyncio.sleep(0.05)
    return found


async def test_it_fires(tier1: Any, tier2: FakeOrchestrator) -> None:
    """Q6: a schedule fires at its times; each swarm has its label, its firing in its input, and its outcome is shown."""
    await create(tier1)

    async def three() -> api.Schedule | None:
        schedule = await shown(tier1)
        return schedule if schedule.counts.succeeded >= 3 else None

    schedule = await until(three)
    times = [firing.time.seconds for firing in schedule.recent]
    assert times == sorted(times, reverse=True)
    assert {firing.outcome for firing in schedule.recent} == {state_pb2.OUTCOME_SUCCESS}
    listed = await tier1.stub.ListSwarms(swarms.ListSwarmsRequest(labels={"tierflow.schedule": "n"}))
    assert {swarm.context.swarm_id for swarm in listed.swarms} >= {firing.swarm_id for firing in schedule.recent}
    swarm = await tier1.get(schedule.recent[-1].swarm_id)
    fields = swarm.input.value.struct_value.fields
    assert fields["name"].string_value == "n"
    assert fields["at"].string_value == schedule.recent[-1].firing_id
