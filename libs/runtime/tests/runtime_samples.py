"""Values for tests: a well-formed request of each kind, and strategies that make every value."""

import itertools
import os
import time
import uuid

from hypothesis import strategies as st
from tierflow_contracts.common.v1.flow_pb2 import FlowRef
from tierflow_contracts.coordinator.v1.swarm_pb2 import FlowPlan, SwarmExecutionRequest, SwarmInput
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionRequest
from tierflow_runtime.names import ERROR_CODES
from tierflow_runtime.requests import run_request, step_request, swarm_request
from tierflow_runtime.tracecontext import Traceparent, new_traceparent
from tierflow_runtime.values import (
    Allocation,
    BlobRef,
    Context,
    Failure,
    Options,
    RetryPolicy,
    Usage,
    Violation,
)

_numbers = itertools.count(1)
INT64 = 2**63 - 1


def uuid7() -> str:
    """A new UUIDv7 in lower case."""
    raw = bytearray(os.urandom(16))
    raw[:6] = (time.time_ns() // 1_000_000).to_bytes(6, "big")
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    return str(uuid.UUID(bytes=bytes(raw)))


def run_context() -> Context:
    """The context of a run as Tier 1 makes it."""
    swarm_id = uuid7()
    return Context(
        tenant="acme",
        user_id="ann",
        swarm_id=swarm_id,
        run_id=uuid7(),
        parent_id=swarm_id,
        root_id=swarm_id,
        correlation_id="order-7",
        request_id=f"request-{next(_numbers)}",
        depth=1,
        deadline=4_000_000_000_000_000,
        traceparent=new_traceparent(),
        tracestate="vendor=1",
        labels={"team": "billing"},
    )


def good_step() -> StepExecutionRequest:
    """A well-formed request for an attempt."""
    context = run_context()
    return step_request(
        context,
        "echo",
        input='{"text": "hello"}',
        allocation=Allocation(credits=5_000, wall_time=30_000_000),
        options=Options(timeout=30_000_000, retry=RetryPolicy()),
        step_id="fetch[3]",
        attempt=1,
        attempt_id=f"{context.run_id}/fetch[3]/1",
        idempotency_key=f"{context.run_id}/fetch[3]",
        epoch=1,
    )


def good_run() -> RunExecutionRequest:
    """A well-formed request for a run."""
    flow = FlowRef(hash="ab" * 32)
    return run_request(run_context(), flow, input='{"n": 1}', allocation=Allocation(credits=1), options=Options())


def good_swarm() -> SwarmExecutionRequest:
    """A well-formed request for a swarm."""
    plan = FlowPlan(flow=FlowRef(name="billing"))
    plan.input.json = '{"n": 1}'
    return swarm_request(SwarmInput(flow=plan))


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
moments = st.integers(0, 253_402_300_799_999_999)
lengths = st.integers(-(10**15), 10**15)
counts = st.integers(0, INT64)
traceparents = st.builds(
    lambda trace, span, sampled: str(Traceparent(f"{trace:032x}", f"{span:016x}", sampled)),
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
)

contexts = st.builds(
    Context,
    tenant=text,
    user_id=text,
    swarm_id=text,
    run_id=text,
    step_id=text,
    attempt=st.integers(0, 2**32 - 1),
    attempt_id=text,
    parent_id=text,
    root_id=text,
    correlation_id=text,
    request_id=text,
    idempotency_key=text,
    epoch=st.integers(0, 2**64 - 1),
    depth=st.integers(0, 2**32 - 1),
    deadline=st.none() | moments,
    traceparent=st.just("") | traceparents,
    tracestate=text,
    labels=st.dictionaries(text, text, max_size=5),
    generation=st.integers(1, 2**32 - 1),
)
allocations = st.builds(
    Allocation,
    credits=st.none() | st.integers(-INT64 - 1, INT64),
    wall_time=st.none() | lengths,
    memory_bytes=st.none() | counts,
    concurrent_steps=st.none() | st.integers(0, 2**31 - 1),
    steps=st.none() | counts,
    tool_calls=st.none() | counts,
    tokens=st.none() | counts,
    depth=st.none() | st.integers(0, 2**31 - 1),
)
retry_policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 1000),
    initial_delay=lengths,
    factor=st.floats(1, 10),
    max_delay=lengths,
    jitter=st.floats(0, 1),
    retry_on=st.lists(text, max_size=3).map(tuple),
    never_retry_on=st.lists(text, max_size=3).map(tuple),
)
options = st.builds(
    Options,
    priority=st.integers(-100, 100),
    timeout=st.none() | lengths,
    retry=st.none() | retry_policies,
    failure_policy=st.sampled_from(["", "FAIL_FAST", "CONTINUE", "PAUSE"]),
    not_before=st.none() | moments,
    strategy=text,
    test_mode=st.booleans(),
    emergent=st.booleans(),
    heartbeat_timeout=st.none() | lengths,
    on_lost=st.sampled_from(["", "RETRY", "FAIL", "ASK"]),
    validate_only=st.booleans(),
)
usages = st.builds(
    Usage,
    credits=counts,
    wall_time=lengths,
    cpu_time=lengths,
    memory_bytes=counts,
    steps=counts,
    attempts=counts,
    tool_calls=counts,
    input_tokens=counts,
    output_tokens=counts,
    metrics=st.dictionaries(text, st.floats(allow_nan=False), max_size=3),
)
violations = st.builds(Violation, field=text, description=text, line=st.integers(0, 2**31 - 1))
failures = st.deferred(
    lambda: st.builds(
        Failure,
        code=st.sampled_from(ERROR_CODES.names) | st.just("CARD_DECLINED"),
        message=text,
        tier=st.integers(0, 3),
        component=text,
        operation=text,
        retryable=st.booleans(),
        retry_after=st.none() | lengths,
        attempt=st.integers(0, 2**32 - 1),
        step_id=text,
        detail=text,
        cause=st.none() | failures,
        violations=st.lists(violations, max_size=3).map(tuple),
    )
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
blob_refs = st.builds(
    BlobRef, sha256=st.integers(0, 2**256 - 1).map(lambda n: f"{n:064x}"), size=counts, media_type=st.just("text/plain")
)
