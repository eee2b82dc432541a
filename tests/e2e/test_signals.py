"""Signals through the whole system: any replica, over the death of whoever had the run."""

import asyncio
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable

import grpc
import pytest
from tierflow import Client
from tierflow.errors import InvalidRequest
from tierflow_contracts.common.v1.state_pb2 import RunState
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as rpc
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

ROOT = pathlib.Path(__file__).parents[2]
MakeStack = Callable[..., Stack]


async def suspended(client: Client, run_id: str) -> bool:
    """Whether the run does nothing but wait."""
    states = [run.state async for run in client.runs() if run.context.run_id == run_id]
    return states == [RunState.RUN_STATE_SUSPENDED]


async def test_signals_over_the_death_of_both_orchestrators(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """Q5, R14, R15, K7: a run waits, everybody who could have had it is killed, and the signal finds it through either replica, once."""
    stack = make_stack(orchestrators=2)
    text = str(ROOT / "examples/payment.yaml")
    async with Client(stack.address, patience=60) as client:
        one, two, three = [await client.submit(text) for _ in range(3)]
        for handle in (one, two, three):
            await eventually(lambda run_id=handle.run_id: suspended(client, run_id))
        for orchestrator in stack.orchestrators:
            orchestrator.kill()
        for orchestrator in stack.orchestrators:
            await asyncio.to_thread(orchestrator.start)
        with pytest.raises(InvalidRequest, match="amount"):
            await client.signal(one.id, "payment.received", {})
        with pytest.raises(InvalidRequest, match="waits for no signal"):
            await client.signal(one.id, "payment.sent", {})
        assert await client.signal(one.id, "payment.received", {"amount": 1}, signal_id="first")
        assert await one.result(60) == {"amount": 1}
        for orchestrator in stack.orchestrators:
            async with grpc.aio.insecure_channel(orchestrator.address) as channel:
                request = pb.SignalRunRequest(run_id=two.run_id, name="payment.received", signal_id="same", actor="a")
                request.payload.json = '{"amount": 2}'
                await rpc.OrchestratorServiceStub(channel).SignalRun(request, timeout=60)
        assert await two.result(60) == {"amount": 2}
        command = [sys.executable, "-m", "tierflow_cli.main", "signal", three.id, "payment.received", '{"amount": 3}']
        done = await asyncio.to_thread(
            subprocess.run, [*command, "--address", stack.address, "--json"], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["applied"] is True
        assert await three.result(60) == {"amount": 3}
        history = (await client.events(two.id, two.run_id)).events
        assert [e.signal_received.signal_id for e in history if e.HasField("signal_received")] == ["same"]
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report
