"""The server: through real calls."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from small_service import NAME, Small
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as stubs
from tierflow_runtime.channels import channel_options, open_channel
from tierflow_runtime.errors import failure, failure_of
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.security import Caller, caller_of, own_or_refuse
from tierflow_runtime.serving import LIVENESS, Server
from tierflow_runtime.settings import ServiceSettings
from tierflow_runtime.values import Failure, FailureError, Violation

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Running:
    """A server with its servicer and a channel to it."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.servicer = Small()
        self.metrics = Metrics("orchestrator")
        self.server = Server(settings, tier=2, component="orchestrator", metrics=self.metrics)
        self.server.add(NAME, stubs.add_OrchestratorServiceServicer_to_server, self.servicer)
        self.settings = settings

    async def __aenter__(self) -> "Running":
        await self.server.start()
        self.channel = open_channel(self.server.address, max_message_bytes=self.settings.max_message_bytes)
        self.stub = stubs.OrchestratorServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.drain(0)

    async def status(self, name: str) -> int:
        """What health says of a name."""
        return (await self.health.Check(health_pb2.HealthCheckRequest(service=name))).status

    async def refused(self, run_id: str, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[grpc.StatusCode, Failure]:
        """The status and failure with which GetRun ends."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.stub.GetRun(pb.GetRunRequest(run_id=run_id), metadata=metadata)
        return caught.value.code(), failure_of(caught.value)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with Running(ServiceSettings(admin_port=0)) as running:
        yield running


async def test_failures_reach_the_client(running: Running) -> None:
    """F23, F29: a failure with its chain arrives with codes, tiers and attempts, and without internals."""
    code, seen = await running.refused("failure")
    assert code is grpc.StatusCode.ABORTED
    assert (seen.code, seen.tier, seen.component, seen.operation, seen.step_id) == (
        "STEP_FAILED", 2, "orchestrator", "GetRun", "fetch",
    )  # fmt: skip
    assert seen.cause is not None
    assert (seen.cause.code, seen.cause.tier, seen.cause.component, seen.cause.attempt) == (
        "TIMEOUT",
        3,
        "http.request",
        2,
    )
    assert "internal" not in repr(seen)
    assert "10.0.0.7" not in repr(seen)


async def test_defects_show_an_id_and_no_internals(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """F22, F29: what nobody foresaw is INTERNAL with an error id; the log line of that id has the stack."""
    code, seen = await running.refused("defect")
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in repr(seen)
    (record,) = [one for one in caplog.records if one.getMessage() == "call failed by a defect"]
    fields = record.__dict__["tierflow"]
    assert fields["error_id"] in seen.message
    assert record.exc_info is not None
    assert 'tierflow_failures_total{code="INTERNAL",component="orchestrator"} 1.0' in running.metrics.text()


async def test_what_is_not_built_says_so(running: Running) -> None:
    """F24: a method of the contract that this build does not have is UNIMPLEMENTED, not a defect."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.ListRuns(pb.ListRunsRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert failure_of(caught.value).code == "UNSUPPORTED"


@pytest.mark.parametrize(("run_id", "code"), [("failure", "NOT_FOUND"), ("defect", "INTERNAL")])
async def test_streams_end_with_failures_too(running: Running, run_id: str, code: str) -> None:
    """F23, F29: a stream that fails has handed out what came before, and ends with the failure."""
    call = running.stub.WatchRun(pb.WatchRunRequest(run_id=run_id))
    assert await call.read() is not grpc.aio.EOF
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert failure_of(caught.value).code == code
    assert "secret" not in repr(failure_of(caught.value))


async def test_callers(running: Running) -> None:
    """L4, L8: in development mode the caller is who the metadata names, by default default/dev; two calls at once are not mixed up."""

    async def call(tenant: str, user: str) -> str:
        metadata = (("tierflow-tenant", tenant), ("tierflow-user", user)) if tenant else ()
        return (await running.stub.GetRun(pb.GetRunRequest(run_id="x"), metadata=metadata)).run.owner

    assert await call("", "") == "default/dev"
    people = [(f"tenant-{n}", f"user-{n}") for n in range(50)]
    assert await asyncio.gather(*(call(*one) for one in people)) == [f"{tenant}/{user}" for tenant, user in people]


@pytest.mark.parametrize("value", ["", "null", "a" * 201, "undefined"])
async def test_no_identities(running: Running, value: str) -> None:
    """L2, L8: a tenant that is a placeholder, empty or endless is no identity: UNAUTHENTICATED before the servicer is called."""
    code, seen = await running.refused("x", (("tierflow-tenant", value),))
    assert (code, seen.code) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert running.servicer.seen == []


async def test_nobody_is_let_in_without_a_way_to_know_them() -> None:
    """L14: out of development mode, without credentials, every call is refused; health answers all the same."""
    async with Running(ServiceSettings(development=False)) as closed:
        code, seen = await closed.refused("x", (("tierflow-tenant", "acme"),))
        assert (code, seen.code) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert closed.servicer.seen == []
        assert await closed.status(LIVENESS) == SERVING


def test_past_the_boundary_nobody_is_known() -> None:
    """L14: a servicer that is called without the boundary has no caller, and refuses."""
    with pytest.raises(FailureError) as caught:
        caller_of(None)
    assert caught.value.failure.code == "UNAUTHENTICATED"


def test_payloads_do_not_choose_the_tenant() -> None:
    """L2, L11: a payload that names another tenant or user than the credential is refused; empty or equal is fine."""
    caller = Caller("acme", "ann")
    own_or_refuse(caller, "", "")
    own_or_refuse(caller, "acme", "ann")
    for tenant, user in (("other", ""), ("acme", "bob")):
        with pytest.raises(FailureError) as caught:
            own_or_refuse(caller, tenant, user)
        assert caught.value.failure.code == "PERMISSION_DENIED"


async def test_health_is_what_the_service_says(running: Running) -> None:
    """A13, N13, L6, Lesson 35: not serving before it is said, per service, watchable; liveness stays; unknown names are unknown."""
    assert await running.status("") == NOT_SERVING
    assert await running.status(NAME) == NOT_SERVING
    assert await running.status(LIVENESS) == SERVING
    watch = running.health.Watch(health_pb2.HealthCheckRequest(service=NAME))
    assert (await watch.read()).status == NOT_SERVING
    await running.server.announce_ready()
    assert (await watch.read()).status == SERVING
    assert await running.status("") == SERVING
    await running.server.set_serving(NAME, False)
    assert (await watch.read()).status == NOT_SERVING
    assert await running.status("") == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.status("nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch.cancel()


async def reflected(channel: grpc.aio.Channel, version: str) -> list[str]:
    """The names that reflection of a version lists."""
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    call = method(
        iter([ServerReflectionRequest(list_services=""), ServerReflectionRequest(file_containing_symbol=NAME)])
    )
    names = [one.name for one in (await call.read()).list_services_response.service]
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(one)
        for one in (await call.read()).file_descriptor_response.file_descriptor_proto
    ]
    assert NAME in {f"{file.package}.{service.name}" for file in files for service in file.service}
    call.cancel()
    return names


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(running: Running, version: str) -> None:
    """A13: both versions of reflection list the services and give their files with all that they import."""
    assert {NAME, "grpc.health.v1.Health"} <= set(await reflected(running.channel, version))


async def test_admin_port(running: Running) -> None:
    """A13, N13: channelz, health and reflection are on the admin port; channelz shows the calls of the main port and is not on it."""
    await running.stub.GetRun(pb.GetRunRequest(run_id="x"))
    async with open_channel(f"127.0.0.1:{running.server.admin_port}") as admin:
        seen = await channelz_pb2_grpc.ChannelzStub(admin).GetServers(channelz_pb2.GetServersRequest())
        assert max(one.data.calls_succeeded for one in seen.server) >= 1
        status = await health_pb2_grpc.HealthStub(admin).Check(health_pb2.HealthCheckRequest(service=LIVENESS))
        assert status.status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channelz_pb2_grpc.ChannelzStub(running.channel).GetServers(channelz_pb2.GetServersRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_drain_lets_calls_end(running: Running) -> None:
    """Q22, L6: while it drains, health says so, calls under way end, new ones are refused."""
    await running.server.announce_ready()
    held = asyncio.ensure_future(running.stub.GetRun(pb.GetRunRequest(run_id="hold")))
    while "hold" not in running.servicer.seen:
        await asyncio.sleep(0)
    watch = running.health.Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watch.read()).status == SERVING
    draining = asyncio.ensure_future(running.server.drain(30))
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()
    running.servicer.hold.set()
    assert (await held).run.owner == "default/dev"
    await draining
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.GetRun(pb.GetRunRequest(run_id="x"), timeout=5)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_messages_too_large_are_called_so() -> None:
    """Lesson 34: an answer beyond the limit is MESSAGE_TOO_LARGE to the client, not back-pressure."""
    async with Running(ServiceSettings(max_message_bytes=64 * 1024)) as small:
        await small.stub.ListSteps(pb.ListStepsRequest(run_id="1000"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await small.stub.ListSteps(pb.ListStepsRequest(run_id="100000"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (failure_of(caught.value).code, failure_of(caught.value).retryable) == ("MESSAGE_TOO_LARGE", False)


async def test_channels_do_not_retry(running: Running) -> None:
    """F11: a call that fails with UNAVAILABLE is made once: only Tier 2 retries, and only steps."""
    running.servicer.refusals["again"] = failure("UNAVAILABLE", "not now")
    code, _ = await running.refused("again")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert running.servicer.seen == ["again"]
    assert dict(channel_options())["grpc.enable_retries"] == 0


async def test_very_many_violations(running: Running) -> None:
    """A5, F23: a refusal with more violations than fit reaches a client with gRPC's default limits, with those that fit and the number of the rest."""
    wrong = tuple(Violation(field=f"steps.s{n}.with.url", description="is not a URL") for n in range(2000))
    running.servicer.refusals["many"] = failure("FLOW_INVALID", "x" * 5000, violations=wrong)
    async with grpc.aio.insecure_channel(running.server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stubs.OrchestratorServiceStub(channel).GetRun(pb.GetRunRequest(run_id="many"))
    seen = failure_of(caught.value)
    assert (caught.value.code(), seen.code) == (grpc.StatusCode.INVALID_ARGUMENT, "FLOW_INVALID")
    assert len(seen.violations) > 40
    assert seen.violations[-1].description.startswith(f"and {2000 - len(seen.violations) + 1} more")
