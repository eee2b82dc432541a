"""Core values written into messages that are there already.

On the hot path a message that is built apart is copied into the one that holds it, at several times the cost (measured: 2.4 against 7.0 µs for the event of a
completed step, 2.0 against 6.7 µs for the request of an attempt).
"""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.common.v1 import execution_pb2 as ex
from tierflow_contracts.common.v1 import payload_pb2 as pa

from tierflow_runtime.values import NO_ALLOCATION, Allocation, BlobRef, Context, Micros, Payload, Usage

_MILLION: Final = 1_000_000


def fill_time(message: Timestamp | Duration, value: Micros) -> None:
    """A moment, or a duration that is not negative, in microseconds."""
    seconds, rest = divmod(value, _MILLION)
    message.seconds = seconds
    message.nanos = rest * 1000


def fill_payload(message: pa.Payload, payload: Payload | None) -> None:
    """A payload; nothing is written where there is none."""
    if isinstance(payload, str):
        message.json = payload
    elif payload is not None:
        _fill_ref(message.ref, payload)


def _fill_ref(message: pa.BlobRef, ref: BlobRef) -> None:
    message.sha256 = ref.sha256
    message.size = ref.size
    message.media_type = ref.media_type


def fill_usage(message: ex.Usage, usage: Usage) -> None:
    """A usage; the message counts as present although nothing was used."""
    message.SetInParent()
    if usage.wall_time:
        fill_time(message.wall_time, usage.wall_time)
    if usage.cpu_time:
        fill_time(message.cpu_time, usage.cpu_time)
    if usage.memory_bytes:
        message.memory_bytes = usage.memory_bytes
    message.steps = usage.steps
    message.attempts = usage.attempts
    if usage.metrics or usage.tool_calls or usage.input_tokens or usage.output_tokens or usage.credits:
        message.credits = usage.credits
        message.tool_calls = usage.tool_calls
        message.input_tokens = usage.input_tokens
        message.output_tokens = usage.output_tokens
        message.metrics.update(usage.metrics)


def fill_allocation(message: ex.ResourceAllocation, allocation: Allocation) -> None:
    """An allocation; the message counts as present although nothing is limited."""
    message.SetInParent()
    if allocation is NO_ALLOCATION:
        return
    if allocation.wall_time is not None:
        fill_time(message.wall_time, allocation.wall_time)
    for name in ("credits", "memory_bytes", "concurrent_steps", "steps", "tool_calls", "tokens", "depth"):
        limit = getattr(allocation, name)
        if limit is not None:
            setattr(message, name, limit)


def fill_context(message: ex.ExecutionContext, context: Context, *, labels: bool = True) -> None:
    """A context; `labels`: whether to carry labels and roles."""
    message.tenant = context.tenant
    message.user_id = context.user_id
    message.swarm_id = context.swarm_id
    message.run_id = context.run_id
    message.root_id = context.root_id
    message.correlation_id = context.correlation_id
    message.parent_id = context.parent_id
    message.request_id = context.request_id
    message.traceparent = context.traceparent
    message.generation = context.generation
    message.depth = context.depth
    if context.step_id or context.epoch or context.attempt or context.attempt_id or context.idempotency_key:
        _fill_attempt(message, context)
    if context.deadline is not None:
        fill_time(message.deadline, context.deadline)
    if context.tracestate:
        message.tracestate = context.tracestate
    if labels:
        _fill_marks(message, context)


def _fill_marks(message: ex.ExecutionContext, context: Context) -> None:
    if context.labels:
        message.labels.update(context.labels)
    if context.roles:
        message.roles.extend(context.roles)
    if context.ancestors:
        message.ancestors.extend(context.ancestors)


def _fill_attempt(message: ex.ExecutionContext, context: Context) -> None:
    message.step_id = context.step_id
    message.attempt = context.attempt
    message.attempt_id = context.attempt_id
    message.epoch = context.epoch
    message.idempotency_key = context.idempotency_key
