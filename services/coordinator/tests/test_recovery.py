"""What is not forgotten: over lost streams, lost orchestrators, restarts and takeovers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionResult
from tierflow_durable.ids import uuid7
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]


async def test_run_is_asked_for_until_it_is_taken(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R28, J2: a request without an answer is sent again with the same run id."""
    tier2.mode = "silent"
    answer = await tier1.submit(request_of())
    await eventually(lambda: len(tier2.requests) >= 2)
    assert {request.context.run_id for request in tier2.requests} == {answer.run_id}
    tier2.mode = "complete"
    assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED


async def test_refusals_for_weather_are_not_final(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J10, Lesson 34: an orchestrator that is full or away now does not fail the swarm."""
    tier2.refusal = failure_pb2.Failure(code=failure_pb2.ERROR_CODE_QUEUE_FULL, tier=failure_pb2.TIER_2)
    tier2.refusal.retry_after.FromMilliseconds(50)
    answer = await tier1.submit(request_of())
    await eventually(lambda: len(tier2.requests) >= 3)
    tier2.refusal = None
    assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED


async def test_orchestrator_restarts(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R28, R16: results that were ready while the stream was away come with it; runs are attached to again, not started twice."""
    tier2.mode = "accept"
    answers = [await tier1.submit(request_of()) for _ in range(5)]
    await eventually(lambda: len(tier2.runs) == 5)
    await tier2.stop()
    late = await tier1.submit(request_of())
    await tier2.finish(answers[0].run_id)
    await tier2.start()
    assert (await tier1.wait(answers[0].swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
    await eventually(lambda: late.run_id in tier2.runs)
    for answer in [*answers[1:], late]:
        await tier2.finish(answer.run_id)
        assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
    assert len(tier2.runs) == 6


async def test_results_are_repeated_until_acknowledged(
    tier1: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """R28: a result that comes again is acknowledged again and changes nothing."""
    tier2.acknowledging = False
    answer = await tier1.submit(request_of())
    swarm = await tier1.wait(answer.swarm_id)
    await eventually(lambda: len(tier2.acknowledgements) == 1)
    for count in (2, 3):
        await tier2.repeat_results()
        await eventually(lambda count=count: len(tier2.acknowledgements) == count)
    assert (await tier1.get(answer.swarm_id)).seq == swarm.seq


async def test_result_of_an_unknown_swarm(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R28: what belongs to no swarm is not acknowledged, and disturbs nothing."""
    stranger = ExecutionContext(swarm_id=uuid7(), run_id=uuid7(), generation=1)
    await eventually(lambda: tier2.connected)
    tier2.send(results=[RunExecutionResult(context=stranger, state=state_pb2.RUN_STATE_COMPLETED)])
    answer = await tier1.submit(request_of())
    await tier1.wait(answer.swarm_id)
    await eventually(lambda: answer.run_id in tier2.acknowledgements)
    assert stranger.run_id not in tier2.acknowledgements


async def test_result_comes_to_another_replica(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """R28, J3: a result brought to a coordinator that does not own the swarm reaches its owner, and is acknowledged after the commit there."""
    one = await make_coordinator(name="a")
    tier2.mode = "accept"
    answer = await one.submit(request_of())
    await eventually(lambda: answer.run_id in tier2.runs)
    other = FakeOrchestrator("other")
    other.runs = tier2.runs
    await other.start()
    try:
        two = await make_coordinator(name="b", orchestrators=(other.address,))
        await eventually(lambda: other.connected)
        await other.finish(answer.run_id)
        assert (await one.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
        await eventually(lambda: other.acknowledgements == [answer.run_id])
        assert answer.swarm_id not in two.coordinator.durable.host.entities
    finally:
        await other.stop()


async def test_redirect(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R28: a run that another orchestrator owns is asked for there, also where nobody had named that one."""
    owner = FakeOrchestrator("owner")
    await owner.start()
    tier1 = await make_coordinator()
    try:
        tier2.redirect = owner.address
        answer = await tier1.submit(request_of())
        assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
        assert answer.run_id in owner.runs
    finally:
        await owner.stop()


async def test_runs_spread_over_orchestrators(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """J13: of three orchestrators each takes more than a fifth; one that drains takes no more."""
    more = [FakeOrchestrator("b"), FakeOrchestrator("c")]
    for fake in more:
        fake.flows = tier2.flows
        await fake.start()
    fakes = [tier2, *more]
    try:
        tier1 = await make_coordinator(orchestrators=tuple(fake.address for fake in fakes))
        await eventually(lambda: all(fake.connected for fake in fakes))
        for fake in fakes:
            fake.mode = "accept"
        await asyncio.gather(*(tier1.submit(request_of()) for _ in range(60)))
        await eventually(lambda: sum(len(fake.runs) for fake in fakes) == 60)
        assert all(len(fake.runs) > 12 for fake in fakes)
        before = len(tier2.runs)
        tier2.send(draining=True)
        await eventually(lambda: any(link.draining for link in tier1.coordinator.orchestrators.links))
        await asyncio.gather(*(tier1.submit(request_of()) for _ in range(10)))
        await eventually(lambda: sum(len(fake.runs) for fake in fakes) == 70)
        assert len(tier2.runs) == before
    finally:
        for fake in more:
            await fake.stop()


async def test_restart_of_the_coordinator(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R12, R16, B9, J2: a new incarnation takes over at once, asks for every run again and brings every command down again."""
    one = await make_coordinator(name="a")
    tier2.mode = "silent"
    waits = await one.submit(request_of())
    tier2.mode = "accept"
    runs = await one.submit(request_of())
    pausing = await one.submit(request_of())
    stopping = await one.submit(request_of())
    await eventually(lambda: len(tier2.runs) >= 3)
    tier2.pauses = "later"
    tier2.cancels_at_once = False
    await one.stub.PauseSwarm(api.PauseSwarmRequest(swarm_id=pausing.swarm_id))
    await one.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=stopping.swarm_id))
    await one.stop(graceful=False)
    tier2.requests.clear()
    tier2.commands.clear()
    two = await make_coordinator(name="a")
    expected = {waits.run_id, runs.run_id, pausing.run_id, stopping.run_id}
    await eventually(lambda: {request.context.run_id for request in tier2.requests} >= expected)
    await eventually(lambda: {command.run_id for command in tier2.commands} >= {pausing.run_id, stopping.run_id})
    assert len(tier2.runs) == 4
    tier2.paused(pausing.run_id)
    await tier2.finish(stopping.run_id, "CANCELLED")
    await tier2.finish(runs.run_id)
    await tier2.finish(waits.run_id)
    assert (await two.wait(stopping.swarm_id)).state == state_pb2.SWARM_STATE_STOPPED
    assert (await two.wait(runs.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
    assert (await two.wait(waits.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED

    async def paused() -> bool:
        return bool((await two.get(pausing.swarm_id)).state == state_pb2.SWARM_STATE_PAUSED)

    await eventually(paused)


async def test_forced_stop_survives_a_restart(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """R29, G4, Lesson 32: the cancel of a run whose swarm was ended by force is brought down even if the coordinator dies in between."""
    one = await make_coordinator(name="a")
    tier2.mode = "accept"
    answer = await one.submit(request_of())
    await eventually(lambda: answer.run_id in tier2.runs)
    await tier2.stop()
    await one.stub.StopSwarm(api.StopSwarmRequest(swarm_id=answer.swarm_id, mode=api.STOP_MODE_FORCE))
    await one.stop(graceful=False)
    await tier2.start()
    two = await make_coordinator(name="a")
    await eventually(lambda: tier2.runs[answer.run_id].state == state_pb2.RUN_STATE_CANCELLED)
    await eventually(lambda: len(two.coordinator.engine.runs) == 0)


async def test_takeover_by_a_peer(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J4, R10, R11: the swarms of a coordinator that is gone are adopted by its peer, and end."""
    quick = {"lease_seconds": 1.5, "heartbeat_seconds": 0.3}
    one = await make_coordinator(name="a", **quick)
    two = await make_coordinator(name="b", **quick)
    tier2.mode = "accept"
    answers = [await one.submit(request_of()) for _ in range(20)]
    await eventually(lambda: len(tier2.runs) == 20)
    await one.stop(graceful=False)
    entities = two.coordinator.durable.host.entities
    await eventually(lambda: all(answer.swarm_id in entities for answer in answers))
    for answer in answers:
        await tier2.finish(answer.run_id)
        assert (await two.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
