"""The clients: they submit, repeat, steer and wait, each through whichever replica, until everything has ended."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from tierflow_contracts.common.v1 import execution_pb2, flow_pb2, payload_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as stubs
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as orchestrator_stubs
from tierflow_runtime.errors import failure_of
from tierflow_runtime.wire import SWARM_STATES

from simulation.channels import EOF, SimChannel
from simulation.committed import short
from simulation.orders import Orders
from simulation.plans import PLANS
from simulation.processes import address
from simulation.scenario import Swarm
from simulation.steered_flows import TEXTS

_PATIENT = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED,
}  # fmt: skip
"""What a client tries again."""


class Clients(Orders):
    """All clients, in one process that never fails."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.chance = random.Random(f"clients {world.seed}")
        self.channels: dict[str, SimChannel] = {}
        self.accepted: dict[int, str] = {}
        """Swarm ids by the swarm's number in the scenario."""
        self.runs: dict[int, str] = {}
        """Their runs."""
        self.results: dict[int, str] = {}
        self.generations: dict[str, int] = {}
        """By swarm: the generation that somebody was told of."""
        self.registered = asyncio.Event()
        self.open = len(world.scenario.swarms)
        self.tasks: list[asyncio.Future[None]] = []

    def start(self) -> None:
        lives = [self._swarm(swarm) for swarm in self.world.scenario.swarms]
        self.tasks = [asyncio.ensure_future(life) for life in (*lives, self._register(), self._care())]
        for task in self.tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.defect(f"client: {error!r}", error)

    # --- one swarm ---

    async def _swarm(self, swarm: Swarm) -> None:
        await asyncio.sleep(swarm.at)
        if swarm.steered:
            await self.registered.wait()
        if swarm.streamed:
            await self._stream(swarm)
        else:
            tries = [self._submit(swarm) for _ in range(2 if swarm.twice else 1)]
            await asyncio.gather(*tries)
        steering = [asyncio.ensure_future(self._steer(swarm, order)) for order in swarm.orders]
        people = asyncio.ensure_future(self._people(swarm)) if swarm.steered else None
        if people is not None:
            people.add_done_callback(self._ended)
        await self._wait(swarm.number)
        await asyncio.gather(*steering)
        await self._retried(swarm)
        if people is not None:
            people.cancel()
        self.open -= 1

    def _request(self, swarm: Swarm) -> swarm_pb2.SwarmExecutionRequest:
        request = swarm_pb2.SwarmExecutionRequest(
            context=execution_pb2.ExecutionContext(request_id=f"request-{swarm.number}", correlation_id=f"s{swarm.number}"),
            input=swarm_pb2.SwarmInput(
                flow=swarm_pb2.FlowPlan(
                    flow=flow_pb2.FlowRef(source=flow_pb2.FlowSource(json=TEXTS[swarm.flow])), input=payload_pb2.Payload(json="{}")
                )
            ),
        )  # fmt: skip
        if swarm.plan >= 0:
            request.input.fixed.CopyFrom(PLANS[swarm.plan])
        if swarm.credits is not None:
            request.allocation.credits = swarm.credits
        if swarm.timeout is not None:
            request.options.timeout.FromMicroseconds(int(swarm.timeout * 1e6))
        return request

    async def _submit(self, swarm: Swarm) -> None:
        while True:
            try:
                answer = await self._stub().SubmitSwarm(self._request(swarm), timeout=4.0)
            except grpc.aio.AioRpcError as error:
                await self._patience(error, f"submit {swarm.number}")
                continue
            self._taken(swarm, answer)
            return

    def _taken(self, swarm: Swarm, answer: Any) -> None:
        swarm_id = answer.swarm_id
        self.runs[swarm.number] = answer.run_id
        before = self.accepted.setdefault(swarm.number, swarm_id)
        self.world.note("client", f"swarm {swarm.number} is {short(swarm_id)}")
        self.world.checks.expect(
            before == swarm_id, "V27", f"request-{swarm.number} made {short(before)} and {short(swarm_id)}"
        )

    async def _stream(self, swarm: Swarm) -> None:
        """Over the stream of batches: until it is answered; the result may come on it as well."""
        while swarm.number not in self.accepted:
            call = self._stub().ExecuteSwarms()
            try:
                await call.write(api.ExecuteSwarmsRequest(execute=[self._request(swarm)]))
                while (frame := await asyncio.wait_for(call.read(), 5.0)) is not EOF:
                    if self._streamed(swarm, frame):
                        break
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
                await asyncio.sleep(0.1 + self.chance.random() * 0.4)
            finally:
                call.cancel()

    def _streamed(self, swarm: Swarm, frame: Any) -> bool:
        over = False
        for answer in frame.answers:
            if answer.HasField("accepted"):
                self._taken(swarm, answer.accepted)
                over = self.chance.random() < 0.5
        for result in frame.results:
            self.results[swarm.number] = SWARM_STATES.name(result.state)
            over = True
        return over

    async def _wait(self, number: int) -> None:
        swarm_id = self.accepted[number]
        while True:
            try:
                request = api.WaitSwarmRequest(swarm_id=swarm_id, timeout=Duration(seconds=3))
                answer = await self._stub().WaitSwarm(request, timeout=5.0)
            except grpc.aio.AioRpcError as error:
                await self._patience(error, f"wait {number}")
                continue
            if answer.ended:
                self._told(number, swarm_id, answer.swarm)
                return

    def _told(self, number: int, swarm_id: str, swarm: Any) -> None:
        state = SWARM_STATES.name(swarm.state)
        self.world.note("client", f"swarm {short(swarm_id)} ended {state}")
        told = self.results.setdefault(number, state)
        expect = self.world.checks.expect
        expect(told == state, "V26", f"swarm {short(swarm_id)} was said to be {told}, then {state}")
        known = self.generations.get(swarm_id, 1)
        expect(
            swarm.context.generation >= known,
            "V26",
            f"swarm {short(swarm_id)} is said to have ended in a generation before {known}",
        )

    # --- replicas ---

    def _stub(self) -> Any:
        return stubs.CoordinatorServiceStub(self._channel(self.chance.choice(self.world.names("c"))))

    def _runs_stub(self) -> Any:
        name = self.chance.choice(self.world.names("o"))
        return orchestrator_stubs.OrchestratorServiceStub(self._channel(name))  # type: ignore[no-untyped-call]

    def _channel(self, name: str) -> SimChannel:
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = SimChannel(self.world.network, address(name))
        return channel

    async def _patience(self, error: grpc.aio.AioRpcError, what: str) -> None:
        if error.code() not in _PATIENT:
            told = failure_of(error)
            self.world.defect(f"client: {what}: {error.code().name} {told.code}: {told.message}", error)
        await asyncio.sleep(0.05 + self.chance.random() * 0.4)
