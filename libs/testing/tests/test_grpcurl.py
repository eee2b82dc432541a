"""The small grpcurl: reflection of both versions, calls of every kind, errors as grpcurl prints them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_reflection.v1alpha import reflection
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc
from tierflow_testing import grpcurl
from tierflow_testing.fake_coordinator import FakeCoordinator, rich

SERVICE = "tierflow.coordinator.v1.CoordinatorService"


@pytest.fixture
async def fake() -> AsyncIterator[FakeCoordinator]:
    fake = FakeCoordinator()
    server = grpc.aio.server()
    coordinator_service_pb2_grpc.add_CoordinatorServiceServicer_to_server(fake, server)
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
    fake.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield fake
    await server.stop(0)


async def _run(line: str) -> list[str]:
    return [text async for text in grpcurl.run(grpcurl.parse(line))]


async def test_services_and_methods_are_listed(fake: FakeCoordinator) -> None:
    """A13: what the server offers, by reflection alone; v1alpha where there is no v1."""
    assert (await _run(f"grpcurl -plaintext {fake.address} list"))[0].splitlines() == sorted(
        [SERVICE, reflection.SERVICE_NAME]
    )
    methods = (await _run(f"grpcurl -plaintext {fake.address} list {SERVICE}"))[0].splitlines()
    assert f"{SERVICE}.SubmitSwarm" in methods
    assert len(methods) == len(api.DESCRIPTOR.services_by_name["CoordinatorService"].methods)


async def test_types_are_described(fake: FakeCoordinator) -> None:
    """A13: services, methods, messages and enums as they are in the protos, types of other files included."""
    (service,) = await _run(f"-plaintext {fake.address} describe {SERVICE}")
    assert (
        "rpc WatchSwarm ( .tierflow.coordinator.v1.WatchSwarmRequest ) returns ( stream .tierflow.coordinator.v1.WatchSwarmResponse );"
        in service
    )
    (method,) = await _run(f"-plaintext {fake.address} describe {SERVICE}.GetQueue")
    assert method.startswith("rpc GetQueue (")
    (message,) = await _run(f"-plaintext {fake.address} describe tierflow.common.v1.ExecutionContext")
    assert "map<string, string> labels = 19;" in message
    (enum,) = await _run(f"-plaintext {fake.address} describe tierflow.common.v1.SwarmState")
    assert "SWARM_STATE_RUNNING = 2;" in enum
    with pytest.raises(grpcurl.NoSymbol):
        await _run(f"-plaintext {fake.address} describe tierflow.Nothing")


async def test_methods_of_every_kind_are_called(fake: FakeCoordinator) -> None:
    """Lesson 44: JSON in and out, well-known types and metadata included; streams message by message."""
    fake.answers["GetQueue"] = api.GetQueueResponse(total=41)
    fake.answers["GetQueue"].time.GetCurrentTime()
    (queue,) = await _run(f"-plaintext -H 'tierflow-user: ada' {fake.address} {SERVICE}/GetQueue")
    assert json.loads(queue)["total"] == "41"
    assert json.loads(queue)["time"].endswith("Z")
    assert fake.metadata[-1]["tierflow-user"] == "ada"
    fake.answers["ListSwarms"] = api.ListSwarmsResponse()
    await _run(
        f"""-plaintext -d '{{"labels": {{"a": "b"}}, "createdAfter": "2026-01-02T00:00:00Z"}}' {fake.address} {SERVICE}/ListSwarms"""
    )
    assert fake.calls[-1][1].created_after.seconds == 1767312000
    fake.watches = [[api.WatchSwarmResponse(ready=api.WatchReady()), api.WatchSwarmResponse(idle=api.WatchIdle())]]
    messages = await _run(f"""-plaintext -max-time 5 -d '{{"swarm_id": "s"}}' {fake.address} {SERVICE}/WatchSwarm""")
    assert [next(iter(json.loads(message))) for message in messages] == ["ready", "idle"]
    frames = """{"execute": [{"context": {"requestId": "r"}, "input": {"flow": {"flow": {"name": "x"}, "input": {"json": "{}"}}}}]}"""
    responses = _run(f"-plaintext -max-time 1 -d '{frames}' {fake.address} {SERVICE}/ExecuteSwarms")
    with pytest.raises(grpc.aio.AioRpcError) as cut:  # the script never ends this stream: the limit of time does
        await responses
    # gRPC itself says INTERNAL where the limit is reached while it writes.
    assert cut.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL)
    assert len(fake.swarms) == 1


async def test_it_is_a_command(fake: FakeCoordinator) -> None:
    """N8: exit codes and messages as of grpcurl."""
    fake.errors["GetSwarm"] = rich(
        grpc.StatusCode.INVALID_ARGUMENT, "No id.", reason="INVALID_REQUEST", violations={"swarm_id": "is empty"}
    )
    command = (sys.executable, "-m", "tierflow_testing.grpcurl", "-plaintext", fake.address, f"{SERVICE}/GetSwarm")
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, err = await process.communicate()
    assert process.returncode == 64 + 3
    assert "Code: InvalidArgument" in err.decode()
    assert "google.rpc.BadRequest" in err.decode()
    for wrong, why in (
        ("-plaintext x", "say what"),
        ("x list", "only -plaintext"),
        ("-plaintext -weird x list", "-weird"),
    ):
        with pytest.raises(ValueError, match=why):
            grpcurl.parse(wrong)
