"""What hostile calls refer to: a small population of real swarms, runs and flows, and valid requests about them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from tierflow_contracts.common.v1 import flow_pb2, peer_service_pb2, state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as api_rpc
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as ex
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orc
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.ids import uuid7
from tierflow_runtime.channels import open_channel
from tierflow_runtime.requests import run_request, step_request
from tierflow_runtime.values import Allocation, Context, Options

from tierflow_testing.stack import Stack

FLOW = 'name: fuzzed\nversion: "1"\nsteps:\n  a:\n    call: echo\n    with: {given: "${{ input }}"}\n  b: {call: echo, with: {n: "${{ steps.a.output }}"}}\noutput: ${{ steps.b.output }}\n'
SLOW = 'name: fuzzed-slow\nversion: "1"\nsteps:\n  a: {call: sleep, with: {seconds: 3000}, timeout: 1h}\n'
FAILING = 'name: fuzzed-failing\nversion: "1"\nsteps:\n  a: {call: echo, with: {x: "${{ input.nothing }}"}}\n'
CANARY_WITHIN = 60.0
"""Seconds in which a swarm must complete however much nonsense was sent before."""


@dataclass(slots=True)
class World:
    """The system under test, and what is in it."""

    addresses: Mapping[str, str]
    """By tier: coordinator, orchestrator, executor."""
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    pools: dict[str, list[str]] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    """Swarms that are not hostile: the population, and the canaries."""

    @classmethod
    def of(cls, stack: Stack) -> World:
        """The world of a running stack."""
        first = {
            "coordinator": stack.coordinators[0],
            "orchestrator": stack.orchestrators[0],
            "executor": stack.executors[0],
        }
        return cls({tier: service.address for tier, service in first.items()})

    async def open(self) -> None:
        """Connects, and makes the population."""
        for tier, address in self.addresses.items():
            self.channels[tier] = open_channel(address)
        await self._until_ready()
        ids = [
            await self.submit(FLOW, "{}"),
            await self.submit(FAILING, "{}"),
            await self.submit(SLOW, "{}"),
            await self.submit(SLOW, "{}"),
        ]
        client = self.client
        for answer in ids[:2]:
            await client.WaitSwarm(api.WaitSwarmRequest(swarm_id=answer.swarm_id), timeout=60)
        await client.PauseSwarm(api.PauseSwarmRequest(swarm_id=ids[3].swarm_id))
        flow = (await client.RegisterFlow(api.RegisterFlowRequest(source=flow_pb2.FlowSource(yaml=FLOW)))).flow
        content = b"fuzzed"
        digest = hashlib.sha256(content).hexdigest()
        put = [orc.PutBlobRequest(sha256=digest), orc.PutBlobRequest(chunk=content)]
        await self.unary("orchestrator", "tierflow.orchestrator.v1.BlobService", "PutBlob", put, orc.PutBlobResponse)
        self.pools = {
            "swarm_id": [answer.swarm_id for answer in ids], "attach": [answer.swarm_id for answer in ids], "run_id": [answer.run_id for answer in ids],
            "name": ["fuzzed", "echo"], "flow_name": ["fuzzed"], "version": ["1"], "hash": [flow.hash], "sha256": [digest], "step_id": ["a", "b"],
            "handler": ["echo"], "yaml": [FLOW, SLOW, FAILING], "user_id": ["dev"], "tenant": ["default"], "media_type": ["application/json"],
        }  # fmt: skip

    async def rest(self) -> None:
        """Ends what would run for long."""
        for swarm_id in self.pools.get("swarm_id", ()):
            await self.client.StopSwarm(api.StopSwarmRequest(swarm_id=swarm_id, mode=api.STOP_MODE_FORCE), timeout=60)

    async def close(self) -> None:
        """Closes the connections."""
        for channel in self.channels.values():
            await channel.close(None)

    @property
    def client(self) -> Any:
        """Stub of Tier 1."""
        return api_rpc.CoordinatorServiceStub(self.channels["coordinator"])

    async def submit(self, yaml: str, given: str) -> Any:
        """Submits a swarm."""
        answer = await self.client.SubmitSwarm(swarm(yaml, given), timeout=CANARY_WITHIN)
        self.own.add(answer.swarm_id)
        return answer

    async def canary(self) -> float:
        """Seconds that one swarm takes from submission to its result. Raises AssertionError where it does not complete as it should."""
        began = time.monotonic()
        answer = await self.submit(FLOW, '{"canary": 1}')
        ended = await self.client.WaitSwarm(api.WaitSwarmRequest(swarm_id=answer.swarm_id), timeout=CANARY_WITHIN)
        assert ended.ended, ended
        assert ended.swarm.state == state_pb2.SWARM_STATE_COMPLETED, ended
        return time.monotonic() - began

    async def unary(self, tier: str, service: str, method: str, frames: Sequence[Message], answer: Any) -> Any:
        """Any method, with any number of messages."""
        call = self.channels[tier].stream_stream(
            f"/{service}/{method}", request_serializer=None, response_deserializer=answer.FromString
        )

        async def sending() -> Any:
            for frame in frames:
                yield frame.SerializeToString()

        return [each async for each in call(sending(), timeout=60)]

    async def _until_ready(self) -> None:
        for _ in range(600):
            try:
                if (await self.client.ListExecutors(api.ListExecutorsRequest(), timeout=30)).executors:
                    return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.1)
        raise AssertionError("no executor appeared within a minute")


def swarm(yaml: str, given: str, request_id: str = "") -> swarm_pb2.SwarmExecutionRequest:
    """A request for a swarm of one flow."""
    request = swarm_pb2.SwarmExecutionRequest()
    request.context.request_id = request_id
    request.input.flow.flow.source.yaml = yaml
    request.input.flow.input.json = given
    request.options.priority = 1
    request.allocation.credits = 1_000_000
    return request


def context(**more: Any) -> Context:
    """A context of something new."""
    return Context(
        tenant="default",
        user_id="dev",
        swarm_id=uuid7(),
        run_id=uuid7(),
        correlation_id="fuzzing",
        labels={"a": "b"},
        **more,
    )


def run(flow: flow_pb2.FlowRef) -> run_pb2.RunExecutionRequest:
    """A request for a run of its own."""
    return run_request(
        context(), flow, input='{"n": 1}', allocation=Allocation(credits=5), options=Options(timeout=60_000_000)
    )


def step() -> Any:
    """A request for an attempt."""
    about = context(step_id="a", attempt=1, attempt_id=uuid7(), idempotency_key="k", epoch=1)
    return step_request(
        about,
        "echo",
        input='{"n": 1}',
        allocation=Allocation(memory_bytes=1 << 30),
        options=Options(timeout=5_000_000),
        grant_token="g",
    )


def valid_requests(world: World) -> dict[str, Callable[[], Message]]:
    """By message type: makes a valid request. Types that are not named are valid when empty, or take an id from the pools."""
    pools = world.pools
    source = flow_pb2.FlowSource(yaml=FLOW)
    ref = flow_pb2.FlowRef(name="fuzzed", version="1")
    sid, rid = pools["swarm_id"], pools["run_id"]
    made: list[Callable[[], Message]] = [
        lambda: swarm(FLOW, '{"n": 1}', uuid7()),
        lambda: api.SubmitSwarmsRequest(requests=[swarm(FLOW, "{}"), swarm(FLOW, '{"n": 2}', uuid7())]),
        lambda: api.ExecuteSwarmsRequest(execute=[swarm(FLOW, "{}", uuid7())], attach=sid[:1]),
        lambda: api.ListSwarmsRequest(
            flow_name="fuzzed", page_size=3, labels={"a": "b"}, states=[state_pb2.SWARM_STATE_COMPLETED], user_id="dev"
        ),
        lambda: api.WaitSwarmRequest(swarm_id=sid[0], timeout=Duration(seconds=1)),
        lambda: api.WatchSwarmRequest(swarm_id=sid[0], include_progress=True),
        lambda: api.ListEventsRequest(swarm_id=sid[0], run_id=rid[0], after_seq=1, limit=10),
        lambda: api.StopSwarmRequest(
            swarm_id=sid[1], mode=api.STOP_MODE_GRACEFUL, reason="fuzzing", command_id=uuid7()
        ),
        lambda: api.ListRunsRequest(filter=orc.ListRunsRequest(swarm_id=sid[0], page_size=3)),
        lambda: api.ListStepsRequest(run_id=rid[0], step_id="a", page_size=1, page_token="1", include_payloads=True),
        lambda: api.RegisterFlowRequest(source=source),
        lambda: api.CheckFlowRequest(flow=flow_pb2.FlowRef(source=source)),
        lambda: api.GetFlowRequest(flow=ref),
        lambda: api.ListFlowsRequest(name="fuzzed", page_size=1),
        lambda: run(ref),
        lambda: orc.WaitRunRequest(run_id=rid[0], timeout=Duration(seconds=1)),
        lambda: orc.ListRunsRequest(swarm_id=sid[0], states=[state_pb2.RUN_STATE_COMPLETED], page_size=5),
        lambda: orc.ListStepsRequest(run_id=rid[0], page_size=1, include_payloads=True),
        lambda: orc.CommandRunRequest(
            run_id=rid[1], command=orc.RUN_COMMAND_PAUSE, command_id=uuid7(), reason="fuzzing", actor="dev"
        ),
        lambda: orc.ListRunEventsRequest(run_id=rid[0], after_seq=1, limit=5),
        lambda: orc.WatchRunRequest(run_id=rid[0], after_seq=1),
        lambda: orc.RegisterFlowRequest(source=source, anonymous=True),
        lambda: orc.CheckFlowRequest(flow=ref),
        lambda: orc.GetFlowRequest(flow=flow_pb2.FlowRef(hash=pools["hash"][0])),
        step,
        lambda: ex.CancelStepRequest(attempt_id=uuid7(), reason="fuzzing", run_id=rid[0]),
        lambda: peer_service_pb2.ForwardRequest(
            instance_id=uuid7(),
            commands=[peer_service_pb2.ForwardedCommand(entity_id=rid[0], command_id=uuid7(), command=b"{}")],
        ),
    ]
    return {make().DESCRIPTOR.full_name: make for make in made}
