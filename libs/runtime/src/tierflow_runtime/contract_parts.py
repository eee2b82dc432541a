"""The parts that the three execution requests share - context, allocation, options, flow - each checked by one function that adds what it finds to a list."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from tierflow_contracts.common.v1.execution_pb2 import (
    ExecutionContext,
    ExecutionOptions,
    ResourceAllocation,
    RetryPolicy,
)
from tierflow_contracts.common.v1.flow_pb2 import FlowRef

from tierflow_runtime.coded import CodedViolation
from tierflow_runtime.contract_basics import (
    HASH,
    LARGEST_INLINE,
    LAST_GENERATION,
    LONGEST_STEP_ID,
    LONGEST_TEXT,
    PLACEHOLDERS,
    check_not_negative,
    check_text,
    check_uuid,
    sound_duration,
    sound_timestamp,
    too_large,
)
from tierflow_runtime.names import FAILURE_POLICIES, ON_LOST
from tierflow_runtime.tracecontext import valid_traceparent
from tierflow_runtime.values import Micros, Violation
from tierflow_runtime.wire import micros

LONGEST_TRACESTATE: Final = 512
DEEPEST_CONTEXT: Final = 64
MOST_LABELS: Final = 32
MOST_ROLES: Final = 64
LONGEST_LABEL: Final = 128
MOST_ATTEMPTS: Final = 1000
RESERVED_LABELS: Final = ("tierflow.", "tierflow/")

_CONTEXT_TEXTS: Final = {
    "tenant": LONGEST_TEXT,
    "user_id": LONGEST_TEXT,
    "swarm_id": LONGEST_TEXT,
    "run_id": LONGEST_TEXT,
    "step_id": LONGEST_STEP_ID,
    "attempt_id": LONGEST_STEP_ID,
    "parent_id": LONGEST_TEXT,
    "root_id": LONGEST_TEXT,
    "correlation_id": LONGEST_TEXT,
    "request_id": LONGEST_TEXT,
    "idempotency_key": 2 * LONGEST_STEP_ID,
    "tracestate": LONGEST_TRACESTATE,
}


def check_context(context: ExecutionContext, found: list[Violation], now: Micros | None) -> None:
    """Texts, ids, labels, depth, trace and deadline of a context. Which ids are required depends on the request and is not looked at here."""
    tenant, user_id, parent_id, root_id = context.tenant, context.user_id, context.parent_id, context.root_id
    texts = (
        tenant, user_id, parent_id, root_id, context.step_id, context.attempt_id, context.correlation_id, context.request_id,
        context.idempotency_key, context.swarm_id, context.run_id, context.tracestate,
    )  # fmt: skip
    # All texts together are looked at first: nearly always each is shorter than the least limit, and none has a NUL.
    if max(map(len, texts)) > LONGEST_TEXT or "\0" in "".join(texts):
        for name, longest in _CONTEXT_TEXTS.items():
            check_text(f"context.{name}", getattr(context, name), found, longest=longest)
    _check_identity("tenant", tenant, found)
    _check_identity("user_id", user_id, found)
    check_uuid("context.parent_id", parent_id, found)
    check_uuid("context.root_id", root_id, found)
    if context.depth > DEEPEST_CONTEXT:
        wrong = f"is {context.depth}; at most {DEEPEST_CONTEXT} levels may be nested"
        found.append(Violation(field="context.depth", description=wrong))
    if context.generation > LAST_GENERATION:
        wrong = f"is {context.generation}; at most {LAST_GENERATION} are counted"
        found.append(Violation(field="context.generation", description=wrong))
    if context.traceparent and not valid_traceparent(context.traceparent):
        wrong = "is not a W3C traceparent; leave it empty to start a trace"
        found.append(Violation(field="context.traceparent", description=wrong))
    if context.labels or context.roles:
        _check_labels(context, found)
    _check_deadline(context, found, now)


def _check_identity(name: str, value: str, found: list[Violation]) -> None:
    if value.lower() in PLACEHOLDERS or value != value.strip():
        wrong = f"{value!r} is a placeholder or has blanks around it, not an identity"
        found.append(Violation(field=f"context.{name}", description=wrong))


def _check_deadline(context: ExecutionContext, found: list[Violation], now: Micros | None) -> None:
    """A deadline that is given has not passed; time remaining counts before the absolute moment (rule R17)."""
    if context.HasField("time_remaining"):
        left = context.time_remaining
        if not sound_duration("context.time_remaining", left, found) or micros(left) > 0:
            return
    elif context.HasField("deadline"):
        deadline = context.deadline
        if not sound_timestamp("context.deadline", deadline, found):
            return
        if micros(deadline) > (time.time_ns() // 1000 if now is None else now):
            return
    else:
        return
    found.append(CodedViolation(field="context.deadline", description="has passed", code="DEADLINE_EXCEEDED"))


def _check_labels(context: ExecutionContext, found: list[Violation]) -> None:
    labels = context.labels
    if len(context.roles) > MOST_ROLES:
        wrong = f"has {len(context.roles)} roles; at most {MOST_ROLES} are allowed"
        found.append(Violation(field="context.roles", description=wrong))
    for index, role in enumerate(context.roles[:MOST_ROLES]):
        check_text(f"context.roles[{index}]", role, found)
    if len(labels) > MOST_LABELS:
        wrong = f"has {len(labels)} labels; at most {MOST_LABELS} are allowed"
        found.append(Violation(field="context.labels", description=wrong))
    for key, value in labels.items():
        wrongs = _label_wrongs(key, value)
        if wrongs:
            path = f"context.labels[{key[:LONGEST_LABEL]!r}]"
            found.extend(Violation(field=path, description=wrong) for wrong in wrongs)


def _label_wrongs(key: str, value: str) -> list[str]:
    wrongs = []
    if not key or key.startswith(RESERVED_LABELS):
        wrongs.append(f"its key is empty or begins with {' or '.join(RESERVED_LABELS)}, which are reserved")
    if len(key) > LONGEST_LABEL or len(value) > LONGEST_LABEL:
        wrongs.append(
            f"has {max(len(key), len(value))} characters in key or value; at most {LONGEST_LABEL} are allowed"
        )
    if "\0" in key or "\0" in value:
        wrongs.append("holds a NUL character")
    return wrongs


def check_allocation(allocation: ResourceAllocation, found: list[Violation]) -> None:
    """Limits: none is negative."""
    for field, value in allocation.ListFields():
        if field.name == "wall_time":
            _check_length("allocation.wall_time", value, found)
        else:
            check_not_negative(f"allocation.{field.name}", value, found)


def check_options(options: ExecutionOptions, found: list[Violation]) -> None:
    """Options: within their ranges, and only policies that this build knows."""
    for field, value in options.ListFields():
        check = _OPTIONS.get(field.name)
        if check is not None:
            check(f"options.{field.name}", value, found)


def _check_priority(path: str, value: int, found: list[Violation]) -> None:
    if not -100 <= value <= 100:
        found.append(Violation(field=path, description=f"is {value}; -100 to 100 are allowed"))


def _check_length(path: str, value: Any, found: list[Violation]) -> None:
    if sound_duration(path, value, found) and micros(value) <= 0:
        found.append(Violation(field=path, description="must be longer than nothing"))


def _check_failure_policy(path: str, value: int, found: list[Violation]) -> None:
    if not FAILURE_POLICIES.knows(value):
        found.append(Violation(field=path, description=f"{value} is not one of {', '.join(FAILURE_POLICIES.names)}"))


def _check_on_lost(path: str, value: int, found: list[Violation]) -> None:
    if not ON_LOST.knows(value):
        found.append(Violation(field=path, description=f"{value} is not one of {', '.join(ON_LOST.names)}"))


def _check_retry(path: str, policy: RetryPolicy, found: list[Violation]) -> None:
    has = policy.HasField
    ranges = (
        ("max_attempts", 1, MOST_ATTEMPTS),
        ("factor", 1.0, 1000.0),
        ("jitter", 0.0, 1.0),
    )
    for name, least, most in ranges:
        value = getattr(policy, name)
        if has(name) and not (math.isfinite(value) and least <= value <= most):  # type: ignore[arg-type]
            found.append(Violation(field=f"{path}.{name}", description=f"is {value}; {least} to {most} are allowed"))
    for name in ("initial_delay", "max_delay"):
        delay = getattr(policy, name)
        if sound_duration(f"{path}.{name}", delay, found):
            check_not_negative(f"{path}.{name}", micros(delay), found)
    for name in ("retry_on", "never_retry_on"):
        for index, code in enumerate(getattr(policy, name)):
            check_text(f"{path}.{name}[{index}].name", code.name, found, required=True)


_OPTIONS: Final[dict[str, Any]] = {
    "priority": _check_priority,
    "timeout": _check_length,
    "heartbeat_timeout": _check_length,
    "retry": _check_retry,
    "not_before": sound_timestamp,
    "strategy": check_text,
    "failure_policy": _check_failure_policy,
    "on_lost": _check_on_lost,
}


def check_flow_ref(path: str, ref: FlowRef | None, found: list[Violation]) -> None:
    """A reference to a flow: by name, by hash, or with its source."""
    if ref is None or not ref.ListFields():
        found.append(Violation(field=path, description="required: a name, a hash or a source"))
        return
    check_text(f"{path}.name", ref.name, found, required=not (ref.hash or ref.HasField("source")))
    check_text(f"{path}.version", ref.version, found)
    if ref.hash and HASH.fullmatch(ref.hash) is None:
        found.append(Violation(field=f"{path}.hash", description="is not a SHA-256 in 64 lower-case hex digits"))
    if ref.HasField("source"):
        _check_source(path, ref, found)


def _check_source(path: str, ref: FlowRef, found: list[Violation]) -> None:
    form = ref.source.WhichOneof("text")
    text: str = getattr(ref.source, form) if form else ""
    size = len(text.encode())
    if size > LARGEST_INLINE:
        found.append(too_large(f"{path}.source.{form}", size, "split the flow into sub-flows"))
    else:
        check_text(f"{path}.source.{form or 'yaml'}", text, found, required=True, longest=LARGEST_INLINE)
