"""W3C trace context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from runtime_samples import traceparents
from tierflow_runtime.tracecontext import (
    child_traceparent,
    new_traceparent,
    parse_traceparent,
    sampled_by_ratio,
    span_id_of,
    valid_traceparent,
)

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        GOOD[:-1],
        GOOD + "0",
        GOOD.upper(),
        GOOD.replace("-", "_"),
        "ff" + GOOD[2:],
        "00-" + "0" * 32 + GOOD[35:],
        GOOD[:36] + "0" * 16 + "-01",
        GOOD + "\n",
    ],
)
def test_invalid(text: str) -> None:
    """M1: what is not a traceparent starts no trace and is handed on to nobody."""
    assert not valid_traceparent(text)
    assert parse_traceparent(text) is None
    assert child_traceparent(text) == ""


@given(traceparents, st.booleans())
def test_children_stay_in_their_trace(parent: str, named: bool) -> None:
    """M1: a child has its parent's trace and flag, and a span of its own."""
    child = child_traceparent(parent, span_id_of("run") if named else "")
    before, after = parse_traceparent(parent), parse_traceparent(child)
    assert before is not None
    assert after is not None
    assert (after.trace_id, after.sampled) == (before.trace_id, before.sampled)
    assert after.span_id != before.span_id


def test_span_ids_survive_a_restart() -> None:
    """M1, S4, Lesson 36: the span id of an attempt is always the same, and that of another attempt, step or run another."""
    assert span_id_of("run", "fetch", 1) == "3c052041e4bda9aa"
    ids = {span_id_of(run, step, attempt) for run in "ab" for step in ("", "x", "y") for attempt in range(4)}
    assert len(ids) == 24
    assert span_id_of("a", "x", 1) == span_id_of("a", "x", 1)


@given(st.integers(1, 2**128 - 1), st.floats(0, 1))
def test_sampling_decides_like_opentelemetry(trace: int, ratio: float) -> None:
    """M1: every process decides alike by the trace id alone, ours and those that use OpenTelemetry's sampler."""
    theirs = TraceIdRatioBased(ratio).should_sample(None, trace, "x").decision is Decision.RECORD_AND_SAMPLE
    assert sampled_by_ratio(f"{trace:032x}", ratio) == theirs


def test_new_traces() -> None:
    """S4: a new trace has ids whether it is recorded or not."""
    for ratio, flag in ((1.0, "01"), (0.0, "00")):
        made = new_traceparent(ratio=ratio)
        assert valid_traceparent(made)
        assert made.endswith(flag)
    assert new_traceparent() != new_traceparent()
