"""The contract at the boundaries of the running system: what is refused leaves nothing behind, what is taken arrives unchanged."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable

import asyncpg
import grpc
import nats
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as coordinator
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmExecutionRequest
from tierflow_contracts.executor.v1 import executor_service_pb2_grpc as executor
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as runs_api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as orchestrator
from tierflow_durable.ids import uuid7
from tierflow_runtime.channels import open_channel
from tierflow_runtime.errors import failure_of
from tierflow_runtime.requests import run_request, step_request
from tierflow_runtime.tracecontext import Traceparent
from tierflow_runtime.values import Allocation, Context, Failure, Options
from tierflow_testing.grpcurl import parse, run
from tierflow_testing.stack import Stack

PARTS = ("context", "input", "allocation", "options")
ECHO = """
name: contract-echo
version: "1"
steps:
  echo:
    call: contract.echo
    with: {given: "${{ input }}"}
output: ${{ steps.echo.output }}
"""


@pytest.fixture
async def client(system: Stack) -> AsyncIterator[coordinator.CoordinatorServiceStub]:
    async with open_channel(system.address) as channel:
        yield coordinator.CoordinatorServiceStub(channel)


def swarm(value: object, yaml: str = ECHO) -> SwarmExecutionRequest:
    """A request for a swarm of one flow."""
    request = SwarmExecutionRequest()
    request.input.flow.flow.source.yaml = yaml
    request.input.flow.input.json = json.dumps(value)
    return request


async def result(client: coordinator.CoordinatorServiceStub, swarm_id: str) -> api.WaitSwarmResponse:
    """The swarm, ended."""
    waited = await client.WaitSwarm(api.WaitSwarmRequest(swarm_id=swarm_id), timeout=60)
    assert waited.ended
    return waited


async def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, Failure]:
    """The status and failure with which a call ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    return caught.value.code(), failure_of(caught.value)


OWN_TABLES = ("instance", "fence", "watermark", "event_stream")
"""What the instances keep for themselves, and change on their own."""


async def stored(system: Stack) -> dict[str, int]:
    """How many rows each table of both tiers has and how many events are in the streams, but for what lives by the clock."""
    connection = await asyncpg.connect(system.database_url)
    try:
        tables = await connection.fetch(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'"
        )
        names = [name for (name,) in tables if name.rpartition(".")[2] not in OWN_TABLES]
        rows = {name: await connection.fetchval(f"SELECT count(*) FROM {name}") for name in names}
    finally:
        await connection.close()
    events = await nats.connect(system.nats.url)
    try:
        rows["events"] = (await events.jetstream().stream_info("TIERFLOW_EVENTS")).state.last_seq
    finally:
        await events.close()
    assert len(rows) > 5
    return rows


@pytest.mark.parametrize("tier", ["coordinators", "orchestrators", "executors"])
async def test_every_tier_reflects_and_is_healthy(system: Stack, tier: str) -> None:
    """A13, N13: every tier answers reflection, by which its services can be listed and described, and health, serving as a whole and by service."""
    service = getattr(system, tier)[0]
    listed: list[str] = []
    for version in ("v1", "v1alpha"):
        listed = await names(service.address, version)
        assert f"tierflow.{tier[:-1]}.v1.{tier[:-1].capitalize()}Service" in listed
        assert "grpc.health.v1.Health" in listed
    async with open_channel(service.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ["", *(one for one in listed if one.startswith("tierflow."))]:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, name


async def names(address: str, version: str) -> list[str]:
    """What reflection of a version lists."""
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

    async with open_channel(address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )(iter([ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        call.cancel()
        return [one.name for one in answer.list_services_response.service]


def step_context() -> Context:
    """A sound context of an attempt that nobody asked for."""
    return Context(
        tenant="default", user_id="dev", swarm_id=uuid7(), run_id=uuid7(), step_id="s", attempt=1, attempt_id=uuid7(),
        idempotency_key="k", epoch=1,
    )  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
async def test_an_executor_needs_all_four_parts(system: Stack, part: str) -> None:
    """A1: an executor refuses a request without any one of its parts, naming it."""
    request = step_request(step_context(), "contract.echo", input="{}", allocation=Allocation(), options=Options())
    request.ClearField(part)
    async with open_channel(system.executors[0].address) as channel:
        code, seen = await refused(lambda: executor.ExecutorServiceStub(channel).ExecuteStep(request))
    assert (code, seen.code) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert part in [one.field for one in seen.violations]


@pytest.mark.parametrize("part", PARTS)
async def test_an_orchestrator_needs_all_four_parts(system: Stack, part: str) -> None:
    """A2, A5: an orchestrator refuses a request without any one of its parts, naming it, and stores nothing."""
    from tierflow_contracts.common.v1.flow_pb2 import FlowRef

    before = await stored(system)
    request = run_request(step_context(), FlowRef(name="x"), input="{}", allocation=Allocation(), options=Options())
    request.ClearField(part)
    async with open_channel(system.orchestrators[0].address) as channel:
        code, seen = await refused(lambda: orchestrator.OrchestratorServiceStub(channel).StartRun(request))
    assert (code, seen.code) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert part in [one.field for one in seen.violations]
    assert await stored(system) == before


def bad_swarms() -> dict[str, SwarmExecutionRequest]:
    """Requests that break the contract, each in its way, by the field that is to be named."""
    made = {"input": SwarmExecutionRequest()}
    for field in (
        "input.plan", "input.flow.flow", "input.flow.input.json", "context.labels", "context.swarm_id", "context.request_id",
        "options.priority", "options.failure_policy", "allocation.credits", "context.deadline",
    ):  # fmt: skip
        made[field] = swarm({})
    made["input.plan"].input.ClearField("plan")
    made["input.flow.flow"].input.flow.ClearField("flow")
    made["input.flow.input.json"].input.flow.input.json = '{"a": "x\\u0000"}'
    made["context.labels"].context.labels["tierflow.x"] = "v"
    made["context.swarm_id"].context.swarm_id = uuid7()
    made["context.request_id"].context.request_id = "r" * 201
    made["options.priority"].options.priority = 101
    made["options.failure_policy"].options.failure_policy = 77  # type: ignore[assignment]
    made["allocation.credits"].allocation.credits = -1
    made["context.deadline"].context.deadline.seconds = 1
    return made


@pytest.mark.parametrize("field", list(bad_swarms()))
async def test_what_is_refused_leaves_nothing_behind(
    system: Stack, client: coordinator.CoordinatorServiceStub, field: str
) -> None:
    """A3, A5, L2: a request that breaks the contract is refused by the field's name before any row or event exists."""
    before = await stored(system)
    code, seen = await refused(lambda: client.SubmitSwarm(bad_swarms()[field]))
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert [one.field.split("[")[0] for one in seen.violations] == [field]
    assert seen.tier == 1
    assert await stored(system) == before


async def test_a_bad_flow_leaves_nothing_behind(system: Stack, client: coordinator.CoordinatorServiceStub) -> None:
    """A5: the same where the flow itself is wrong: all its problems are listed, and nothing is stored."""
    before = await stored(system)
    yaml = "name: Bad Name\nsteps:\n  a: {call: 3, needs: [nowhere]}\n  b: {}\n"
    code, seen = await refused(lambda: client.SubmitSwarm(swarm({}, yaml)))
    assert (code, seen.code) == (grpc.StatusCode.INVALID_ARGUMENT, "FLOW_INVALID")
    assert len(seen.violations) >= 3
    assert await stored(system) == before


async def test_large_input_is_refused_with_the_way_out(client: coordinator.CoordinatorServiceStub) -> None:
    """Q15, Lesson 34: an input beyond 1 MiB is PAYLOAD_TOO_LARGE, which is not back-pressure, and names blobs."""
    code, seen = await refused(lambda: client.SubmitSwarm(swarm({"a": "x" * 1024 * 1024})))
    assert (code, seen.code, seen.retryable) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PAYLOAD_TOO_LARGE", False)
    assert "blob" in seen.message


async def test_the_documented_json_by_reflection(system: Stack) -> None:
    """A3, A13, Lesson 44: an operator submits a swarm with grpcurl and nothing but JSON."""
    request = {"input": {"flow": {"flow": {"source": {"yaml": ECHO}}, "input": {"value": {"n": 3}}}}}
    method = "tierflow.coordinator.v1.CoordinatorService/SubmitSwarm"
    command = parse(["-plaintext", "-d", json.dumps(request), system.address, method])
    (answer,) = [json.loads(text) async for text in run(command)]
    assert re.fullmatch("[0-9a-f-]{36}", answer["swarmId"])


async def test_submitting_twice_at_once(system: Stack, client: coordinator.CoordinatorServiceStub) -> None:
    """A14, Lesson 3: one request id is one swarm however often it comes at once; with another body it is refused."""
    request = swarm({"n": 1})
    request.context.request_id = f"twice-{uuid7()}"
    answers = await asyncio.gather(*(client.SubmitSwarm(request) for _ in range(20)))
    assert len({answer.swarm_id for answer in answers}) == 1
    assert [answer.created for answer in answers].count(True) == 1
    await result(client, answers[0].swarm_id)
    page = await client.ListRuns(api.ListRunsRequest(filter=runs_api.ListRunsRequest(swarm_id=answers[0].swarm_id)))
    assert [run.context.run_id for run in page.runs] == [answers[0].run_id]
    other = swarm({"n": 2})
    other.context.request_id = request.context.request_id
    code, seen = await refused(lambda: client.SubmitSwarm(other))
    assert (code, seen.code) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


identity = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=30).map(
    lambda text: f"a{text}"
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tenant=identity,
    user=identity,
    correlation=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60),
    labels=st.dictionaries(identity, st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60), max_size=5),
    trace=st.integers(1, 2**128 - 1),
    tracestate=st.sampled_from(["", "vendor=1", "a=b,c=d"]),
    number=st.integers(2**53 + 1, 2**62),
    test_mode=st.booleans(),
)
def test_identity_survives_all_tiers(system: Stack, **given_values: object) -> None:
    """A8, A9: who asks, the correlation, the labels, the trace and every digit of the input reach the handler as they were sent."""
    asyncio.run(_identity_survives(system, **given_values))


async def _identity_survives(
    system: Stack, tenant: str, user: str, correlation: str, labels: dict[str, str], trace: int, tracestate: str, number: int,
    test_mode: bool,
) -> None:  # fmt: skip
    request = swarm({"number": number, "text": correlation})
    request.context.correlation_id = correlation
    request.context.labels.update(labels)
    request.context.traceparent = str(Traceparent(f"{trace:032x}", "00f067aa0ba902b7", True))
    request.context.tracestate = tracestate
    request.options.test_mode = test_mode
    async with open_channel(system.address) as channel:
        client = coordinator.CoordinatorServiceStub(channel)
        who = (("tierflow-tenant", tenant), ("tierflow-user", user))
        taken = await client.SubmitSwarm(request, metadata=who)
        waited = await client.WaitSwarm(api.WaitSwarmRequest(swarm_id=taken.swarm_id), metadata=who, timeout=60)
    assert waited.ended
    shown = waited.swarm.output
    seen = json.loads(shown.json) if shown.WhichOneof("kind") == "json" else None
    assert seen is not None, waited.swarm.failure
    assert seen["value"] == {"given": {"number": number, "text": correlation}}
    assert (seen["tenant"], seen["user_id"], seen["correlation_id"], seen["labels"]) == (
        tenant,
        user,
        correlation,
        labels,
    )
    assert (seen["swarm_id"], seen["run_id"]) == (taken.swarm_id, taken.run_id)
    assert seen["traceparent"][3:35] == taken.trace_id == f"{trace:032x}"
    assert (seen["tracestate"], seen["test_mode"]) == (tracestate, test_mode)
    assert (seen["step_id"], seen["attempt"]) == ("echo", 1)
    assert seen["idempotency_key"]


async def test_credits_are_exact_from_end_to_end(client: coordinator.CoordinatorServiceStub) -> None:
    """A9, Lesson 7: with a grant that no double can hold, what was used and what came back are the grant to the last micro-credit."""
    granted, used = 2**53 + 1, 7
    yaml = ECHO.replace("contract.echo", "contract.spend").replace('{given: "${{ input }}"}', f"{{value: {used}}}")
    request = swarm({}, yaml.replace("contract-echo", "contract-spend"))
    request.allocation.credits = granted
    taken = await client.SubmitSwarm(request)
    waited = await result(client, taken.swarm_id)
    assert waited.swarm.usage.credits == used, waited.swarm
    call = client.ExecuteSwarms(iter([api.ExecuteSwarmsRequest(attach=[taken.swarm_id])]))
    async for frame in call:
        if frame.results:
            (ended,) = frame.results
            assert ended.usage.credits + ended.allocation_returned.credits == granted
            call.cancel()
            break


async def test_a_handlers_error_reaches_the_client(client: coordinator.CoordinatorServiceStub) -> None:
    """F23, F29: what a handler raises in Tier 3 is readable at the client, with its tier and the chain of causes, without a stack."""
    yaml = ECHO.replace("contract.echo", "contract.fail").replace("contract-echo", "contract-fail")
    request = swarm({}, yaml)
    request.options.retry.max_attempts = 1
    taken = await client.SubmitSwarm(request)
    ended = await result(client, taken.swarm_id)
    chain = []
    link = ended.swarm.failure
    while True:
        chain.append(link)
        if not link.HasField("cause"):
            break
        link = link.cause
    assert chain[-1].tier == 3
    assert "Traceback" not in str(ended.swarm.failure)
    assert all(one.detail == "" for one in chain)
