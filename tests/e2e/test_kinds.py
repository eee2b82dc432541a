"""Kinds of steps that call nothing, through the whole system and over the death of whoever had the run."""

import asyncio
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Client
from tierflow.errors import ExecutionFailed, NotFound
from tierflow_contracts.common.v1.state_pb2 import RunState
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

ROOT = pathlib.Path(__file__).parents[2]
MakeStack = Callable[..., Stack]


async def suspended(client: Client, run_id: str) -> Any:
    """The run, once it does nothing but wait."""

    async def look() -> Any:
        try:
            run = await client.get_run(run_id)
        except NotFound:  # Tier 2 has not taken it yet
            return None
        return run if run.state == RunState.RUN_STATE_SUSPENDED else None

    return await eventually(look)


async def test_a_wait_over_the_death_of_its_orchestrator(make_stack: MakeStack) -> None:
    """E13, R15, K7: while it waits nobody owns the run; the orchestrator is killed, and the timer fires once, at its moment."""
    stack = make_stack(orchestrators=2, handlers=["tierflow_executor.handlers"])
    flow = {
        "name": "waits",
        "version": "1",
        "steps": {
            "before": {"call": "echo", "with": {"n": 1}},
            "pause": {"wait": "6s", "needs": ["before"]},
            "after": {"call": "echo", "with": {"n": 2}, "needs": ["pause"]},
        },
        "output": "${{ steps.after.output.n }}",
    }
    async with Client(stack.address, patience=60) as client:
        handle = await client.submit(flow)
        run = await suspended(client, handle.run_id)
        assert run.reason == "TIMER: pause"
        due = run.wake_at.ToMicroseconds() / 1e6
        for orchestrator in stack.orchestrators:
            orchestrator.kill()
        await asyncio.to_thread(stack.orchestrators[1].start)
        assert await handle.result(60) == 2
        assert due <= time.time()
        steps = {step.step_id: step async for step in client.steps(handle.run_id)}
        assert steps["pause"].ended_at.ToMicroseconds() / 1e6 >= due
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


async def test_the_example_with_a_switch(make_stack: MakeStack) -> None:
    """E13, C5: cases, a timer, the flow's own events in the journal and its own failure at the client, without any handler."""
    stack = make_stack()
    text = str(ROOT / "examples/refunds.yaml")
    async with Client(stack.address, patience=60) as client:
        for amount, chosen in ((12, ["pay"]), (100, ["rest", "pay-later"])):
            handle = await client.submit(text, {"amount": amount})
            assert await handle.result(60) == {"chosen": chosen}
            told = [
                e.event_emitted
                for e in (await client.events(handle.id, handle.run_id)).events
                if e.HasField("event_emitted")
            ]
            assert [event.name for event in told] == ["refund.paid"]
            assert f'"amount":{amount}' in told[0].payload.json
        with pytest.raises(ExecutionFailed) as caught:
            await client.run(text, {"amount": 1000})
        assert caught.value.failure is not None
        assert caught.value.failure.cause.handler_code == "TOO_MUCH"
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report
