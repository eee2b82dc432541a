"""A document of the CNCF Serverless Workflow DSL through the whole system, over the death of whoever walks it."""

import asyncio
import pathlib
from collections.abc import Callable
from textwrap import dedent

import grpc
import pytest
from tierflow import Client
from tierflow.errors import TierflowError
from tierflow_contracts.common.v1.state_pb2 import RunState
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as rpc
from tierflow_testing.ports import free_port
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

MakeStack = Callable[..., Stack]
DOCUMENT = """
document: {{dsl: 1.0.3, namespace: test, name: whole, version: 1.0.0}}
do:
  - reach:
      try:
        - ask: {{call: http, with: {{method: get, endpoint: "http://127.0.0.1:{port}/{{path}}"}}}}
      catch:
        errors: {{with: {{type: "https://serverlessworkflow.io/spec/1.0.0/errors/communication"}}}}
        retry: {{delay: PT0.2S, limit: {{attempt: {{count: 1}}}}}}
        do:
          - note: {{set: {{status: "${{ $error.status }}"}}, export: {{as: "{{ status: .status }}"}}}}
  - each:
      for: {{each: word, in: '["a", "b"]'}}
      do:
        - say:
            run: {{shell: {{command: 'printf "%s-%s" "$1" "$(cat)"', stdin: "${{ $word }}", arguments: [said]}}}}
  - hear:
      listen: {{to: {{one: {{with: {{type: order.paid}}}}}}}}
      output: {{as: '.[0]'}}
  - twice: {{run: {{workflow: {{namespace: test, name: inner, version: 1.0.0, input: {{n: "${{ .amount }}"}}}}}}}}
  - answer: {{call: echo, with: {{status: "${{ $context.status }}", paid: "${{ .n }}", run: "${{ $workflow.id }}"}}}}
"""
INNER = """
document: {dsl: 1.0.3, namespace: test, name: inner, version: 1.0.0}
do: [{twice: {set: {n: "${ .n * 2 }"}}}]
"""


async def suspended(client: Client, run_id: str) -> bool:
    """Whether the run does nothing but wait."""
    states = [run.state async for run in client.runs() if run.context.run_id == run_id]
    return states == [RunState.RUN_STATE_SUSPENDED]


async def test_a_document_over_the_death_of_its_orchestrator(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """E1, E2, Q5, R16: a document runs in the three tiers as flows do; its position outlives whoever had it in memory."""
    stack = make_stack(orchestrators=1)
    path = tmp_path / "whole.yaml"
    path.write_text(dedent(DOCUMENT).format(port=free_port()))
    async with Client(stack.address, patience=60) as client:
        inner = tmp_path / "inner.yaml"
        inner.write_text(dedent(INNER))
        await client.register_flow(inner)
        handle = await client.submit(path, input={"path": "x"})
        await eventually(lambda: suspended(client, handle.run_id))
        stack.orchestrators[0].kill()
        await asyncio.to_thread(stack.orchestrators[0].start)
        assert await client.signal(handle.id, "order.paid", {"amount": 5})
        assert await handle.result(60) == {"status": 503, "paid": 10, "run": handle.run_id}
        async with grpc.aio.insecure_channel(stack.orchestrators[0].address) as channel:
            request = pb.ListStepsRequest(run_id=handle.run_id)
            listed = await rpc.OrchestratorServiceStub(channel).ListSteps(request, timeout=60)
        steps = {step.step_id: step.kind for step in listed.steps}
        wanted = {
            "/do": "do",
            "/do/0/reach/try[1]/0/ask": "call",
            "/do/1/each/do[1]/0/say": "run",
            "/do/2/hear": "listen",
        }
        assert wanted.items() <= steps.items()
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(path.read_text().replace("call: echo", "call: grpc"))
        with pytest.raises(TierflowError, match="UNSUPPORTED: calls of grpc"):
            await client.submit(wrong, input={"path": "x"})
