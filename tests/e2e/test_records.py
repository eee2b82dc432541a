"""What is in Postgres, and nowhere else: everything that a restart of the whole system needs."""

import asyncio
import pathlib
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from tierflow import Client, Event, ExecutionFailed
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1.coordinator_service_pb2 import GetQueueResponse
from tierflow_contracts.events.v1 import event_pb2
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

THREE: dict[str, Any] = {
    "name": "three",
    "version": "1",
    "steps": {
        "first": {"call": "echo", "with": {"n": 1}},
        "second": {"call": "sleep", "needs": ["first"], "with": {"seconds": "${{ input.seconds }}"}},
        "third": {"call": "echo", "needs": ["second"], "with": {"n": "${{ steps.first.output.n + 1 }}"}},
    },
    "output": "${{ steps.third.output }}",
}
HELD: dict[str, Any] = {
    **THREE,
    "name": "held",
    "steps": {
        **THREE["steps"],
        "second": {"call": "t.gate", "needs": ["first"], "with": {"path": "${{ input.gate }}"}},
    },
}
FAILING = {
    "name": "failing",
    "version": "1",
    "steps": {
        "first": {"call": "echo", "with": {"n": 1}},
        "second": {
            "call": "shell.run",
            "needs": ["first"],
            "with": {"command": "exit 3"},
            "retry": {"max_attempts": 1},
        },
        "third": {"call": "echo", "needs": ["second"]},
    },
}


async def _reached(client: Client, swarm_id: str, kind: str, step_id: str) -> None:
    async for event in client.watch(swarm_id):
        if isinstance(event, Event) and (event.type, event.step_id) == (kind, step_id):
            return


async def _facts(connection: Any, run_id: str) -> list[tuple[str, str]]:
    """Kind and step of each event of a run, as they stand in the journal."""
    rows = await connection.fetch("SELECT data FROM orchestrator.journal WHERE entity_id = $1 ORDER BY seq", run_id)
    events = [event for row in rows for event in event_pb2.EventBatch.FromString(row["data"]).events]
    return [(event.WhichOneof("payload") or "", event.step_id) for event in events]


def _numbers(queue: GetQueueResponse) -> dict[str, int]:
    names = ("total", "queued", "running", "paused", "stopping", "completed", "failed", "cancelled")
    runs = {state_pb2.RunState.Name(each.state).replace("PAUSING", "PAUSED"): each.count for each in queue.runs.runs}
    return {name: getattr(queue, name) for name in names} | runs


async def test_everything_dies_at_once(make_stack: Callable[..., Stack], tmp_path: pathlib.Path) -> None:
    """I3, I6, K7, Lesson 25, Lesson 41: kill -9 of every service, Postgres and NATS, and the event store is lost too: all is as it was, and goes on.

    The step that ran and those that had ended stand in Postgres while nothing else lives; afterwards the queue has the same numbers, which are counts of that
    one store, and the event stream is whole again.
    """
    gate = tmp_path / "gate"
    stack = make_stack(
        own_servers=True,
        handlers=["gate_handlers"],
        orchestrator_environment={"TIERFLOW_EXECUTOR_LOST_SECONDS": "2"},
        executor_environment={"PYTHONPATH": str(pathlib.Path(__file__).parent)},
    )
    async with Client(stack.address, patience=60) as client:
        for number in range(3):
            await client.run(THREE, {"seconds": number / 100})
        with pytest.raises(ExecutionFailed):
            await client.run(FAILING, {})
        running, paused, cancelled = [await client.submit(HELD, {"gate": str(gate)}) for _ in range(3)]
        for handle in (running, paused, cancelled):
            await _reached(client, handle.id, "step_started", "second")
        await paused.pause()
        await cancelled.cancel()
        await cancelled.wait(60)
        expected = {"total": 2, "running": 1, "paused": 1, "completed": 3, "failed": 1, "cancelled": 1}

        async def counted() -> dict[str, int] | None:
            numbers = _numbers(await client.queue())
            return numbers if expected.items() <= numbers.items() else None

        before = await eventually(counted)
        await asyncio.to_thread(_kill_all, stack)
        await asyncio.to_thread(stack.postgres.start)
        connection = await asyncpg.connect(stack.database_url)
        facts = await _facts(connection, running.run_id)
        assert facts[0] == ("run_created", "")
        assert ("step_completed", "first") in facts
        assert facts[-1] == ("step_started", "second")
        assert not [fact for fact in facts if fact[1] == "third"]
        states = dict(await connection.fetch("SELECT state, count(*) FROM coordinator.entity GROUP BY state"))
        assert states == {"COMPLETED": 3, "FAILED": 1, "STOPPED": 1, "RUNNING": 1, "PAUSING": 1}
        await connection.close()

        await asyncio.to_thread(stack.start)
        assert await eventually(counted) == before
        resumed = await eventually(lambda: _resumed(client, paused.id))
        assert resumed
        gate.touch()
        assert await running.result(120) == {"n": 2}
        assert await paused.result(120) == {"n": 2}
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.problems == []
    assert report.counts["events_published"] == report.counts["events"]


async def _resumed(client: Client, swarm_id: str) -> bool:
    return await client.resume(swarm_id)


def _kill_all(stack: Stack) -> None:
    for service in stack.services:
        service.kill()
    stack.postgres.kill()
    stack.nats.kill()
    stack.nats.wipe()


async def test_a_failed_run_is_recorded_in_full(stack: Stack) -> None:
    """I4, I1, I2, F22: a run that failed has the record that others have: times, usage, input, each step with its state, and the failure with its causes."""
    async with Client(stack.address, patience=60) as client:
        good = await client.submit(THREE, {"seconds": 0.01})
        await good.result(60)
        bad = await client.submit(FAILING, {"why": "to see it"})
        with pytest.raises(ExecutionFailed):
            await bad.result(60)
        records = [await client.get_run(handle.run_id) for handle in (good, bad)]
        names = [{field.name for field, _ in record.ListFields()} for record in records]
        assert names[1] - names[0] == {"failure"}
        assert names[0] - names[1] <= {"output"}
        failed = records[1]
        assert failed.state == state_pb2.RUN_STATE_FAILED
        assert (
            failed.created_at.ToMicroseconds() <= failed.started_at.ToMicroseconds() <= failed.ended_at.ToMicroseconds()
        )
        assert (failed.usage.steps, failed.usage.attempts) == (2, 2)
        steps = {step.step_id: step async for step in client.steps(bad.run_id, payloads=True)}
        assert steps["first"].state == state_pb2.STEP_STATE_COMPLETED
        assert steps["second"].state == state_pb2.STEP_STATE_FAILED
        assert steps["third"].state in (state_pb2.STEP_STATE_SKIPPED, state_pb2.STEP_STATE_CANCELLED)
        assert steps["second"].failure.code
        assert steps["second"].failure.tier
        history = await client.events(bad.id, bad.run_id)
        kinds = [event.WhichOneof("payload") for event in history.events]
        assert kinds[0] == "run_created"
        assert kinds[-1] == "run_ended"
        assert kinds.count("step_failed") == 1
        assert [event.seq for event in history.events] == list(range(1, len(kinds) + 1))
