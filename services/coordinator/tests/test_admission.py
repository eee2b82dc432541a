"""Admission: every bad request is refused with all its violations before anything is stored; every repetition is known."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.common.v1 import failure_pb2, flow_pb2, payload_pb2, state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_durable.ids import uuid7
from tierflow_runtime.errors import failure_of
from tierflow_runtime.values import Failure
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]
SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


async def refused(tier1: Any, request: Any, status: grpc.StatusCode, **metadata: str) -> Failure:
    """The failure with which a request is refused."""
    pairs = tuple((f"tierflow-{key}", value) for key, value in metadata.items())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.stub.SubmitSwarm(request, metadata=pairs)
    assert caught.value.code() is status, caught.value
    return failure_of(caught.value)


def broken(request: Any, case: str) -> Any:
    """The request with one thing wrong."""
    plan = request.input.flow
    if case == "input":
        request.ClearField("input")
    elif case == "input.plan":
        request.input.ClearField("flow")
    elif case == "input.flow.flow":
        plan.ClearField("flow")
    elif case == "input.flow.input":
        plan.input.json = "[1]"
    elif case == "input.flow.input ":
        plan.input.json = '{"a": "\\u0000"'
    elif case == "context.swarm_id":
        request.context.swarm_id = uuid7()
    elif case == "context.deadline":
        request.context.deadline.CopyFrom(Timestamp(seconds=1))
    elif case == "allocation.credits":
        request.allocation.credits = -1
    elif case == "options.priority":
        request.options.priority = 1000
    elif case == "options.timeout":
        request.options.timeout.CopyFrom(Duration(seconds=-1))
    elif case == "context.request_id":
        request.context.request_id = "x" * 201
    elif case == "context.traceparent":
        request.context.traceparent = "nonsense"
    return request


@pytest.mark.parametrize(
    "case",
    [
        "input",
        "input.plan",
        "input.flow.flow",
        "input.flow.input",
        "input.flow.input ",
        "context.swarm_id",
        "context.deadline",
        "allocation.credits",
        "options.priority",
        "options.timeout",
        "context.request_id",
        "context.traceparent",
    ],
)
async def test_bad_request(tier1: Any, tier2: FakeOrchestrator, request_of: Requests, rows: Any, case: str) -> None:
    """A3, A5: a request that breaks the contract is refused naming the field; no row, no event, nothing asked of Tier 2."""
    before = await rows()
    request = broken(request_of(request_id="r"), case)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.submit(request)
    told = failure_of(caught.value)
    assert caught.value.code() in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ), caught.value
    assert any(violation.field.startswith(case.strip()) for violation in told.violations), told
    assert await rows() == before
    assert not tier2.requests


async def test_all_violations_at_once(tier1: Any, request_of: Requests) -> None:
    """A3: everything that is wrong is told at once."""
    request = broken(broken(request_of(), "allocation.credits"), "context.swarm_id")
    told = await refused(tier1, request, grpc.StatusCode.INVALID_ARGUMENT)
    assert {violation.field for violation in told.violations} >= {"allocation.credits", "context.swarm_id"}


async def test_plans_of_later_builds(tier1: Any, request_of: Requests, rows: Any) -> None:
    """A3: a plan that the contract has and this build does not offer is refused naming it."""
    request = request_of()
    request.input.goal.goal = "write a report"
    before = await rows()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.submit(request)
    told = failure_of(caught.value)
    assert told.code == "UNSUPPORTED"
    assert [violation.field for violation in told.violations] == ["input.goal"]
    assert await rows() == before


async def test_input_schema(tier1: Any, tier2: FakeOrchestrator, request_of: Requests, rows: Any) -> None:
    """A5, L7: an input that does not match the flow's schema is refused with its path; nothing is stored."""
    tier2.input_schema = SCHEMA
    before = await rows()
    told = await refused(tier1, request_of(json='{"name": 3}'), grpc.StatusCode.INVALID_ARGUMENT)
    assert told.code == "INPUT_INVALID"
    assert [violation.field for violation in told.violations] == ["input.flow.input.name"]
    told = await refused(tier1, request_of(json="{}"), grpc.StatusCode.INVALID_ARGUMENT)
    assert told.violations[0].field == "input.flow.input"
    assert await rows() == before
    assert (await tier1.submit(request_of())).created


async def test_unknown_flow(tier1: Any, request_of: Requests, rows: Any) -> None:
    """A5: a flow that nobody registered is NOT_FOUND; nothing is stored."""
    before = await rows()
    await refused(tier1, request_of("unheard-of"), grpc.StatusCode.NOT_FOUND)
    assert await rows() == before


async def test_missing_handlers(tier1: Any, tier2: FakeOrchestrator, request_of: Requests, rows: Any) -> None:
    """L7, Lesson 43: a flow whose handlers nobody offers is refused naming them, and taken once somebody does."""
    tier2.missing_handlers = ["billing.charge", "billing.refund"]
    before = await rows()
    told = await refused(tier1, request_of(), grpc.StatusCode.FAILED_PRECONDITION)
    assert told.code == "HANDLER_NOT_FOUND"
    assert "billing.charge" in told.message
    assert "billing.refund" in told.message
    assert await rows() == before
    tier2.missing_handlers = []
    assert (await tier1.submit(request_of())).created


async def test_source(tier1: Any, tier2: FakeOrchestrator, request_of: Requests, rows: Any) -> None:
    """A5: a flow that comes along is checked first, with its problems under its path, and stored only once all is well."""
    request = request_of()
    request.input.flow.flow.CopyFrom(flow_pb2.FlowRef(source=flow_pb2.FlowSource(yaml="steps: [")))
    tier2.problems = [failure_pb2.Violation(field="steps", description="is no list", line=1)]
    before = await rows()
    told = await refused(tier1, request, grpc.StatusCode.INVALID_ARGUMENT)
    assert told.code == "FLOW_INVALID"
    assert told.violations[0].field == "input.flow.flow.source.steps"
    known = set(tier2.flows)
    tier2.problems = []
    tier2.input_schema = {"required": ["x"]}
    told = await refused(tier1, request, grpc.StatusCode.INVALID_ARGUMENT)
    assert told.code == "INPUT_INVALID"
    assert set(tier2.flows) == known
    assert await rows() == before
    request.input.flow.input.json = '{"x": 1}'
    answer = await tier1.submit(request)
    assert answer.created
    assert set(tier2.flows) - known == {hashlib.sha256(b"steps: [").hexdigest()}
    await tier1.wait(answer.swarm_id)


async def test_validate_only(tier1: Any, tier2: FakeOrchestrator, request_of: Requests, rows: Any) -> None:
    """S2, A5: validate_only checks everything and stores nothing, a flow neither."""
    request = request_of(request_id="check")
    request.input.flow.flow.CopyFrom(flow_pb2.FlowRef(source=flow_pb2.FlowSource(yaml="steps: {}")))
    request.options.validate_only = True
    before, known = await rows(), set(tier2.flows)
    answer = await tier1.submit(request)
    assert not answer.created
    assert not answer.swarm_id
    tier2.missing_handlers = ["nobody.has"]
    request.input.flow.flow.source.yaml = "steps: {a: {}}"
    await refused(tier1, request, grpc.StatusCode.FAILED_PRECONDITION)
    assert (await rows(), set(tier2.flows)) == (before, known)


async def test_identity(tier1: Any, request_of: Requests, rows: Any) -> None:
    """H23, L4: tenant and user come from the credential; a payload that says otherwise is refused."""
    before = await rows()
    await refused(tier1, request_of(tenant="other"), grpc.StatusCode.PERMISSION_DENIED)
    await refused(tier1, request_of(user_id="eve"), grpc.StatusCode.PERMISSION_DENIED, user="ann")
    assert await rows() == before
    answer = await tier1.stub.SubmitSwarm(
        request_of(), metadata=(("tierflow-tenant", "acme"), ("tierflow-user", "ann"))
    )
    ann = (("tierflow-tenant", "acme"), ("tierflow-user", "ann"))
    swarm = (await tier1.stub.GetSwarm(api.GetSwarmRequest(swarm_id=answer.swarm_id), metadata=ann)).swarm
    assert (swarm.context.tenant, swarm.context.user_id) == ("acme", "ann")


async def test_full_queue(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests, rows: Any) -> None:
    """J10, Lesson 34: beyond the bound a swarm is refused with its own reason and a time to wait; room is taken again when one ends."""
    tier1 = await make_coordinator(max_swarms=3)
    tier2.mode = "accept"
    answers = [await tier1.submit(request_of()) for _ in range(3)]
    before = await rows()
    told = await refused(tier1, request_of(), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert told.code == "QUEUE_FULL"
    assert told.retry_after
    assert (await rows())["entity"] == before["entity"]
    await eventually(lambda: len(tier2.runs) == 3)
    await tier2.finish(answers[0].run_id)
    await tier1.wait(answers[0].swarm_id)
    assert (await tier1.submit(request_of())).created


async def test_no_orchestrator(make_coordinator: Any, request_of: Requests, rows: Any) -> None:
    """N12, A5: with no orchestrator to ask about the flow a swarm is refused UNAVAILABLE, not accepted in the dark."""
    tier1 = await make_coordinator(orchestrators=("127.0.0.1:1",))
    before = await rows()
    told = await refused(tier1, request_of(), grpc.StatusCode.UNAVAILABLE)
    assert told.code == "UNAVAILABLE"
    assert await rows() == before


async def test_known_flow_is_not_asked_for(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J19: for a flow known by its hash nothing is asked of Tier 2 before a swarm is stored."""
    request = request_of()
    request.input.flow.flow.CopyFrom(flow_pb2.FlowRef(hash=next(iter(tier2.flows))))
    await asyncio.gather(*(tier1.submit(request) for _ in range(20)))
    assert tier2.checks == 1
    await asyncio.gather(*(tier1.submit(request) for _ in range(20)))
    assert tier2.checks == 1


async def test_stored_input(tier1: Any, tier2: FakeOrchestrator, request_of: Requests, rows: Any) -> None:
    """A5: an input that is stored elsewhere is read and checked like any other; one that is not there is refused."""
    content = b'{"name": "Ann"}'
    digest = hashlib.sha256(content).hexdigest()
    request = request_of()
    ref = payload_pb2.BlobRef(sha256=digest, size=len(content), media_type="application/json")
    request.input.flow.input.CopyFrom(payload_pb2.Payload(ref=ref))
    before = await rows()
    tier2.input_schema = {"required": ["missing"]}
    await refused(tier1, request, grpc.StatusCode.NOT_FOUND)
    tier2.blobs[digest] = content
    told = await refused(tier1, request, grpc.StatusCode.INVALID_ARGUMENT)
    assert told.code == "INPUT_INVALID"
    assert await rows() == before


async def test_idempotent_submission(make_coordinator: Any, request_of: Requests, rows: Any) -> None:
    """A14: one request id is one swarm, also at once and over replicas; whatever only the try changes does not count as another body."""
    one, two = await make_coordinator(name="a"), await make_coordinator(name="b")
    before = await rows()
    requests = [request_of(request_id="r1", traceparent=f"00-{'a' * 32}-{n:016x}-01") for n in range(1, 11)]
    answers = await asyncio.gather(*(replica.submit(each) for each in requests for replica in (one, two)))
    assert len({answer.swarm_id for answer in answers}) == 1
    assert len({answer.run_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    await one.wait(answers[0].swarm_id)
    after = await rows()
    assert after["entity"] - before["entity"] == 1
    again = await two.submit(requests[0])
    assert (again.created, again.swarm_id, again.state) == (
        False,
        answers[0].swarm_id,
        state_pb2.SWARM_STATE_COMPLETED,
    )


async def test_request_id_with_another_body(tier1: Any, request_of: Requests, rows: Any) -> None:
    """A14: the same request id with another body, or of another user, is refused."""
    await tier1.submit(request_of(request_id="r1"))
    before = await rows()
    told = await refused(tier1, request_of(request_id="r1", json='{"name":"Bob"}'), grpc.StatusCode.ALREADY_EXISTS)
    assert told.code == "REQUEST_ID_REUSED"
    told = await refused(tier1, request_of(request_id="r1"), grpc.StatusCode.ALREADY_EXISTS, user="ann")
    assert told.code == "REQUEST_ID_REUSED"
    assert (await rows())["entity"] == before["entity"]
    other = await tier1.stub.SubmitSwarm(request_of(request_id="r1"), metadata=(("tierflow-tenant", "acme"),))
    assert other.created
