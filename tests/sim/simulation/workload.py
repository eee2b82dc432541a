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
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as orchestrator_stubs
from tierflow_runtime.errors import failure_of
from tierflow_runtime.wire import RUN_STATES, SWARM_STATES

from simulation.channels import EOF, SimChannel
from simulation.committed import short
from simulation.flows import FLOWS
from simulation.processes import address
from simulation.scenario import FAULTS_UNTIL, Order, Swarm

_PATIENT = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED,
}  # fmt: skip
"""What a client tries again."""


class Clients:
    """All clients, in one process that never fails."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.chance = random.Random(f"clients {world.seed}")
        self.channels: dict[str, SimChannel] = {}
        self.accepted: dict[int, str] = {}
        """Swarm ids by the swarm's number in the scenario."""
        self.results: dict[int, str] = {}
        self.open = len(world.scenario.swarms)
        self.tasks: list[asyncio.Future[None]] = []

    def start(self) -> None:
        lives = [self._swarm(swarm) for swarm in self.world.scenario.swarms]
        self.tasks = [asyncio.ensure_future(life) for life in (*lives, self._care())]

    # --- one swarm ---

    async def _swarm(self, swarm: Swarm) -> None:
        await asyncio.sleep(swarm.at)
        if swarm.streamed:
            await self._stream(swarm)
        else:
            tries = [self._submit(swarm) for _ in range(2 if swarm.twice else 1)]
            await asyncio.gather(*tries)
        steering = [asyncio.ensure_future(self._steer(swarm, order)) for order in swarm.orders]
        await self._wait(swarm)
        await asyncio.gather(*steering)
        self.open -= 1

    def _request(self, swarm: Swarm) -> swarm_pb2.SwarmExecutionRequest:
        request = swarm_pb2.SwarmExecutionRequest(
            context=execution_pb2.ExecutionContext(request_id=f"request-{swarm.number}", correlation_id=f"s{swarm.number}"),
            input=swarm_pb2.SwarmInput(
                flow=swarm_pb2.FlowPlan(
                    flow=flow_pb2.FlowRef(source=flow_pb2.FlowSource(json=FLOWS[swarm.flow])), input=payload_pb2.Payload(json="{}")
                )
            ),
        )  # fmt: skip
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
            self._taken(swarm, answer.swarm_id)
            return

    def _taken(self, swarm: Swarm, swarm_id: str) -> None:
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
                self._taken(swarm, answer.accepted.swarm_id)
                over = self.chance.random() < 0.5
        for result in frame.results:
            self.results[swarm.number] = SWARM_STATES.name(result.state)
            over = True
        return over

    async def _steer(self, swarm: Swarm, order: Order) -> None:
        await asyncio.sleep(order.after)
        swarm_id = self.accepted[swarm.number]
        command_id = f"order-{swarm.number}-{order.number}"
        while True:
            self.world.note("client", f"{order.command} {short(swarm_id)}")
            try:
                answer = await self._tell(swarm_id, order.command, command_id)
            except grpc.aio.AioRpcError as error:
                await self._patience(error, f"{order.command} {swarm.number}")
                continue
            if answer.applied:
                self.world.checks.applied(swarm_id, command_id)
            return

    def _tell(self, swarm_id: str, command: str, command_id: str) -> Any:
        stub = self._stub()
        given = {"swarm_id": swarm_id, "command_id": command_id}
        if command == "pause":
            return stub.PauseSwarm(api.PauseSwarmRequest(**given), timeout=6.0)
        if command == "resume":
            return stub.ResumeSwarm(api.ResumeSwarmRequest(**given), timeout=6.0)
        if command == "cancel":
            return stub.CancelSwarm(api.CancelSwarmRequest(**given), timeout=6.0)
        mode = api.STOP_MODE_FORCE if command == "terminate" else api.STOP_MODE_GRACEFUL
        return stub.StopSwarm(api.StopSwarmRequest(mode=mode, **given), timeout=6.0)

    async def _wait(self, swarm: Swarm) -> None:
        swarm_id = self.accepted[swarm.number]
        while True:
            try:
                request = api.WaitSwarmRequest(swarm_id=swarm_id, timeout=Duration(seconds=3))
                answer = await self._stub().WaitSwarm(request, timeout=5.0)
            except grpc.aio.AioRpcError as error:
                await self._patience(error, f"wait {swarm.number}")
                continue
            if answer.ended:
                state = SWARM_STATES.name(answer.swarm.state)
                self.world.note("client", f"swarm {short(swarm_id)} ended {state}")
                told = self.results.setdefault(swarm.number, state)
                self.world.checks.expect(
                    told == state, "V26", f"swarm {short(swarm_id)} was said to be {told}, then {state}"
                )
                return

    # --- an operator ---

    async def _care(self) -> None:
        """Once nothing goes wrong any more: what is paused is resumed, what asks is answered."""
        number = 0
        while True:
            await asyncio.sleep(1.0)
            if self.world.now < FAULTS_UNTIL + 3.0:
                continue
            for swarm in self.world.scenario.swarms:
                swarm_id = self.accepted.get(swarm.number)
                if swarm_id is None:
                    continue
                number += 1
                try:
                    await self._look_after(swarm_id, f"care-{number}")
                except grpc.aio.AioRpcError:
                    continue

    async def _look_after(self, swarm_id: str, command_id: str) -> None:
        shown = (await self._stub().GetSwarm(api.GetSwarmRequest(swarm_id=swarm_id), timeout=3.0)).swarm
        state = SWARM_STATES.name(shown.state)
        if state == "PAUSED":
            await self._tell(swarm_id, "resume", command_id)
        elif state == "RUNNING" and shown.run_ids:
            stub = orchestrator_stubs.OrchestratorServiceStub(self._channel(self.chance.choice(self.world.names("o"))))
            run = (await stub.GetRun(orchestrator.GetRunRequest(run_id=shown.run_ids[0]), timeout=3.0)).run
            if RUN_STATES.name(run.state) in ("SUSPENDED", "PAUSED"):
                command = orchestrator.CommandRunRequest(
                    run_id=shown.run_ids[0],
                    command=orchestrator.RUN_COMMAND_RESUME,
                    command_id=command_id,
                    actor="operator",
                )
                await stub.CommandRun(command, timeout=3.0)

    # --- replicas ---

    def _stub(self) -> Any:
        return stubs.CoordinatorServiceStub(self._channel(self.chance.choice(self.world.names("c"))))

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
