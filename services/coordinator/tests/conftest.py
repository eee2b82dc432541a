"""A coordinator in this process, on a real port and a real database, with a scripted Tier 2 below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import grpc
import pytest
from tierflow_contracts.common.v1 import flow_pb2, payload_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as stubs
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_coordinator.app import Coordinator
from tierflow_coordinator.settings import CoordinatorSettings
from tierflow_runtime.supervision import Supervisor
from tierflow_runtime.telemetry import Telemetry, setup_telemetry
from tierflow_testing.fake_orchestrator import FakeOrchestrator

ENDED = {"SWARM_STATE_COMPLETED", "SWARM_STATE_FAILED", "SWARM_STATE_STOPPED", "SWARM_STATE_TERMINATED"}


class Running:
    """A coordinator that serves, and a client of it."""

    def __init__(self, settings: CoordinatorSettings, telemetry: Telemetry | None = None) -> None:
        self.settings = settings
        self._telemetry = telemetry
        self.coordinator: Coordinator
        self.channel: grpc.aio.Channel
        self.stub: Any
        self._end = asyncio.Event()
        self._graceful = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Running:
        """Starts it, and connects."""
        started = asyncio.Event()
        self._task = asyncio.create_task(self._run(started))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not started.is_set():
            waiting.cancel()
            self._task.result()
        self.channel = grpc.aio.insecure_channel(self.coordinator.server.address)
        self.stub = stubs.CoordinatorServiceStub(self.channel)
        return self

    async def _run(self, started: asyncio.Event) -> None:
        async with Supervisor() as supervisor:
            telemetry = self._telemetry or setup_telemetry("test", self.settings)
            self.coordinator = Coordinator(self.settings, supervisor, telemetry)
            await self.coordinator.start()
            started.set()
            await self._end.wait()
            if self._graceful:
                await self.coordinator.drain()
            await self.coordinator.close()

    async def stop(self, *, graceful: bool = True) -> None:
        """Drains it and ends it; or ends it as a crash does, without handing anything over."""
        if self._task is not None:
            self._graceful = graceful
            self._end.set()
            await asyncio.gather(self._task, return_exceptions=False)
            self._task = None
            await self.channel.close(None)

    async def get(self, swarm_id: str) -> swarm_pb2.Swarm:
        """The swarm."""
        answer = await self.stub.GetSwarm(api.GetSwarmRequest(swarm_id=swarm_id))
        swarm: swarm_pb2.Swarm = answer.swarm
        return swarm

    async def submit(self, request: swarm_pb2.SwarmExecutionRequest) -> api.SubmitSwarmResponse:
        """Submits a swarm."""
        answer: api.SubmitSwarmResponse = await self.stub.SubmitSwarm(request)
        return answer

    async def wait(self, swarm_id: str) -> swarm_pb2.Swarm:
        """Waits for its end."""
        answer = await self.stub.WaitSwarm(api.WaitSwarmRequest(swarm_id=swarm_id), timeout=60)
        assert answer.ended
        swarm: swarm_pb2.Swarm = answer.swarm
        return swarm


MakeCoordinator = Callable[..., Awaitable[Running]]


@pytest.fixture
async def tier2() -> AsyncIterator[FakeOrchestrator]:
    """A scripted Tier 2 that knows the flow `greet`."""
    fake = FakeOrchestrator()
    fake.add_flow("greet")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def tier1_database(new_database: Callable[..., str], template_of: Callable[[str], str]) -> str:
    """A database with the schema of Tier 1."""
    return new_database(template_of("tierflow_coordinator"))


@pytest.fixture
async def make_coordinator(tier1_database: str, tier2: FakeOrchestrator) -> AsyncIterator[MakeCoordinator]:
    """Starts coordinators on one database, by name and with further settings: several of them are replicas."""
    made: list[Running] = []

    async def make(*, name: str = "a", telemetry: Telemetry | None = None, **fields: Any) -> Running:
        fields.setdefault("database_url", tier1_database)
        fields.setdefault("orchestrators", (tier2.address,))
        settings = CoordinatorSettings(name=name, port=0, **fields)
        running = Running(settings, telemetry)
        made.append(running)
        return await running.start()

    yield make
    for running in made:
        await running.stop(graceful=False)


@pytest.fixture
async def tier1(make_coordinator: MakeCoordinator) -> Running:
    """A coordinator."""
    return await make_coordinator()


@pytest.fixture
def request_of() -> Callable[..., swarm_pb2.SwarmExecutionRequest]:
    """Makes requests: `request_of("greet", '{"name": "Ann"}', request_id="r1")`."""

    def make(
        flow: str = "greet", json: str = '{"name":"Ann"}', *, request_id: str = "", **context: Any
    ) -> swarm_pb2.SwarmExecutionRequest:
        request = swarm_pb2.SwarmExecutionRequest(
            input=swarm_pb2.SwarmInput(
                flow=swarm_pb2.FlowPlan(flow=flow_pb2.FlowRef(name=flow), input=payload_pb2.Payload(json=json))
            )
        )
        request.context.request_id = request_id
        for name, value in context.items():
            setattr(request.context, name, value)
        return request

    return make


@pytest.fixture
async def rows(tier1_database: str) -> AsyncIterator[Callable[[], Awaitable[dict[str, int]]]]:
    """Counts the rows of every table that a swarm touches."""
    connection = await asyncpg.connect(tier1_database)

    async def count() -> dict[str, int]:
        tables = ("entity", "journal", "request", "snapshot")
        return {table: await connection.fetchval(f"SELECT count(*) FROM coordinator.{table}") for table in tables}

    yield count
    await connection.close()
