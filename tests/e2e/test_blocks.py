"""Groups, loops, handlers of errors and compensation in one flow, over the death of whoever has the run."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Client
from tierflow.errors import ExecutionFailed, NotFound
from tierflow_contracts.common.v1.failure_pb2 import ErrorCode
from tierflow_contracts.common.v1.state_pb2 import RunState, StepState
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MakeStack = Callable[..., Stack]

TRIP: dict[str, Any] = {
    "name": "trip",
    "version": "1",
    "defaults": {"retry": {"max_attempts": 1}},
    "steps": {
        "hotel": {
            "call": "echo",
            "with": {"room": 12},
            "compensate": {"call": "sleep", "with": {"seconds": "${{ output.room / 3 }}"}},
        },
        "way": {
            "needs": ["hotel"],
            "retry": {"max_attempts": 2, "initial_delay": "0s"},
            "steps": {
                "train": {"call": "echo", "with": {"seat": 1}, "compensate": {"call": "echo"}},
                "taxi": {"needs": ["train"], "fail": {"code": "NO_TAXI"}, "on_error": {"goto": "walk"}},
                "walk": {"call": "echo", "with": {"why": "${{ last_error.code }}"}},
            },
            "output": "${{ steps.taxi.output.why }}",
        },
        "poll": {
            "needs": ["way"],
            "loop": {"until": "loop.index == 2", "delay": "3s"},
            "steps": {"ask": {"call": "echo", "with": {"at": "${{ loop.index }}", "way": "${{ steps.way.output }}"}}},
        },
        "pay": {"needs": ["poll"], "fail": {"code": "NO_MONEY"}},
    },
}


async def in_state(client: Client, run_id: str, state: int) -> Any:
    """The run, once it is in a state."""

    async def look() -> Any:
        try:
            run = await client.get_run(run_id)
        except NotFound:  # Tier 2 has not taken it yet
            return None
        return run if run.state == state else None

    return await eventually(look)


async def replaced(stack: Stack) -> None:
    """Kill -9 of the orchestrator; another process under its name takes over at once (R12)."""
    stack.orchestrators[0].kill()
    await asyncio.to_thread(stack.orchestrators[0].start)


async def test_a_trip_over_the_death_of_its_orchestrator(make_stack: MakeStack) -> None:
    """E11, E13, K1, K4, K7, R16: killed in a loop's delay and while a step is undone; nothing is done twice, all of it is undone, the last first."""
    stack = make_stack(handlers=["tierflow_executor.handlers"])
    async with Client(stack.address, patience=60) as client:
        handle = await client.submit(TRIP)
        run = await in_state(client, handle.run_id, RunState.RUN_STATE_SUSPENDED)
        assert run.reason == "DELAY: poll"
        await replaced(stack)
        await in_state(client, handle.run_id, RunState.RUN_STATE_COMPENSATING)
        await replaced(stack)
        with pytest.raises(ExecutionFailed) as caught:
            await handle.result(120)
        failure = caught.value.failure
        assert failure is not None
        assert (failure.code, failure.step_id) == (ErrorCode.ERROR_CODE_STEP_FAILED, "pay")
        steps = {step.step_id: step async for step in client.steps(handle.run_id)}
        events = (await client.events(handle.id, handle.run_id)).events
    states = {name: StepState.Name(step.state).removeprefix("STEP_STATE_") for name, step in steps.items()}
    assert (states["hotel"], states["way/train"]) == ("COMPENSATED", "COMPENSATED")
    assert (states["way"], states["way/taxi"], states["way/taxi!/walk"]) == ("COMPLETED", "COMPLETED", "COMPLETED")
    assert [states[f"poll[{index}]/ask"] for index in range(3)] == ["COMPLETED"] * 3
    assert (steps["poll[1]"].kind, steps["hotel!compensate"].kind) == ("iteration", "compensation")
    assert '"way":"NO_TAXI"' in steps["poll[2]/ask"].input.json or not steps["poll[2]/ask"].HasField("input")
    assert [event.step_id for event in events if event.HasField("compensation_began")] == ["way/train", "hotel"]
    assert {step.attempts for step in steps.values() if step.handler} == {1}, "no attempt was made twice"
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report
