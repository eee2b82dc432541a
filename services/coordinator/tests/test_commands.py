"""Pause, resume, cancel, stop: what they do to a swarm and to its run, in every state, from every replica."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_durable.ids import uuid7
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]
State = state_pb2.SwarmState


async def running_swarm(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> Any:
    """A swarm whose run works."""
    tier2.mode = "accept"
    answer = await tier1.submit(request_of())
    await state_is(tier1, answer.swarm_id, "RUNNING")
    return answer


async def state_is(tier1: Any, swarm_id: str, state: str) -> Any:
    async def reached() -> Any:
        swarm = await tier1.get(swarm_id)
        return swarm if swarm.state == State.Value(f"SWARM_STATE_{state}") else None

    return await eventually(reached, message=f"{swarm_id} is {state}")


def told(tier2: FakeOrchestrator, run_id: str) -> list[str]:
    """Commands that a run was given, repetitions apart."""
    names = {command.command_id: command.command for command in tier2.commands if command.run_id == run_id}
    return [orchestrator.RunCommand.Name(command).removeprefix("RUN_COMMAND_") for command in names.values()]


async def test_pause_and_resume(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """G6, G9, Lesson 18: a pause reaches the run; the swarm is PAUSED when the run is; a resume lets both go on."""
    answer = await running_swarm(tier1, tier2, request_of)
    tier2.pauses = "later"
    paused = await tier1.stub.PauseSwarm(api.PauseSwarmRequest(swarm_id=answer.swarm_id, reason="lunch"))
    assert (paused.applied, paused.state) == (True, state_pb2.SWARM_STATE_PAUSING)
    await eventually(lambda: told(tier2, answer.run_id) == ["PAUSE"])
    assert (await tier1.get(answer.swarm_id)).state == state_pb2.SWARM_STATE_PAUSING
    tier2.paused(answer.run_id)
    swarm = await state_is(tier1, answer.swarm_id, "PAUSED")
    assert swarm.reason == "lunch"
    again = await tier1.stub.PauseSwarm(api.PauseSwarmRequest(swarm_id=answer.swarm_id))
    assert (again.applied, again.state) == (False, state_pb2.SWARM_STATE_PAUSED)
    resumed = await tier1.stub.ResumeSwarm(api.ResumeSwarmRequest(swarm_id=answer.swarm_id))
    assert (resumed.applied, resumed.state) == (True, state_pb2.SWARM_STATE_RUNNING)
    await eventually(lambda: told(tier2, answer.run_id) == ["PAUSE", "RESUME"])
    await tier2.finish(answer.run_id)
    assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED


async def test_pause_that_is_lost_is_asked_again(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """G6, R29: Tier 2's word that the run is paused may be lost; the coordinator asks until it knows."""
    answer = await running_swarm(tier1, tier2, request_of)
    tier2.pauses = "later"
    await tier1.stub.PauseSwarm(api.PauseSwarmRequest(swarm_id=answer.swarm_id))
    await eventually(lambda: bool(told(tier2, answer.run_id)))
    tier2.runs[answer.run_id].state = state_pb2.RUN_STATE_PAUSED  # and nobody is told
    await state_is(tier1, answer.swarm_id, "PAUSED")


async def test_a_paused_swarm_is_not_kept_in_memory(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R15: a swarm that waits for a command gives up its owner; the command finds it all the same."""
    answer = await running_swarm(tier1, tier2, request_of)
    await tier1.stub.PauseSwarm(api.PauseSwarmRequest(swarm_id=answer.swarm_id))
    await state_is(tier1, answer.swarm_id, "PAUSED")
    await eventually(lambda: answer.swarm_id not in tier1.coordinator.durable.host.entities)
    assert not (await tier1.get(answer.swarm_id)).owner
    resumed = await tier1.stub.ResumeSwarm(api.ResumeSwarmRequest(swarm_id=answer.swarm_id))
    assert resumed.applied
    await tier2.finish(answer.run_id)
    assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED


async def test_a_sleeping_run_costs_no_memory(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """R15, R28: a swarm whose run takes very long is let go while nobody waits; its end finds it."""
    tier1 = await make_coordinator(park_seconds=0.2)
    answer = await running_swarm(tier1, tier2, request_of)
    await eventually(lambda: answer.swarm_id not in tier1.coordinator.durable.host.entities)
    assert (await tier1.get(answer.swarm_id)).state == state_pb2.SWARM_STATE_RUNNING
    waiting = asyncio.create_task(tier1.wait(answer.swarm_id))
    await tier2.finish(answer.run_id)
    assert (await waiting).state == state_pb2.SWARM_STATE_COMPLETED
    await eventually(lambda: set(tier2.acknowledgements) == {answer.run_id})


async def test_cancel(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """G1, G4, Lesson 5: a cancel reaches the run; the swarm is STOPPED when the run has ended, with reason and actor."""
    answer = await running_swarm(tier1, tier2, request_of)
    tier2.cancels_at_once = False
    cancelled = await tier1.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=answer.swarm_id, reason="wrong input"))
    assert (cancelled.applied, cancelled.state) == (True, state_pb2.SWARM_STATE_STOPPING)
    await eventually(lambda: told(tier2, answer.run_id) == ["CANCEL"])
    assert (await tier1.get(answer.swarm_id)).state == state_pb2.SWARM_STATE_STOPPING
    await tier2.finish(answer.run_id, "CANCELLED")
    swarm = await tier1.wait(answer.swarm_id)
    assert (swarm.state, swarm.outcome, swarm.reason) == (
        state_pb2.SWARM_STATE_STOPPED,
        state_pb2.OUTCOME_CANCELLED,
        "wrong input",
    )
    batch = (await tier1.stub.ListEvents(api.ListEventsRequest(swarm_id=answer.swarm_id))).batch
    received = next(event.command_received for event in batch.events if event.HasField("command_received"))
    assert (received.command, received.actor, received.reason) == ("cancel", "dev", "wrong input")


async def test_cancel_before_the_run_is_taken(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R29, G10: a cancel goes down although Tier 2 does not know the run; its tombstone refuses the run, and the swarm is STOPPED."""
    tier2.mode = "silent"
    answer = await tier1.submit(request_of())
    assert (await tier1.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=answer.swarm_id))).applied
    tier2.mode = "accept"
    swarm = await tier1.wait(answer.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_STOPPED
    assert answer.run_id in tier2.tombstones
    assert answer.run_id not in tier2.runs


async def test_cancel_of_a_run_that_is_taken_meanwhile(
    tier1: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """R29, Lesson 32: a cancel that found nothing below and has no receipt yet is said again to the run that is accepted after it."""
    tier2.mode = "silent"
    tier2.tombstones = Forgetful()
    answer = await tier1.submit(request_of())
    assert (await tier1.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=answer.swarm_id))).applied
    await eventually(lambda: bool(told(tier2, answer.run_id)))
    tier2.mode = "accept"
    swarm = await tier1.wait(answer.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_STOPPED
    assert tier2.runs[answer.run_id].state == state_pb2.RUN_STATE_CANCELLED


class Forgetful(set[str]):
    """Remembers nothing."""

    def add(self, element: str) -> None:
        """Forgets it."""


async def test_graceful_stop(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """G8: a graceful stop lets running steps finish, then cancels what is left."""
    answer = await running_swarm(tier1, tier2, request_of)
    tier2.pauses = "later"
    stopped = await tier1.stub.StopSwarm(api.StopSwarmRequest(swarm_id=answer.swarm_id, reason="budget"))
    assert (stopped.applied, stopped.state) == (True, state_pb2.SWARM_STATE_STOPPING)
    await eventually(lambda: told(tier2, answer.run_id) == ["PAUSE"])
    tier2.paused(answer.run_id)
    swarm = await tier1.wait(answer.swarm_id)
    assert (swarm.state, swarm.reason) == (state_pb2.SWARM_STATE_STOPPED, "budget")
    assert told(tier2, answer.run_id) == ["PAUSE", "CANCEL"]


async def test_a_graceful_stop_that_was_undone(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """G8, Lesson 32: a resume that reaches the run after the pause of a graceful stop does not undo the stop: the run is cancelled."""
    answer = await running_swarm(tier1, tier2, request_of)
    tier2.pauses = "later"
    assert (await tier1.stub.StopSwarm(api.StopSwarmRequest(swarm_id=answer.swarm_id, reason="budget"))).applied
    await eventually(lambda: told(tier2, answer.run_id) == ["PAUSE"])
    run = tier2.runs[answer.run_id]
    run.state = state_pb2.RUN_STATE_RUNNING  # somebody has resumed it
    tier2.send(commands=[orchestrator.CommandRunResponse(run_id=run.run_id, command_id=run.pause.command_id, applied=True, state=run.state)])  # fmt: skip
    swarm = await tier1.wait(answer.swarm_id)
    assert (swarm.state, swarm.reason) == (state_pb2.SWARM_STATE_STOPPED, "budget")
    assert told(tier2, answer.run_id)[-1] == "CANCEL"


async def test_forced_stop(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """G8, G4, Lesson 32: a forced stop ends the swarm at once; the run below is cancelled all the same, its late end acknowledged."""
    answer = await running_swarm(tier1, tier2, request_of)
    tier2.cancels_at_once = False
    stopped = await tier1.stub.StopSwarm(
        api.StopSwarmRequest(swarm_id=answer.swarm_id, mode=api.STOP_MODE_FORCE, reason="now")
    )
    assert (stopped.applied, stopped.state) == (True, state_pb2.SWARM_STATE_TERMINATED)
    swarm = await tier1.wait(answer.swarm_id)
    assert (swarm.state, swarm.reason) == (state_pb2.SWARM_STATE_TERMINATED, "now")
    await eventually(lambda: told(tier2, answer.run_id) == ["CANCEL"])
    await tier2.finish(answer.run_id, "CANCELLED")
    await eventually(
        lambda: tier2.acknowledgements == [answer.run_id] or print("ACK", tier2.acknowledgements, answer.run_id)
    )
    assert (await tier1.get(answer.swarm_id)).state == state_pb2.SWARM_STATE_TERMINATED
    await eventually(lambda: len(tier1.coordinator.engine.runs) == 0)


@pytest.mark.parametrize("command", ["Pause", "Resume", "Cancel", "Stop"])
async def test_command_on_an_ended_swarm(tier1: Any, request_of: Requests, command: str) -> None:
    """G3, G9: a command on an ended swarm changes nothing and tells the final state."""
    answer = await tier1.submit(request_of())
    await tier1.wait(answer.swarm_id)
    request = getattr(api, f"{command}SwarmRequest")(swarm_id=answer.swarm_id)
    reply = await getattr(tier1.stub, f"{command}Swarm")(request)
    assert (reply.applied, reply.state) == (False, state_pb2.SWARM_STATE_COMPLETED)


async def test_command_on_an_unknown_swarm(tier1: Any) -> None:
    """G3, Lesson 8: what does not exist is NOT_FOUND, never COMPLETED."""
    for call in (
        tier1.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=uuid7())),
        tier1.stub.GetSwarm(api.GetSwarmRequest(swarm_id=uuid7())),
        tier1.stub.WaitSwarm(api.WaitSwarmRequest(swarm_id=uuid7())),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_command_id(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """R14: a command that is repeated is done once and answered as the first time."""
    answer = await running_swarm(tier1, tier2, request_of)
    request = api.CancelSwarmRequest(swarm_id=answer.swarm_id, command_id="once")
    tier2.cancels_at_once = False
    replies = [await tier1.stub.CancelSwarm(request) for _ in range(3)]
    assert all(reply.applied for reply in replies)
    batch = (await tier1.stub.ListEvents(api.ListEventsRequest(swarm_id=answer.swarm_id))).batch
    assert sum(event.HasField("command_received") for event in batch.events) == 1


async def test_commands_from_another_replica(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """G2, N3, Lesson 5, Lesson 19: any replica takes any command and shows the same state."""
    one, two = await make_coordinator(name="a"), await make_coordinator(name="b")
    answer = await running_swarm(one, tier2, request_of)
    assert (await two.get(answer.swarm_id)).state == state_pb2.SWARM_STATE_RUNNING
    assert (await two.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=answer.swarm_id))).applied
    ended = await asyncio.gather(one.wait(answer.swarm_id), two.wait(answer.swarm_id))
    assert [swarm.state for swarm in ended] == [state_pb2.SWARM_STATE_STOPPED] * 2


async def test_cancel_and_end_at_once(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """C6: a cancel and a result that meet, from two replicas, yield exactly one terminal event each time."""
    one, two = await make_coordinator(name="a"), await make_coordinator(name="b")
    tier2.mode = "accept"
    answers = [await one.submit(request_of()) for _ in range(50)]
    await eventually(lambda: len(tier2.runs) == 50)
    await asyncio.gather(
        *(two.stub.CancelSwarm(api.CancelSwarmRequest(swarm_id=answer.swarm_id)) for answer in answers),
        *(tier2.finish(answer.run_id) for answer in answers),
    )
    for answer in answers:
        await one.wait(answer.swarm_id)
        batch = (await two.stub.ListEvents(api.ListEventsRequest(swarm_id=answer.swarm_id))).batch
        assert sum(event.HasField("swarm_ended") for event in batch.events) == 1
        assert batch.events[-1].HasField("swarm_ended")
        assert [event.seq for event in batch.events] == list(range(1, len(batch.events) + 1))
