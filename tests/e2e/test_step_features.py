"""What steps can have, through the whole system: joins, stored results, secrets, variables, checks; over the death of the orchestrator."""

import asyncio
import json
import pathlib
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from tierflow import Client
from tierflow.errors import ExecutionFailed
from tierflow_contracts.common.v1.state_pb2 import StepState
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack

MakeStack = Callable[..., Stack]
CANARY = "canary-71f0c3e5b2"
FLOW: dict[str, Any] = {
    "name": "features",
    "version": "1",
    "secrets": ["TOKEN"],
    "merge": {"seen": "append"},
    "input": {"path": {"type": "string"}, "n": {"type": "integer"}},
    "steps": {
        "noted": {
            "call": "t.note",
            "with": {"path": "${{ input.path }}", "number": "${{ input.n }}"},
            "cache": {"key": "${{ input.n }}", "ttl": "1h"},
            "set": {"seen": "${{ output }}"},
            "validate": ["output < 1000"],
        },
        "fast": {"call": "echo", "with": {"auth": "Bearer ${{ secrets.TOKEN }}"}, "set": {"seen": "fast"}, "needs": "noted"},
        "slow": {"call": "t.slow", "with": {"seconds": 600}, "needs": "noted", "timeout": "15m"},
        "first": {
            "needs": ["fast", "slow"],
            "join": "any",
            "call": "echo",
            "with": {"seen": "${{ vars.seen }}", "auth": "${{ steps.fast.output.auth }}", "slow": "${{ steps.slow.state }}"},
        },
    },
    "output": "${{ steps.first.output }}",
}  # fmt: skip


async def everything_stored(stack: Stack) -> bytes:
    """All that the journals and the other tables of both tiers hold."""
    connection = await asyncpg.connect(stack.postgres.admin_url(stack.options.database))
    tables = await connection.fetch(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN ('orchestrator', 'coordinator') AND table_type = 'BASE TABLE'"
    )
    found = []
    for table in tables:
        rows = await connection.fetch(f'SELECT * FROM {table["table_schema"]}."{table["table_name"]}"')
        found.extend(bytes(value) if isinstance(value, bytes) else str(value).encode() for row in rows for value in row)
    await connection.close()
    return b"\n".join(found)


async def test_features_of_steps(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """E7, E9, L16, Q15, S6: the loser is really stopped long before its time; the second run takes the result over, with its orchestrator new; the secret is nowhere."""
    stack = make_stack(
        handlers=["tierflow_executor.handlers", "executor_handlers"],
        executor_environment={"TIERFLOW_SECRET_TOKEN": CANARY, "PYTHONPATH": str(pathlib.Path(__file__).parent)},
    )
    path = tmp_path / "noted"
    given = {"path": str(path), "n": 7}
    expected = {"seen": [7, "fast"], "auth": "Bearer ***", "slow": "CANCELLED"}
    async with Client(stack.address, patience=60) as client:
        handle = await client.submit(FLOW, given)
        assert await handle.result(90) == expected
        steps = {step.step_id: step async for step in client.steps(handle.run_id)}
        assert steps["slow"].state == StepState.STEP_STATE_CANCELLED
        stack.orchestrators[0].kill()
        await asyncio.to_thread(stack.orchestrators[0].start)
        again = await client.submit(FLOW, given)
        assert await again.result(90) == expected
        steps = {step.step_id: step async for step in client.steps(again.run_id)}
        assert (steps["noted"].cached.run_id, steps["noted"].attempts) == (handle.run_id, 0)
        assert path.read_text().splitlines() == ["7"]
        with pytest.raises(ExecutionFailed) as caught:
            await client.run({**FLOW, "name": "mismatch"}, {**given, "n": 2000})
        assert "OUTPUT_INVALID" in str(caught.value.failure)
        text = json.dumps({"path": str(path), "number": "many"})
        wrong = {"name": "wrong", "steps": {"a": {"call": "t.note", "with": json.loads(text)}}}
        with pytest.raises(ExecutionFailed) as caught:
            await client.run(wrong)
        assert "INPUT_INVALID" in str(caught.value.failure)
        assert "input.number" in str(caught.value.failure)
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report
    stored = await everything_stored(stack)
    logs = b"".join(file.read_bytes() for file in (stack.directory / "logs").iterdir())
    assert b"secret:TOKEN" in stored
    assert CANARY.encode() not in stored + logs
