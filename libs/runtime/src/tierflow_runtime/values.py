"""The values that the pure cores of all tiers share: context, allocation, options, usage, failure, payload.

They mirror the messages of `tierflow.common.v1` and know nothing of protobuf; `tierflow_runtime.wire` converts. Times are integers: microseconds since the
epoch for moments, microseconds for durations. Money is integer micro-credits.
"""

from __future__ import annotations

from typing import TypeAlias, dataclass_transform

import msgspec

Micros: TypeAlias = int
"""A moment (since the epoch) or a duration, in microseconds."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of immutable values."""


class BlobRef(Value, frozen=True):
    """Names a stored value by its content: SHA-256 in hex, its length in bytes, its media type."""

    sha256: str
    size: int
    media_type: str = "application/json"


Payload: TypeAlias = str | BlobRef
"""A JSON text, or a reference to one that is stored. No value at all is None."""


class Violation(Value, frozen=True):
    """One breach of a contract: the path of the field, what is wrong, and the line in the source text (0 where there is none)."""

    field: str
    description: str
    line: int = 0


class Failure(Value, frozen=True):
    """A thing that went wrong. `code` is a name of the catalogue without its prefix, such as TIMEOUT; `tier` is 1, 2 or 3."""

    code: str
    message: str
    tier: int = 0
    component: str = ""
    operation: str = ""
    retryable: bool = False
    retry_after: Micros | None = None
    attempt: int = 0
    step_id: str = ""
    detail: str = ""
    cause: Failure | None = None
    violations: tuple[Violation, ...] = ()


class Usage(Value, frozen=True):
    """What was measured. Durations in microseconds."""

    credits: int = 0
    wall_time: Micros = 0
    cpu_time: Micros = 0
    memory_bytes: int = 0
    steps: int = 0
    attempts: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    metrics: dict[str, float] = {}

    def plus(self, other: Usage) -> Usage:
        """The sum of two usages; memory is the greater of the two."""
        metrics = self.metrics
        if other.metrics:
            metrics = dict(metrics)
            for name, number in other.metrics.items():
                metrics[name] = metrics.get(name, 0.0) + number
        return Usage(
            credits=self.credits + other.credits,
            wall_time=self.wall_time + other.wall_time,
            cpu_time=self.cpu_time + other.cpu_time,
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
            steps=self.steps + other.steps,
            attempts=self.attempts + other.attempts,
            tool_calls=self.tool_calls + other.tool_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            metrics=metrics,
        )


NO_USAGE = Usage()


class Allocation(Value, frozen=True):
    """Hard limits; None is not limited."""

    credits: int | None = None
    wall_time: Micros | None = None
    memory_bytes: int | None = None
    concurrent_steps: int | None = None
    steps: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    depth: int | None = None


NO_ALLOCATION = Allocation()
"""Nothing is limited. What comes from a message without limits is this one."""


class RetryPolicy(Value, frozen=True):
    """When a failed attempt is tried again. Delays in microseconds; `jitter` is a share of the delay, either way."""

    max_attempts: int = 3
    initial_delay: Micros = 1_000_000
    factor: float = 2.0
    max_delay: Micros = 60_000_000
    jitter: float = 0.2
    retry_on: tuple[str, ...] = ()
    never_retry_on: tuple[str, ...] = ()


class Options(Value, frozen=True):
    """How an execution runs. `failure_policy` is FAIL_FAST, CONTINUE or PAUSE; `on_lost` is RETRY, FAIL or ASK; empty is inherited."""

    priority: int = 0
    timeout: Micros | None = None
    retry: RetryPolicy | None = None
    failure_policy: str = ""
    not_before: Micros | None = None
    strategy: str = ""
    test_mode: bool = False
    emergent: bool = False
    heartbeat_timeout: Micros | None = None
    on_lost: str = ""
    validate_only: bool = False
    breakpoints: tuple[str, ...] = ()


class Reuse(Value, frozen=True):
    """Of which other run a run was made, and the finished steps of that one whose results it starts with."""

    run_id: str
    step_ids: tuple[str, ...]
    swarm_id: str = ""
    """The other run's swarm."""
    kind: str = ""
    """`rerun`, `fork`, `replay` or `dead_letter`."""
    checkpoint: str = ""
    at_seq: int = 0
    """Where the checkpoint is in the other run's history; 0 for its latest state."""
    traceparent: str = ""
    """Of the other swarm."""


class Context(Value, frozen=True):
    """Who, where, which trace. Never changed: children are derived with `msgspec.structs.replace`."""

    tenant: str = ""
    user_id: str = ""
    swarm_id: str = ""
    run_id: str = ""
    step_id: str = ""
    attempt: int = 0
    attempt_id: str = ""
    parent_id: str = ""
    root_id: str = ""
    correlation_id: str = ""
    request_id: str = ""
    idempotency_key: str = ""
    epoch: int = 0
    depth: int = 0
    deadline: Micros | None = None
    traceparent: str = ""
    tracestate: str = ""
    labels: dict[str, str] = {}
    generation: int = 1
    roles: tuple[str, ...] = ()
    ancestors: tuple[str, ...] = ()

    @property
    def trace_id(self) -> str:
        """The trace id within `traceparent`, 32 hex digits, or an empty string."""
        return self.traceparent[3:35] if len(self.traceparent) >= 55 else ""


class LogLine(Value, frozen=True):
    """One line that an attempt wrote; `stream` is stdout, stderr or a log level."""

    time: Micros
    stream: str
    text: str


class FailureError(Exception):
    """An error that carries a failure: what a caller sees of it is the failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure
