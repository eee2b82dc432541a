"""The parts of the contract that requests share, each checked by one function that adds what it finds to a list."""

from __future__ import annotations

import math
import re
import time
from typing import Any, Final

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value as JsonValue
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.common.v1.execution_pb2 import (
    ExecutionContext,
    ExecutionOptions,
    ResourceAllocation,
    RetryPolicy,
)
from tierflow_contracts.common.v1.flow_pb2 import FlowRef
from tierflow_contracts.common.v1.payload_pb2 import BlobRef, Payload

from tierflow_runtime.names import FAILURE_POLICIES, ON_LOST
from tierflow_runtime.tracecontext import valid_traceparent
from tierflow_runtime.values import Micros, Violation
from tierflow_runtime.wire import micros, plain_value

LONGEST_TEXT: Final = 200
LONGEST_STEP_ID: Final = 500
LONGEST_TRACESTATE: Final = 512
LARGEST_INLINE: Final = 1024 * 1024
"""Bytes of the largest value that may be sent inline."""
LARGEST_SOURCE: Final = 1024 * 1024
DEEPEST_VALUE: Final = 100
DEEPEST_CONTEXT: Final = 64
MOST_LABELS: Final = 32
LONGEST_LABEL: Final = 128
MOST_ATTEMPTS: Final = 1000
RESERVED_LABELS: Final = ("tierflow.", "tierflow/")
PLACEHOLDERS: Final = frozenset(
    {
        "none",
        "null",
        "nil",
        "undefined",
        "unknown",
        "placeholder",
        "todo",
        "tbd",
        "changeme",
        "n/a",
        "nan",
        "string",
        "<id>",
    }
)
"""What code writes where it has no value: never an identity (L2)."""

_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
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
    "traceparent": LONGEST_TEXT,
    "tracestate": LONGEST_TRACESTATE,
}
_SHORT_ENOUGH: Final = 200
_MOST_SECONDS: Final = 315_576_000_000  # ten thousand years, the contract's own limit for durations
_TIMES: Final = ("timeout", "heartbeat_timeout")


class CodedViolation(Violation, frozen=True):
    """A violation that has a more telling code than INVALID_REQUEST."""

    code: str = ""


def check_context(context: ExecutionContext, found: list[Violation], now: Micros | None) -> None:
    """Texts, ids, labels, depth, trace and deadline of a context. Which ids are required depends on the request and is not looked at here."""
    texts = (
        context.tenant, context.user_id, context.step_id, context.attempt_id, context.parent_id, context.root_id, context.correlation_id, context.request_id,
        context.idempotency_key, context.swarm_id, context.run_id, context.tracestate,
    )  # fmt: skip
    joined = "".join(texts)
    if "\0" in joined or (len(joined) > _SHORT_ENOUGH and max(map(len, texts)) > _SHORT_ENOUGH):
        for name, longest in _CONTEXT_TEXTS.items():
            check_text(f"context.{name}", getattr(context, name), found, longest=longest)
    for name, value in (("tenant", texts[0]), ("user_id", texts[1])):
        if value.lower() in PLACEHOLDERS or value != value.strip():
            found.append(
                Violation(
                    field=f"context.{name}",
                    description=f"{value!r} is a placeholder or has blanks around it, not an identity",
                )
            )
    for name, value in (("parent_id", texts[4]), ("root_id", texts[5])):
        if value:
            check_uuid(f"context.{name}", value, found)
    if context.depth > DEEPEST_CONTEXT:
        found.append(
            Violation(
                field="context.depth", description=f"is {context.depth}; at most {DEEPEST_CONTEXT} levels may be nested"
            )
        )
    if context.traceparent and not valid_traceparent(context.traceparent):
        found.append(
            Violation(
                field="context.traceparent", description="is not a W3C traceparent; leave it empty to start a trace"
            )
        )
    if context.labels:
        _check_labels(context, found)
    _check_deadline(context, found, now)


def _check_deadline(context: ExecutionContext, found: list[Violation], now: Micros | None) -> None:
    if context.HasField("time_remaining"):
        if not _sound_duration("context.time_remaining", context.time_remaining, found):
            return
        if micros(context.time_remaining) > 0:
            return
    elif context.HasField("deadline"):
        if not _sound_timestamp("context.deadline", context.deadline, found):
            return
        if micros(context.deadline) > (time.time_ns() // 1000 if now is None else now):
            return
    else:
        return
    found.append(CodedViolation(field="context.deadline", description="has passed", code="DEADLINE_EXCEEDED"))


def _check_labels(context: ExecutionContext, found: list[Violation]) -> None:
    labels = context.labels
    if len(labels) > MOST_LABELS:
        found.append(
            Violation(
                field="context.labels", description=f"has {len(labels)} labels; at most {MOST_LABELS} are allowed"
            )
        )
    for key, value in labels.items():
        path = f"context.labels[{key[:LONGEST_LABEL]!r}]"
        if not key:
            found.append(Violation(field=path, description="has an empty key"))
        if key.startswith(RESERVED_LABELS):
            found.append(
                Violation(
                    field=path,
                    description=f"keys that begin with {RESERVED_LABELS[0]!r} or {RESERVED_LABELS[1]!r} are reserved",
                )
            )
        for part, text in (("key", key), ("value", value)):
            if len(text) > LONGEST_LABEL:
                found.append(
                    Violation(
                        field=path,
                        description=f"its {part} has {len(text)} characters; at most {LONGEST_LABEL} are allowed",
                    )
                )
            if "\0" in text:
                found.append(Violation(field=path, description=f"its {part} holds a NUL character"))


def check_text(
    path: str, text: str, found: list[Violation], *, required: bool = False, longest: int = LONGEST_TEXT
) -> None:
    """A text: there if it must be, not too long, without NUL (which Postgres cannot store, Lesson 28)."""
    if not text:
        if required:
            found.append(Violation(field=path, description="required"))
        return
    if len(text) > longest:
        found.append(Violation(field=path, description=f"has {len(text)} characters; at most {longest} are allowed"))
    if "\0" in text:
        found.append(Violation(field=path, description="holds a NUL character"))


def check_uuid(path: str, text: str, found: list[Violation], *, required: bool = False) -> None:
    """A UUIDv7 in lower case."""
    if _UUID7.fullmatch(text) is None and (text or required):
        found.append(
            Violation(field=path, description=f"{text[:60]!r} is not a UUIDv7 in lower case" if text else "required")
        )


def check_allocation(allocation: ResourceAllocation, found: list[Violation]) -> None:
    """Limits: none is negative."""
    for field, value in allocation.ListFields():
        if field.name == "wall_time":
            if _sound_duration("allocation.wall_time", value, found) and micros(value) <= 0:
                found.append(Violation(field="allocation.wall_time", description="must be longer than nothing"))
        elif value < 0:
            found.append(
                Violation(field=f"allocation.{field.name}", description=f"is {value}; a limit cannot be negative")
            )


def check_options(options: ExecutionOptions, found: list[Violation]) -> None:
    """Options: within their ranges, and only policies that this build knows."""
    for field, value in options.ListFields():
        name = field.name
        if name == "priority":
            if not -100 <= value <= 100:
                found.append(Violation(field="options.priority", description=f"is {value}; -100 to 100 are allowed"))
        elif name in _TIMES:
            if _sound_duration(f"options.{name}", value, found) and micros(value) <= 0:
                found.append(Violation(field=f"options.{name}", description="must be longer than nothing"))
        elif name == "retry":
            _check_retry(value, found)
        elif name == "not_before":
            _sound_timestamp("options.not_before", value, found)
        elif name == "strategy":
            check_text("options.strategy", value, found)
    _check_policies(options, found)


def _check_policies(options: ExecutionOptions, found: list[Violation]) -> None:
    if options.failure_policy and not FAILURE_POLICIES.knows(options.failure_policy):
        found.append(
            Violation(
                field="options.failure_policy",
                description=f"{options.failure_policy} is not a known policy: {', '.join(FAILURE_POLICIES.names)}",
            )
        )
    if options.on_lost and not ON_LOST.knows(options.on_lost):
        found.append(
            Violation(
                field="options.on_lost", description=f"{options.on_lost} is not known: {', '.join(ON_LOST.names)}"
            )
        )


def _check_retry(policy: RetryPolicy, found: list[Violation]) -> None:
    if policy.HasField("max_attempts") and not 1 <= policy.max_attempts <= MOST_ATTEMPTS:
        found.append(
            Violation(
                field="options.retry.max_attempts",
                description=f"is {policy.max_attempts}; 1 to {MOST_ATTEMPTS} are allowed",
            )
        )
    if policy.HasField("factor") and not (math.isfinite(policy.factor) and policy.factor >= 1):
        found.append(Violation(field="options.retry.factor", description=f"is {policy.factor}; at least 1 is needed"))
    if policy.HasField("jitter") and not 0 <= policy.jitter <= 1:
        found.append(Violation(field="options.retry.jitter", description=f"is {policy.jitter}; 0 to 1 are allowed"))
    for name in ("initial_delay", "max_delay"):
        value: Duration = getattr(policy, name)
        if policy.HasField(name) and _sound_duration(f"options.retry.{name}", value, found) and micros(value) < 0:
            found.append(Violation(field=f"options.retry.{name}", description="is negative"))
    for name in ("retry_on", "never_retry_on"):
        for index, code in enumerate(getattr(policy, name)):
            check_text(f"options.retry.{name}[{index}].name", code.name, found, required=True)


def check_flow_ref(path: str, ref: FlowRef | None, found: list[Violation]) -> None:
    """A reference to a flow: by name, by hash, or with its source."""
    if ref is None or not (ref.name or ref.hash or ref.HasField("source")):
        found.append(Violation(field=path, description="required: a name, a hash or a source"))
        return
    check_text(f"{path}.name", ref.name, found)
    check_text(f"{path}.version", ref.version, found)
    if ref.hash and _HASH.fullmatch(ref.hash) is None:
        found.append(Violation(field=f"{path}.hash", description="is not a SHA-256 in 64 lower-case hex digits"))
    if ref.HasField("source"):
        form = ref.source.WhichOneof("text")
        text = getattr(ref.source, form) if form else ""
        if not text:
            found.append(Violation(field=f"{path}.source", description="required: yaml or json"))
        elif len(text.encode()) > LARGEST_SOURCE:
            found.append(_too_large(f"{path}.source.{form}", len(text.encode()), "split the flow into sub-flows"))
        elif "\0" in text:
            found.append(Violation(field=f"{path}.source.{form}", description="holds a NUL character"))


def check_payload(path: str, payload: Payload, found: list[Violation], *, must_be_object: bool = False) -> None:
    """A value: sound JSON of bearable size and depth, without NUL; an object where one is asked for. None at all is allowed."""
    kind = payload.WhichOneof("kind")
    if kind is None:
        return
    if kind == "ref":
        _check_blob_ref(f"{path}.ref", payload.ref, found)
        return
    text = payload.json if kind == "json" else _text_of(payload.value)
    where = f"{path}.{kind}"
    if text is None:
        found.append(
            Violation(
                field=where, description="holds a value of no kind, or a number that is not finite; JSON has neither"
            )
        )
        return
    size = len(text) if text.isascii() else len(text.encode())
    if size > LARGEST_INLINE:
        found.append(_too_large(where, size, "store it as a blob and send its `ref`"))
        return
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        found.append(Violation(field=where, description=f"is not JSON: {error}"))
        return
    if must_be_object and not isinstance(value, dict):
        found.append(Violation(field=where, description="must be a JSON object"))
    if "\\u0000" in text and _any_text(value, "\0"):
        found.append(Violation(field=where, description="holds a NUL character (\\u0000)"))
    if text.count("[") + text.count("{") > DEEPEST_VALUE and _depth(value) > DEEPEST_VALUE:
        found.append(Violation(field=where, description=f"is nested more than {DEEPEST_VALUE} levels deep"))


def _text_of(value: JsonValue) -> str | None:
    return orjson.dumps(plain_value(value)).decode() if _sound_value(value) else None


def _sound_value(value: JsonValue) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return math.isfinite(value.number_value)
    if kind == "struct_value":
        return all(map(_sound_value, value.struct_value.fields.values()))
    if kind == "list_value":
        return all(map(_sound_value, value.list_value.values))
    return kind is not None


def _check_blob_ref(path: str, ref: BlobRef, found: list[Violation]) -> None:
    if _HASH.fullmatch(ref.sha256) is None:
        found.append(Violation(field=f"{path}.sha256", description="is not a SHA-256 in 64 lower-case hex digits"))
    if ref.size < 0:
        found.append(Violation(field=f"{path}.size", description="is negative"))
    check_text(f"{path}.media_type", ref.media_type, found)


def _too_large(path: str, size: int, way: str) -> CodedViolation:
    return CodedViolation(
        field=path,
        description=f"has {size} bytes; at most {LARGEST_INLINE} may be sent inline: {way}",
        code="PAYLOAD_TOO_LARGE",
    )


def _any_text(value: Any, wanted: str) -> bool:
    """Whether any text within a JSON value, keys included, holds `wanted`. Iterative: values may be deep."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            if wanted in item:
                return True
        elif isinstance(item, dict):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
    return False


def _depth(value: Any) -> int:
    """How many arrays and objects are nested within each other at most."""
    deepest = 0
    level = [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


def _sound_duration(path: str, value: Duration, found: list[Violation]) -> bool:
    if abs(value.seconds) <= _MOST_SECONDS and abs(value.nanos) < 1_000_000_000 and value.seconds * value.nanos >= 0:
        return True
    found.append(Violation(field=path, description="is not a valid duration"))
    return False


def _sound_timestamp(path: str, value: Timestamp, found: list[Violation]) -> bool:
    if 0 <= value.seconds < 253_402_300_800 and 0 <= value.nanos < 1_000_000_000:
        return True
    found.append(Violation(field=path, description="is not a moment between 1970 and 9999"))
    return False
