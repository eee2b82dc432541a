"""The coordinator as a process: starts, tells its health, drains, dies and comes again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as stubs
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.processes import ServiceProcess, run_once
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]
SERVING = health_pb2.HealthCheckResponse.SERVING


async def serving(address: str, service: str = "") -> bool:
    """What health says."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30, wait_for_ready=True)
        return bool(answer.status == SERVING)


def process(tmp_path: Path, tier2: FakeOrchestrator, database: str, name: str = "a", **more: str) -> ServiceProcess:
    """A coordinator as a process, not yet started."""
    environment = {"TIERFLOW_DATABASE_URL": database, "TIERFLOW_ORCHESTRATORS": tier2.address, **more}
    return ServiceProcess(name, "tierflow_coordinator", environment, directory=tmp_path)


async def test_killed_and_started_again(
    tmp_path: Path, tier1_database: str, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """J2, R12, Q1: a coordinator that is killed loses nothing: started again under its name, it goes on at once."""
    service = process(tmp_path, tier2, tier1_database)
    await asyncio.to_thread(service.spawn)
    await asyncio.to_thread(service.wait_ready)
    tier2.mode = "accept"
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = stubs.CoordinatorServiceStub(channel)
        answers = await asyncio.gather(*(stub.SubmitSwarm(request_of(request_id=f"r{n}")) for n in range(20)))
    await asyncio.to_thread(service.kill)
    for answer in answers:
        if answer.run_id in tier2.runs:
            await tier2.finish(answer.run_id)
    await asyncio.to_thread(service.spawn)
    await asyncio.to_thread(service.wait_ready)
    await eventually(lambda: len(tier2.runs) == 20)
    for run in list(tier2.runs.values()):
        if not run.ended:
            await tier2.finish(run.run_id)
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = stubs.CoordinatorServiceStub(channel)
        for answer in answers:
            waited = await stub.WaitSwarm(api.WaitSwarmRequest(swarm_id=answer.swarm_id), timeout=60)
            assert waited.swarm.state == state_pb2.SWARM_STATE_COMPLETED
        again = await stub.SubmitSwarm(request_of(request_id="r0"))
        assert (again.created, again.swarm_id) == (False, answers[0].swarm_id)
    assert await asyncio.to_thread(service.stop)
    assert service.exit_code == 0


async def test_health_follows_the_database(
    tmp_path: Path, own_postgres: EmbeddedPostgres, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """L6, N13, Lesson 29, Lesson 35: with Postgres away the service is alive and not ready; when it is back, so is the service, and work goes on."""
    database = own_postgres.create_database("tier1")
    log = tmp_path / "migrate.log"
    migration = run_once("tierflow_coordinator", "migrate", environment={"TIERFLOW_DATABASE_URL": database}, log=log)
    assert await asyncio.to_thread(migration.wait) == 0
    service = process(tmp_path, tier2, database, TIERFLOW_NATS_URL="nats://127.0.0.1:1")
    await asyncio.to_thread(service.spawn)
    await asyncio.to_thread(service.wait_ready)
    name = "tierflow.coordinator.v1.CoordinatorService"
    assert await serving(service.address, name)  # NATS is away all the time, and does not matter.
    tier2.mode = "accept"
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = stubs.CoordinatorServiceStub(channel)
        answer = await stub.SubmitSwarm(request_of())
        await eventually(lambda: answer.run_id in tier2.runs)
        await asyncio.to_thread(own_postgres.kill)

        async def not_ready() -> bool:
            return not await serving(service.address, name)

        await eventually(not_ready)
        assert await serving(service.address, "liveness")
        await tier2.finish(answer.run_id)
        await asyncio.to_thread(own_postgres.start)

        async def ready() -> bool:
            return await serving(service.address, name)

        await eventually(ready)
        waited = await stub.WaitSwarm(api.WaitSwarmRequest(swarm_id=answer.swarm_id), timeout=60)
        assert waited.swarm.state == state_pb2.SWARM_STATE_COMPLETED
    assert await asyncio.to_thread(service.stop)
    assert service.exit_code == 0


async def test_refuses_a_schema_it_does_not_know(tmp_path: Path, database: str, tier2: FakeOrchestrator) -> None:
    """L5: without its schema the service does not start, and says what to do."""
    log = tmp_path / "serve.log"
    environment = {
        "TIERFLOW_DATABASE_URL": database,
        "TIERFLOW_ORCHESTRATORS": tier2.address,
        "TIERFLOW_PORT": "0",
    }
    started = run_once("tierflow_coordinator", environment=environment, log=log)
    assert await asyncio.to_thread(started.wait) == 78
    assert "migrate" in log.read_text()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TIERFLOW_DATABASE_URL", "nonsense"),
        ("TIERFLOW_ORCHESTRATORS", "nowhere"),
        ("TIERFLOW_MAX_SWARMS", "0"),
        ("TIERFLOW_PORT", "99999"),
        ("TIERFLOW_KEEP_DAYS", "1"),
    ],
)
async def test_bad_configuration(tmp_path: Path, variable: str, value: str) -> None:
    """L5: a bad setting stops the start, by name."""
    log = tmp_path / "serve.log"
    environment = {"TIERFLOW_DATABASE_URL": "postgresql://x@127.0.0.1:1/x", variable: value}
    started = run_once("tierflow_coordinator", environment=environment, log=log)
    assert await asyncio.to_thread(started.wait) == 78
    assert variable in log.read_text()


def test_import_opens_nothing() -> None:
    """B7: importing the service opens no socket and starts no thread."""
    code = (
        "import socket, threading\n"
        "def no(*a, **k): raise AssertionError('a socket')\n"
        "socket.socket.connect = no; socket.socket.bind = no\n"
        "import tierflow_coordinator.app\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
