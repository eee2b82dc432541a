"""Flows that run other flows, through the whole system and over the death of both orchestrators."""

import asyncio
import pathlib
from collections.abc import Callable

import pytest
from tierflow import Client
from tierflow.errors import ExecutionFailed, InvalidRequest
from tierflow_contracts.common.v1.state_pb2 import RunState
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MakeStack = Callable[..., Stack]
INNER = """
name: inner
input: {n: integer}
steps:
  go: {signal: go}
  twice: {call: echo, needs: go, with: {n: "${{ input.n * 2 }}"}}
output: {n: "${{ steps.twice.output.n }}"}
"""
OUTER = """
name: outer
input: {n: integer}
steps:
  one: {flow: inner@1, with: {n: "${{ input.n }}"}}
  two: {flow: inner, with: {n: "${{ input.n + 1 }}"}}
output: {sum: "${{ steps.one.output.n + steps.two.output.n }}"}
"""


async def children_of(client: Client, swarm_id: str, *states: str) -> list[str]:
    """Runs of a swarm that steps of other runs asked for."""
    runs = [run async for run in client.runs(swarm_id=swarm_id, states=states)]
    return sorted(run.context.run_id for run in runs if run.flow_name != "outer")


async def registered(client: Client, tmp_path: pathlib.Path, *texts: str) -> None:
    """Stores flows."""
    for number, text in enumerate(texts):
        path = tmp_path / f"flow{number}.yaml"
        path.write_text(text)
        await client.register_flow(str(path))


async def test_flows_within_flows(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """E12, Q7, K1, G11: children outlive whoever had them and their parent, are made once, and bring their results to it; a cancel goes down; a circle is refused."""
    stack = make_stack(orchestrators=2)
    async with Client(stack.address, patience=60) as client:
        await registered(client, tmp_path, INNER, OUTER)
        one = await client.submit("outer", {"n": 1})
        two = await client.submit("outer", {"n": 5})

        async def both(swarm_id: str, *states: str) -> bool:
            return len(await children_of(client, swarm_id, *states)) == 2

        for handle in (one, two):
            await eventually(lambda swarm_id=handle.id: both(swarm_id, "SUSPENDED"))
        for orchestrator in stack.orchestrators:
            orchestrator.kill()
        for orchestrator in stack.orchestrators:
            await asyncio.to_thread(orchestrator.start)
        for run_id in await children_of(client, one.id):
            assert await signal(stack, run_id)
        assert await one.result(60) == {"sum": 6}
        assert len(await children_of(client, one.id)) == 2
        assert await client.cancel(two.id)
        await eventually(lambda: both(two.id, "CANCELLED"))

        async def cancelled() -> bool:
            return (await client.get_run(two.run_id)).state == RunState.RUN_STATE_CANCELLED

        await eventually(cancelled)
        with pytest.raises(InvalidRequest, match="would run within itself: inner -> outer -> inner"):
            await registered(client, tmp_path, "name: inner\nversion: '2'\nsteps: {a: {flow: outer}}")
        await registered(client, tmp_path, "name: lost\nsteps: {a: {flow: nowhere}}")
        with pytest.raises(ExecutionFailed, match="no flow named 'nowhere'"):
            await client.run("lost")
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


async def signal(stack: Stack, run_id: str) -> bool:
    """Sends `go` to a run."""
    import grpc
    from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
    from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as rpc

    async with grpc.aio.insecure_channel(stack.orchestrators[0].address) as channel:
        request = pb.SignalRunRequest(run_id=run_id, name="go", signal_id=f"go-{run_id}")
        answer = await rpc.OrchestratorServiceStub(channel).SignalRun(request, timeout=60)
        return bool(answer.applied)
