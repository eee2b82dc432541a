"""Shared values: immutable, and added up exactly."""

import msgspec
import pytest
from hypothesis import given
from runtime_samples import run_context, usages
from tierflow_runtime import values
from tierflow_runtime.values import NO_USAGE, Context, Usage, Value


@pytest.mark.parametrize(
    "kind", [one for one in vars(values).values() if isinstance(one, type) and issubclass(one, Value)]
)
def test_values_are_immutable(kind: type) -> None:
    """L1: no shared value can be changed after it was made."""
    assert kind.__struct_config__.frozen


def test_children_are_derived() -> None:
    """L1: a child's context is a new one; the parent's stays as it was."""
    parent = run_context()
    child = msgspec.structs.replace(parent, step_id="fetch", attempt=1)
    assert (parent.step_id, parent.attempt) == ("", 0)
    assert (child.step_id, child.run_id, child.tenant) == ("fetch", parent.run_id, parent.tenant)
    with pytest.raises(AttributeError):
        child.tenant = "other"  # type: ignore[misc]


def test_defaults_are_not_shared() -> None:
    """L1, L4: two contexts never share a container."""
    one, other = Context(), Context()
    assert one.labels is not other.labels


def test_trace_id() -> None:
    """S4: the trace id is read from the traceparent, empty where there is none."""
    context = run_context()
    assert context.trace_id == context.traceparent.split("-")[1]
    assert Context().trace_id == ""


@given(usages, usages)
def test_usages_add_up(one: Usage, other: Usage) -> None:
    """D4, A9: everything is summed as integers but memory, which is a peak; nothing used is neutral."""
    both = one.plus(other)
    assert both.credits == one.credits + other.credits
    assert both.memory_bytes == max(one.memory_bytes, other.memory_bytes)
    assert set(both.metrics) == set(one.metrics) | set(other.metrics)
    for name in ("wall_time", "cpu_time", "steps", "attempts", "tool_calls", "input_tokens", "output_tokens"):
        assert getattr(both, name) == getattr(one, name) + getattr(other, name) == getattr(other.plus(one), name)
    assert one.plus(NO_USAGE) == one
