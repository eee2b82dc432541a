"""Steering through the whole system: from the client to the run's owner, whoever that is, over the death of everybody who could be."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Client
from tierflow.errors import Conflict, ExecutionFailed, InvalidRequest, NotFound
from tierflow_contracts.common.v1.state_pb2 import RunState, StepState
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MakeStack = Callable[..., Stack]


def made(make_stack: MakeStack, **more: Any) -> Stack:
    environment = {
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
        )
    }
    return make_stack(
        handlers=["steering_handlers", "tierflow_executor.handlers"], executor_environment=environment, **more
    )


async def in_state(client: Client, run_id: str, state: str) -> Any:
    """The run, once it is in a state."""

    async def look() -> Any:
        try:
            run = await client.get_run(run_id)
        except NotFound:  # Tier 2 has not taken it yet
            return None
        return run if RunState.Name(run.state) == f"RUN_STATE_{state}" else None

    return await eventually(look)


def ran(path: pathlib.Path) -> list[str]:
    """Steps that were performed, in order."""
    noted = pathlib.Path(f"{path}.ran")
    return noted.read_text().split() if noted.exists() else []


def needing(path: pathlib.Path, **more: Any) -> dict[str, Any]:
    """A flow that fails in its middle as long as a file is not there."""
    return {
        "name": "needs",
        "version": "1",
        "vars": {"greeting": "hello"},
        "steps": {
            "a": {"call": "echo", "with": {"n": 1}},
            "b": {"call": "t.needs", "with": {"path": str(path), "value": 2}, "needs": ["a"]},
            "c": {"call": "echo", "with": {"of": "${{ steps.b.output }}"}, "needs": ["b"]},
        },
        "output": "${{ steps.c.output.of }}",
        **more,
    }


ASKED = {
    "name": "asked",
    "version": "1",
    "steps": {
        "change": {
            "signal": "change",
            "schema": {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
        },
        "look": {"call": "echo", "with": {"good": "${{ steps.change.output.amount < 10 }}"}, "needs": ["change"]},
        "reply": {
            "emit": "change.looked.at",
            "answer": "change",
            "with": {"accepted": "${{ steps.look.output.good }}"},
            "needs": ["change", "look"],
        },
    },
    "output": "${{ steps.change.output.amount }}",
}


def tierflow(stack: Stack, *arguments: str) -> Any:
    """What the command prints as JSON."""
    command = [sys.executable, "-m", "tierflow_cli.main", *arguments, "--address", stack.address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_retry_over_the_death_of_both_orchestrators(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """C9, R31, N8, Q9, S11, K7: FAILED to RUNNING in both tiers in generation 2, what completed is kept, over kill -9 of all who could have had the run; then the same results serve new runs."""
    stack = made(make_stack, orchestrators=2)
    path = tmp_path / "there"
    async with Client(stack.address, patience=60) as client:
        handle = await client.submit(needing(path))
        with pytest.raises(ExecutionFailed):
            await handle.result(60)
        plan = await client.plan_retry(handle.id)
        assert [(one.step_id, one.reason) for one in plan.executed] == [("b", "FAILED"), ("c", "CANCELLED")]
        assert (list(plan.reused), plan.attempts, list(plan.unknown)) == (["a"], 1, ["c"])
        path.touch()
        for orchestrator in stack.orchestrators:
            orchestrator.kill()
        retrying = asyncio.create_task(handle.retry("mended"))
        await asyncio.to_thread(stack.orchestrators[1].start)
        assert await retrying == 2
        assert await handle.result(60) == 2
        assert ran(path) == ["b", "b"]
        run = await client.get_run(handle.run_id)
        assert (run.context.generation, run.usage.attempts) == (2, 4)
        with pytest.raises(Conflict):
            await handle.retry()
        swarm_events = (await client.events(handle.id)).events
        ends = [event.WhichOneof("payload") for event in swarm_events if event.HasField("swarm_ended")]
        assert len(ends) == 2

        found = await handle.query({"greeting": "vars.greeting", "sum": "steps.a.output.n + 1", "bad": "steps.nope"})
        assert (found.state, found.generation, found.values) == ("COMPLETED", 2, {"greeting": "hello", "sum": 2})
        assert "nope" in found.errors["bad"]
        assert found.outputs["b"] == 2

        again = await handle.rerun("c")
        assert await again.result(60) == 2
        assert ran(path) == ["b", "b"]
        forked = await handle.fork("a")
        assert await forked.result(60) == 2
        assert ran(path) == ["b", "b", "b"]
        replayed = tierflow(stack, "replay", handle.id, "--json")["swarm_id"]
        assert await client.handle(replayed).result(60) == 2
        assert len(ran(path)) == 4
        steps = {step.step_id: step async for step in client.steps((await again.describe()).run_ids[0])}
        assert {name: step.reused_from != "" for name, step in steps.items()} == {"a": True, "b": True, "c": False}
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


async def test_pausing_skipping_stepping_changing(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """G6, C12, N8, S6, Q14, Q21, I14: interrupted attempts start again and do not count; a step is skipped; breakpoints hold; limits change at once; receipts say what became of what; batches."""
    stack = made(make_stack, orchestrators=1)
    begun = tmp_path / "begun"
    long = {"call": "t.long", "with": {"path": str(begun), "seconds": 280}, "retry": {"max_attempts": 1}}
    flow = {
        "name": "steered",
        "version": "1",
        "concurrency": 1,
        "steps": {
            "a": long,
            "b": long,
            "z": {"call": "echo", "with": {"got": "${{ steps.a.output }}"}, "needs": ["a"]},
        },
    }

    def begun_steps() -> list[str]:
        return begun.read_text().split() if begun.exists() else []

    async with Client(stack.address, patience=60) as client:
        handle = await client.submit(flow, labels={"team": "x"})
        await eventually(lambda: _is(begun_steps() == ["a"]))
        assert await handle.pause("now", interrupt=True)
        await in_state(client, handle.run_id, "PAUSED")
        steps = {step.step_id: step async for step in client.steps(handle.run_id)}
        assert steps["a"].state == StepState.STEP_STATE_READY
        assert await handle.resume()
        await eventually(lambda: _is(begun_steps() == ["a", "b"]))
        assert await handle.update(concurrency=2, expected_version=0, reason="more") == 1
        await eventually(lambda: _is(sorted(begun_steps()) == ["a", "a", "b"]))
        await handle.set_breakpoints("z")
        assert await handle.skip("a", {"by": "hand"})
        found = await eventually(lambda: _at_breakpoint(client, handle.run_id))
        assert found.reason == "BREAKPOINT: z"
        tierflow(stack, "breakpoints", handle.id, "--json")
        dry = tierflow(stack, "steer", "cancel", "--label", "team=x", "--state", "running", "--dry-run", "--json")
        assert [one["swarm_id"] for one in dry] == [handle.id]
        receipt = await client.receipt(handle.id, "enough")
        assert [one.step_id for one in receipt.attempts] == ["b"]
        assert receipt.attempts[0].state == run_pb2.ATTEMPT_RECEIPT_STATE_CONFIRMED
        assert (receipt.open, receipt.spent_since.credits, receipt.reason) == (0, 7, "enough")
        history = (await client.events(handle.id, handle.run_id)).events
        told = [event.command_received.command for event in history if event.HasField("command_received")]
        assert told == ["interrupt", "resume", "update", "breakpoints", "skip", "breakpoints", "cancel"]
        assert all(event.command_received.actor for event in history if event.HasField("command_received"))

        slow = {"name": "two", "version": "1", "steps": {"w": {"signal": "go"}, "x": {"call": "echo", "needs": ["w"]}}}
        other = await client.submit({**slow, "version": "1"})
        await in_state(client, other.run_id, "SUSPENDED")
        await other.pause()
        await in_state(client, other.run_id, "PAUSED")
        newer = {**slow, "version": "2", "steps": {**slow["steps"], "y": {"call": "echo", "needs": ["x"]}}}
        difference = await client.migrate(other.id, newer, check=True)
        assert (list(difference.added), difference.to_version) == (["y"], "2")
        await client.migrate(other.id, newer)
        await other.resume()
        assert await client.signal(other.id, "go")
        assert sorted(await other.result(60)) == ["y"]

        asked = await client.submit(ASKED)
        with pytest.raises(InvalidRequest):
            await asked.ask("change", {"amount": "much"})
        answer = await asked.ask("change", {"amount": 20}, signal_id="q1")
        assert (answer.value, answer.step_id) == ({"accepted": False}, "reply")
        assert (await asked.ask("change", {"amount": 20}, signal_id="q1")).value == {"accepted": False}
        assert await asked.result(60) == 20

        failing = [await client.submit(needing(tmp_path / "never"), labels={"batch": "1"}) for _ in range(3)]
        for one in failing:
            with pytest.raises(ExecutionFailed):
                await one.result(60)
        (tmp_path / "never").touch()
        outcomes = [one async for one in client.steer_many("retry", labels={"batch": "1"}, states=["FAILED"])]
        assert sorted(one.swarm_id for one in outcomes if one.applied) == sorted(one.id for one in failing)
        for one in failing:
            assert await client.handle(one.id).result(60) == 2
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


async def _is(fact: bool) -> bool:
    return fact


async def _at_breakpoint(client: Client, run_id: str) -> Any:
    run = await client.get_run(run_id)
    return run if run.reason.startswith("BREAKPOINT") else None
