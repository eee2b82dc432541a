"""Core values and messages: nothing is lost on the way."""

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_samples import (
    allocations,
    blob_refs,
    contexts,
    failures,
    json_values,
    moments,
    options,
    retry_policies,
    usages,
)
from tierflow_contracts.common.v1 import execution_pb2 as ex
from tierflow_contracts.common.v1 import failure_pb2 as fa
from tierflow_contracts.common.v1 import payload_pb2 as pa
from tierflow_runtime import wire
from tierflow_runtime.values import Allocation, BlobRef, Context, Failure, Options, RetryPolicy, Usage


def through_bytes(message):
    """The message as the other side parses it."""
    return type(message).FromString(message.SerializeToString())


@given(contexts)
def test_context(context: Context) -> None:
    """A8: every id, user, correlation, trace and label survives a hop exactly."""
    assert wire.context_from_proto(through_bytes(wire.context_to_proto(context))) == context


@given(contexts, moments)
def test_time_remaining_counts_from_receipt(context: Context, sent: int) -> None:
    """R17: a receiver whose clock differs still gives the work the time that it had left when it was sent."""
    message = through_bytes(wire.context_to_proto(context, now=sent))
    skewed = sent + 3_600_000_000
    received = wire.context_from_proto(message, skewed)
    if context.deadline is None:
        assert received.deadline is None
        assert not message.HasField("time_remaining")
    else:
        assert received.deadline == skewed + max(0, context.deadline - sent)


def test_deadline_without_time_remaining_is_absolute() -> None:
    """R17: where no time remaining was sent, the absolute moment counts, whatever now is."""
    message = wire.context_to_proto(Context(deadline=1_000_000))
    assert wire.context_from_proto(message, 5).deadline == 1_000_000


@given(allocations)
def test_allocation(allocation: Allocation) -> None:
    """A9: limits arrive as they were, unset ones unset, credits beyond 2^53 exact."""
    assert wire.allocation_from_proto(through_bytes(wire.allocation_to_proto(allocation))) == allocation


@given(st.lists(st.integers(0, 2**59), min_size=1, max_size=8), st.integers(2**53, 2**59))
def test_credits_are_conserved_exactly(parts: list[int], returned: int) -> None:
    """A9, Lesson 7: what children were given and what came back is the parent's credits, to the last micro-credit."""
    parent = Allocation(credits=sum(parts) + returned)
    sent = [
        wire.allocation_from_proto(through_bytes(wire.allocation_to_proto(Allocation(credits=part)))) for part in parts
    ]
    given_back = wire.allocation_from_proto(through_bytes(wire.allocation_to_proto(Allocation(credits=returned))))
    arrived = wire.allocation_from_proto(through_bytes(wire.allocation_to_proto(parent)))
    assert sum(part.credits or 0 for part in sent) + (given_back.credits or 0) == arrived.credits
    assert type(arrived.credits) is int


def test_credits_beyond_doubles() -> None:
    """A9, Lesson 7: a number that no double can hold arrives as it was."""
    odd = 2**53 + 1
    assert float(odd) != odd
    assert wire.allocation_from_proto(through_bytes(wire.allocation_to_proto(Allocation(credits=odd)))).credits == odd
    assert wire.usage_from_proto(through_bytes(wire.usage_to_proto(Usage(credits=odd)))).credits == odd


@given(options)
def test_options(given_options: Options) -> None:
    """A8: strategy, policies and timeouts arrive as they were."""
    assert wire.options_from_proto(through_bytes(wire.options_to_proto(given_options))) == given_options


@given(retry_policies)
def test_retry_policy(policy: RetryPolicy) -> None:
    """Q4: a retry policy arrives in full."""
    assert wire.retry_policy_from_proto(through_bytes(wire.retry_policy_to_proto(policy))) == policy


def test_unset_retry_fields_come_from_the_default() -> None:
    """F8: what a request leaves unset comes from the flow's default, what it sets wins."""
    default = RetryPolicy(max_attempts=7, initial_delay=5, factor=3.0, retry_on=("TIMEOUT",))
    got = wire.retry_policy_from_proto(ex.RetryPolicy(max_attempts=2), default)
    assert (got.max_attempts, got.initial_delay, got.factor, got.retry_on) == (2, 5, 3.0, ("TIMEOUT",))
    assert wire.options_from_proto(ex.ExecutionOptions(retry=ex.RetryPolicy(jitter=0.0)), default).retry == RetryPolicy(
        max_attempts=7, initial_delay=5, factor=3.0, jitter=0.0, retry_on=("TIMEOUT",)
    )


@given(usages)
def test_usage(usage: Usage) -> None:
    """D4, Lesson 7: what was measured arrives as it was measured."""
    assert wire.usage_from_proto(through_bytes(wire.usage_to_proto(usage))) == usage


@given(failures)
def test_failure(failure: Failure) -> None:
    """F22, F23: a failure arrives with its code, tier, attempt and whole chain of causes; a handler's own code as well."""
    arrived = wire.failure_from_proto(through_bytes(wire.failure_to_proto(failure)))
    assert arrived == failure


def test_handlers_own_code_has_a_catalogue_code_on_the_wire() -> None:
    """F23, F24: whoever does not know a handler's code sees that a handler failed, and whether a retry can help."""
    declined = Failure(code="CARD_DECLINED", message="no", retryable=False)
    assert wire.failure_to_proto(declined).code == fa.ERROR_CODE_HANDLER_REJECTED
    again = Failure(code="CARD_BUSY", message="later", retryable=True)
    assert wire.failure_to_proto(again).code == fa.ERROR_CODE_HANDLER_FAILED


def test_codes_of_a_newer_build_pass_through() -> None:
    """A12, F23: a code or state that this build does not know is neither dropped nor relabelled."""
    newer = fa.Failure(code=999, message="new")  # type: ignore[arg-type]
    seen = wire.failure_from_proto(newer)
    assert seen.code == "ERROR_CODE_999"
    assert wire.failure_to_proto(seen).code == 999
    assert wire.RUN_STATES.number(wire.RUN_STATES.name(77)) == 77


def test_enum_names() -> None:
    """C1: names and numbers of states match in both directions, and a wrong name is refused."""
    for names in (wire.RUN_STATES, wire.STEP_STATES, wire.SWARM_STATES, wire.OUTCOMES):
        for name in names.names:
            assert names.name(names.number(name)) == name
        assert names.name(0) == ""
        assert names.number("") == 0
    with pytest.raises(ValueError, match="COMPLETED"):
        wire.RUN_STATES.number("DONE")


@given(moments)
def test_moments(moment: int) -> None:
    """R17: moments are exact to the microsecond."""
    assert wire.micros(through_bytes(wire.timestamp(moment))) == moment


@given(st.integers(-(10**17), 10**17))
def test_durations(length: int) -> None:
    """R17: durations are exact to the microsecond, negative ones too, and valid by protobuf's rules."""
    message = wire.duration(length)
    assert wire.micros(through_bytes(message)) == length
    assert message.seconds * message.nanos >= 0
    assert abs(message.nanos) < 10**9


@given(json_values)
def test_json_payloads_keep_their_text(value: object) -> None:
    """A8, A9: JSON text is handed on as it is, with all digits of its integers."""
    text = orjson.dumps(value).decode()
    assert wire.payload_from_proto(through_bytes(wire.payload_to_proto(text))) == text


@given(json_values)
def test_readable_payloads_mean_the_same(value: object) -> None:
    """A9, Lesson 44: what is shown for people is the same value; numbers that a double cannot hold stay text."""
    text = orjson.dumps(value).decode()
    back = wire.payload_from_proto(through_bytes(wire.payload_to_proto(text, readable=True)))
    assert isinstance(back, str)
    assert orjson.loads(back) == orjson.loads(text)


@given(blob_refs)
def test_references(ref: BlobRef) -> None:
    """R33: a reference arrives as it was."""
    assert wire.payload_from_proto(through_bytes(wire.payload_to_proto(ref))) == ref


def test_no_value_is_not_null() -> None:
    """A8: no value at all and JSON null stay different."""
    assert wire.payload_to_proto(None) is None
    assert wire.payload_from_proto(pa.Payload()) is None
    assert wire.payload_from_proto(wire.payload_to_proto("null")) == "null"
    assert wire.payload_from_proto(wire.payload_to_proto("null", readable=True)) == "null"


def test_whole_numbers_from_grpcurl_are_integers() -> None:
    """A3: who writes 3 in grpcurl gets 3, not 3.0."""
    value = wire.json_value({"n": 3, "x": 2.5, "big": 1e300})
    assert wire.payload_from_proto(pa.Payload(value=value)) == '{"big":1e+300,"n":3,"x":2.5}'


def test_equal_values_are_equal_texts() -> None:
    """A14: a value sent by hand gives the same text in whatever order its fields came, so that repeating a request is recognised."""
    names = [f"k{n}" for n in range(50)]
    one = wire.json_value({key: {"b": 1, "a": 2} for key in names})
    other = wire.json_value({key: {"a": 2, "b": 1} for key in reversed(names)})
    assert wire.payload_from_proto(pa.Payload(value=one)) == wire.payload_from_proto(pa.Payload(value=other))


def test_json_value_takes_json_only() -> None:
    """A8: what is not JSON is refused, not bent."""
    with pytest.raises(TypeError):
        wire.json_value({1, 2})
    assert math.isclose(wire.json_value(2.5).number_value, 2.5)
