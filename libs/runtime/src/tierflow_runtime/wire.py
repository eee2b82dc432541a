"""Core values to protobuf messages and back: the one place where the two meet for what all tiers share.

On the hot path (several calls per step): default values cost nothing to convert, and numbers never pass through floating point (A9).
"""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.common.v1 import execution_pb2 as ex
from tierflow_contracts.common.v1 import failure_pb2 as fa

from tierflow_runtime.filling import fill_context, fill_time, fill_usage
from tierflow_runtime.ledger import DIMENSIONS, Balance, Ledger
from tierflow_runtime.names import (
    ERROR_CODES,
    FAILURE_POLICIES,
    ON_LOST,
    OUTCOMES,
    RUN_STATES,
    STEP_STATES,
    SWARM_STATES,
    EnumNames,
)
from tierflow_runtime.payloads import (
    blob_ref_from_proto,
    blob_ref_to_proto,
    json_value,
    payload_from_proto,
    payload_to_proto,
    plain_value,
)
from tierflow_runtime.values import (
    NO_ALLOCATION,
    NO_USAGE,
    Allocation,
    Context,
    Failure,
    Micros,
    Options,
    RetryPolicy,
    Usage,
    Violation,
)

__all__ = [
    "ERROR_CODES", "FAILURE_POLICIES", "ON_LOST", "OUTCOMES", "RUN_STATES", "STEP_STATES", "SWARM_STATES", "EnumNames", "allocation_from_proto",
    "allocation_to_proto", "blob_ref_from_proto", "blob_ref_to_proto", "context_from_proto", "context_to_proto", "duration", "failure_from_proto",
    "failure_to_proto", "fill_options", "json_value", "micros", "options_from_proto", "options_to_proto", "payload_from_proto", "payload_to_proto", "plain_value",
    "retry_policy_from_proto", "retry_policy_to_proto", "timestamp", "usage_from_proto", "usage_to_proto", "violation_from_proto", "violation_to_proto",
]  # fmt: skip

_MILLION: Final = 1_000_000
_NO_OPTIONS: Final = Options()
_NO_CONTEXT: Final = Context()
_DEFAULT_RETRY: Final = RetryPolicy()

# Times


def timestamp(at: Micros) -> Timestamp:
    """A moment, in microseconds since the epoch."""
    seconds, rest = divmod(at, _MILLION)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def duration(length: Micros) -> Duration:
    """A length of time, in microseconds; may be negative."""
    if length >= 0:
        seconds, rest = divmod(length, _MILLION)
        return Duration(seconds=seconds, nanos=rest * 1000)
    seconds, rest = divmod(-length, _MILLION)
    return Duration(seconds=-seconds, nanos=-rest * 1000)


def micros(time: Timestamp | Duration) -> Micros:
    """The microseconds of a moment (since the epoch) or of a duration; what is finer is cut off towards zero."""
    nanos = time.nanos
    return time.seconds * _MILLION + (nanos // 1000 if nanos >= 0 else -(-nanos // 1000))


# Context


def context_to_proto(context: Context, *, now: Micros | None = None, labels: bool = True) -> ex.ExecutionContext:
    """A context as a message.

    Args:
        context: The context.
        now: Where given and there is a deadline, `time_remaining` is filled (rule R17).
        labels: Whether to carry the labels; results go without.
    """
    message = ex.ExecutionContext()
    fill_context(message, context, labels=labels)
    if context.deadline is not None and now is not None:
        fill_time(message.time_remaining, max(0, context.deadline - now))
    return message


def context_from_proto(message: ex.ExecutionContext, now: Micros | None = None) -> Context:
    """The context of a message.

    Args:
        message: The message.
        now: The moment of receipt. Where given and the message has `time_remaining`, the deadline is counted from it, so that a sender's clock that
            is wrong shortens or lengthens nothing (rule R17).
    """
    deadline: Micros | None = None
    if now is not None and message.HasField("time_remaining"):
        deadline = now + micros(message.time_remaining)
    elif message.HasField("deadline"):
        deadline = micros(message.deadline)
    labels = message.labels
    return Context(
        tenant=message.tenant,
        user_id=message.user_id,
        swarm_id=message.swarm_id,
        run_id=message.run_id,
        step_id=message.step_id,
        attempt=message.attempt,
        attempt_id=message.attempt_id,
        parent_id=message.parent_id,
        root_id=message.root_id,
        correlation_id=message.correlation_id,
        request_id=message.request_id,
        idempotency_key=message.idempotency_key,
        epoch=message.epoch,
        depth=message.depth,
        deadline=deadline,
        traceparent=message.traceparent,
        tracestate=message.tracestate,
        labels=dict(labels) if labels else {},
        generation=message.generation or 1,
        roles=tuple(message.roles) if message.roles else (),
        ancestors=tuple(message.ancestors) if message.ancestors else (),
    )


# Allocation, options, retry policy


def allocation_to_proto(allocation: Allocation) -> ex.ResourceAllocation:
    """An allocation as a message; None stays unset."""
    if allocation is NO_ALLOCATION:
        return ex.ResourceAllocation()
    wall_time = allocation.wall_time
    return ex.ResourceAllocation(
        credits=allocation.credits,
        wall_time=None if wall_time is None else duration(wall_time),
        memory_bytes=allocation.memory_bytes,
        concurrent_steps=allocation.concurrent_steps,
        steps=allocation.steps,
        tool_calls=allocation.tool_calls,
        tokens=allocation.tokens,
        depth=allocation.depth,
    )


def balance_to_proto(ledger: Ledger) -> ex.Balance:
    """What of an allocation is held, spent and free."""
    return ex.Balance(**{name: _account(ledger.balance(name)) for name in DIMENSIONS})


def _account(balance: Balance) -> ex.Account:
    return ex.Account(
        total=balance.total,
        reserved=balance.reserved,
        consumed=balance.consumed,
        available=balance.available,
        overdrawn=balance.overdrawn,
    )


def allocation_from_proto(message: ex.ResourceAllocation) -> Allocation:
    """The allocation of a message; what is unset is None."""
    fields = message.ListFields()
    if not fields:
        return NO_ALLOCATION
    return Allocation(**{field.name: micros(value) if field.name == "wall_time" else value for field, value in fields})


def options_to_proto(options: Options) -> ex.ExecutionOptions:
    """Options as a message. Raises ValueError for a policy that the contract does not know."""
    if options is _NO_OPTIONS:
        return ex.ExecutionOptions()
    timeout, heartbeat, not_before = options.timeout, options.heartbeat_timeout, options.not_before
    return ex.ExecutionOptions(
        priority=options.priority,
        timeout=None if timeout is None else duration(timeout),
        retry=None if options.retry is None else retry_policy_to_proto(options.retry),
        failure_policy=FAILURE_POLICIES.number(options.failure_policy),
        not_before=None if not_before is None else timestamp(not_before),
        strategy=options.strategy,
        test_mode=options.test_mode,
        emergent=options.emergent,
        heartbeat_timeout=None if heartbeat is None else duration(heartbeat),
        on_lost=ON_LOST.number(options.on_lost),
        validate_only=options.validate_only,
        breakpoints=options.breakpoints,
    )


def fill_options(message: ex.ExecutionOptions, options: Options) -> None:
    """Options written into a message that is there already; it counts as present although nothing is asked for. Raises as `options_to_proto`."""
    if options is _NO_OPTIONS:
        message.SetInParent()
    else:
        message.CopyFrom(options_to_proto(options))


def options_from_proto(message: ex.ExecutionOptions, default_retry: RetryPolicy = _DEFAULT_RETRY) -> Options:
    """The options of a message; what its retry policy leaves unset comes from `default_retry`."""
    if not message.ListFields():
        return _NO_OPTIONS
    has = message.HasField
    return Options(
        priority=message.priority,
        timeout=micros(message.timeout) if has("timeout") else None,
        retry=retry_policy_from_proto(message.retry, default_retry) if has("retry") else None,
        failure_policy=FAILURE_POLICIES.name(message.failure_policy),
        not_before=micros(message.not_before) if has("not_before") else None,
        strategy=message.strategy,
        test_mode=message.test_mode,
        emergent=message.emergent,
        heartbeat_timeout=micros(message.heartbeat_timeout) if has("heartbeat_timeout") else None,
        on_lost=ON_LOST.name(message.on_lost),
        validate_only=message.validate_only,
        breakpoints=tuple(message.breakpoints),
    )


def retry_policy_to_proto(policy: RetryPolicy) -> ex.RetryPolicy:
    """A retry policy as a message, with every field set."""
    return ex.RetryPolicy(
        max_attempts=policy.max_attempts,
        initial_delay=duration(policy.initial_delay),
        factor=policy.factor,
        max_delay=duration(policy.max_delay),
        jitter=policy.jitter,
        retry_on=[ex.ErrorCodeName(name=name) for name in policy.retry_on],
        never_retry_on=[ex.ErrorCodeName(name=name) for name in policy.never_retry_on],
    )


def retry_policy_from_proto(message: ex.RetryPolicy, default: RetryPolicy = _DEFAULT_RETRY) -> RetryPolicy:
    """The retry policy of a message; what is unset comes from `default`."""
    has = message.HasField
    return RetryPolicy(
        max_attempts=message.max_attempts if has("max_attempts") else default.max_attempts,
        initial_delay=micros(message.initial_delay) if has("initial_delay") else default.initial_delay,
        factor=message.factor if has("factor") else default.factor,
        max_delay=micros(message.max_delay) if has("max_delay") else default.max_delay,
        jitter=message.jitter if has("jitter") else default.jitter,
        retry_on=tuple(code.name for code in message.retry_on) or default.retry_on,
        never_retry_on=tuple(code.name for code in message.never_retry_on) or default.never_retry_on,
    )


# Usage


def usage_to_proto(usage: Usage) -> ex.Usage:
    """A usage as a message."""
    message = ex.Usage()
    if usage is not NO_USAGE:
        fill_usage(message, usage)
    return message


def usage_from_proto(message: ex.Usage) -> Usage:
    """The usage of a message."""
    metrics = message.metrics
    return Usage(
        credits=message.credits,
        wall_time=micros(message.wall_time),
        cpu_time=micros(message.cpu_time),
        memory_bytes=message.memory_bytes,
        steps=message.steps,
        attempts=message.attempts,
        tool_calls=message.tool_calls,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        metrics=dict(metrics) if metrics else {},
    )


# Failure


def fill_failure(message: fa.Failure, failure: Failure) -> None:
    """A failure, causes and detail included. A code that the catalogue does not have is a handler's own and travels as such."""
    try:
        message.code = ERROR_CODES.number(failure.code)
    except ValueError:
        message.code = ERROR_CODES.number("HANDLER_FAILED" if failure.retryable else "HANDLER_REJECTED")
        message.handler_code = failure.code
    message.tier = failure.tier  # type: ignore[assignment]  # the enum's numbers are the tiers
    message.component = failure.component
    message.operation = failure.operation
    message.retryable = failure.retryable
    message.attempt = failure.attempt
    message.step_id = failure.step_id
    message.message = failure.message
    message.detail = failure.detail
    if failure.retry_after is not None:
        message.retry_after.CopyFrom(duration(failure.retry_after))
    if failure.cause is not None:
        fill_failure(message.cause, failure.cause)
    for violation in failure.violations:
        message.violations.append(violation_to_proto(violation))


def failure_to_proto(failure: Failure) -> fa.Failure:
    """See `fill_failure`."""
    message = fa.Failure()
    fill_failure(message, failure)
    return message


def failure_from_proto(message: fa.Failure) -> Failure:
    """The failure of a message."""
    return Failure(
        code=message.handler_code or ERROR_CODES.name(message.code),
        tier=message.tier,
        component=message.component,
        operation=message.operation,
        retryable=message.retryable,
        retry_after=micros(message.retry_after) if message.HasField("retry_after") else None,
        attempt=message.attempt,
        step_id=message.step_id,
        cause=failure_from_proto(message.cause) if message.HasField("cause") else None,
        message=message.message,
        detail=message.detail,
        violations=tuple(violation_from_proto(violation) for violation in message.violations),
    )


def violation_to_proto(violation: Violation) -> fa.Violation:
    """A violation as a message."""
    return fa.Violation(field=violation.field, description=violation.description, line=violation.line)


def violation_from_proto(message: fa.Violation) -> Violation:
    """The violation of a message."""
    return Violation(field=message.field, description=message.description, line=message.line)
