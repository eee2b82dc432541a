"""The builder of requests."""

from hypothesis import given
from runtime_samples import allocations, contexts, good_step, options, run_context
from tierflow_contracts.common.v1.flow_pb2 import FlowRef
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmInput
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_contracts.orchestrator.v1.run_pb2 import RunExecutionRequest
from tierflow_runtime import wire
from tierflow_runtime.requests import run_request, step_request, swarm_request
from tierflow_runtime.values import Allocation, BlobRef, Context, Options


@given(contexts, allocations, options)
def test_step_requests_lose_nothing(context: Context, allocation: Allocation, given_options: Options) -> None:
    """A1, A8: what the orchestrator puts in is what the executor takes out, in all four parts."""
    ref = BlobRef(sha256="0" * 64, size=9)
    built = step_request(
        context,
        "h",
        input=ref,
        allocation=allocation,
        options=given_options,
        last_heartbeat='{"at":3}',
        grant_token="t",
    )
    seen = StepExecutionRequest.FromString(built.SerializeToString())
    assert wire.context_from_proto(seen.context) == context
    assert wire.allocation_from_proto(seen.allocation) == allocation
    assert wire.options_from_proto(seen.options) == given_options
    assert wire.payload_from_proto(seen.input.input) == ref
    assert wire.payload_from_proto(seen.input.last_heartbeat) == '{"at":3}'
    assert (seen.input.handler, seen.input.grant_token) == ("h", "t")


@given(contexts, allocations, options)
def test_run_requests_lose_nothing(context: Context, allocation: Allocation, given_options: Options) -> None:
    """A2, A8: what the coordinator puts in is what the orchestrator takes out, in all four parts."""
    flow = FlowRef(name="f", version="1")
    built = run_request(context, flow, input='{"a":1}', allocation=allocation, options=given_options)
    seen = RunExecutionRequest.FromString(built.SerializeToString())
    assert wire.context_from_proto(seen.context) == context
    assert wire.allocation_from_proto(seen.allocation) == allocation
    assert wire.options_from_proto(seen.options) == given_options
    assert (seen.input.flow, wire.payload_from_proto(seen.input.input)) == (flow, '{"a":1}')


def test_prepared_parts_give_the_same_request() -> None:
    """A6: parts that were converted beforehand, with what is the attempt's own set afterwards, make the same request as values do."""
    run = run_context()
    own = {
        "step_id": "s",
        "attempt": 2,
        "attempt_id": "a",
        "idempotency_key": "k",
        "epoch": 2,
        "traceparent": run.traceparent,
    }
    allocation, given_options = Allocation(credits=5), Options(priority=3)
    by_value = step_request(run, "h", input="{}", allocation=allocation, options=given_options, now=7, **own)
    by_message = step_request(
        wire.context_to_proto(run),
        "h",
        input="{}",
        allocation=wire.allocation_to_proto(allocation),
        options=wire.options_to_proto(given_options),
        now=7,
        **own,
    )
    assert by_value == by_message
    assert wire.micros(by_message.context.time_remaining) == run.deadline - 7


def test_prepared_parts_are_copied() -> None:
    """L1: what one request changes in its context, no other sees."""
    shared = wire.context_to_proto(run_context())
    before = shared.SerializeToString(deterministic=True)
    first = step_request(shared, "h", input=None, allocation=Allocation(), options=Options(), step_id="a", attempt=1)
    first.context.labels["x"] = "y"
    assert shared.SerializeToString(deterministic=True) == before


def test_all_four_parts_are_always_there() -> None:
    """A1, A2, Lesson 1: parts with nothing but defaults are sent as empty messages, not left out."""
    built = good_step()
    assert all(built.HasField(part) for part in ("context", "input", "allocation", "options"))
    bare = run_request(Context(), FlowRef(), input=None, allocation=Allocation(), options=Options())
    assert all(bare.HasField(part) for part in ("context", "input", "allocation", "options"))


def test_swarm_requests_need_an_input_only() -> None:
    """A3: of a client only the input is required; the other parts are there where they are given."""
    bare = swarm_request(SwarmInput())
    assert [field.name for field, _ in bare.ListFields()] == ["input"]
    full = swarm_request(
        SwarmInput(), context=Context(request_id="r"), allocation=Allocation(credits=1), options=Options(emergent=True)
    )
    assert (full.context.request_id, full.allocation.credits, full.options.emergent) == ("r", 1, True)
