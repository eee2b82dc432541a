"""How attempts end: what a handler returned or raised, as a state, an output and a typed failure.

Whether trying again can help is decided by types, never by the words of a message (Lesson 13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError
from tierflow.handler import Handler, OutputInvalid
from tierflow.outcomes import Cancelled, Degraded, HandlerFailed
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_runtime.errors import failure
from tierflow_runtime.values import BlobRef, Failure, FailureError, Violation

from tierflow_executor.traces import trace_of

COMPLETED, FAILED, CANCELLED = "COMPLETED", "FAILED", "CANCELLED"
SUCCESS, DEGRADED = "SUCCESS", "DEGRADED"
LARGEST_INLINE = 64 * 1024
"""Bytes of the largest output that travels in its result; what is larger is stored as a blob."""
LARGEST_OUTPUT = 64 << 20
_MOST_VIOLATIONS = 50
_LONGEST_MESSAGE = 4_000
_LONGEST_DETAIL = 12_000


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. `output` is JSON text or where it is stored; only a COMPLETED one has it.

    `bare` says that the handler ended by nothing but the stop itself.
    """

    state: str
    output: str | BlobRef | None = None
    failure: Failure | None = None
    outcome: str = SUCCESS
    more_steps: str = ""
    bare: bool = False


def returned(handler: Handler, value: object) -> Ending:
    """The ending of a handler that returned something.

    Raises:
        OutputInvalid: It is not a JSON value of the declared type.
    """
    if isinstance(value, Degraded):
        return Ending(COMPLETED, handler.encode(value.value), outcome=DEGRADED)
    return Ending(COMPLETED, handler.encode(value))


def size_of(ending: Ending) -> int:
    """Bytes of an output that is not stored yet."""
    text = ending.output
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode())


def attempt_failure(request: StepExecutionRequest, code: str, message: str, **more: object) -> Failure:
    """A failure of this attempt, with everything that is known of where it arose (F22)."""
    context = request.context
    return failure(
        code,
        clipped(message, _LONGEST_MESSAGE),
        tier=3,
        component=request.input.handler,
        operation="attempt",
        attempt=context.attempt,
        step_id=context.step_id,
        **more,
    )


def raised(request: StepExecutionRequest, error: BaseException) -> Ending:
    """The ending of a handler that raised something, or of a call that could not be made."""
    return Ending(
        FAILED, failure=_failure_of(request, error), bare=isinstance(error, asyncio.CancelledError | Cancelled)
    )


def _failure_of(request: StepExecutionRequest, error: BaseException) -> Failure:
    for kind, convert in _BY_TYPE:
        if isinstance(error, kind):
            return convert(request, error)
    return attempt_failure(
        request,
        "HANDLER_FAILED",
        f"{type(error).__name__}: {error}",
        detail=_trace(error),
        retryable=True,
        cause=_cause(request, error),
    )


def _handler_failed(request: StepExecutionRequest, error: BaseException) -> Failure:
    assert isinstance(error, HandlerFailed)
    return attempt_failure(
        request,
        error.code,
        error.message,
        retryable=error.retryable,
        retry_after=None if error.retry_after is None else max(0, round(error.retry_after * 1e6)),
        detail=clipped(error.detail or _trace(error), _LONGEST_DETAIL),
        cause=_cause(request, error),
    )


def _carried(request: StepExecutionRequest, error: BaseException) -> Failure:
    assert isinstance(error, FailureError)
    carried = error.failure
    more = {
        "retryable": carried.retryable,
        "retry_after": carried.retry_after,
        "detail": carried.detail,
        "violations": carried.violations,
    }
    return attempt_failure(request, carried.code, carried.message, cause=carried.cause, **more)


def _input_invalid(request: StepExecutionRequest, error: BaseException) -> Failure:
    assert isinstance(error, ValidationError)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    violations = tuple(
        Violation(field=".".join(["input", *map(str, item["loc"])]), description=item["msg"])
        for item in found[:_MOST_VIOLATIONS]
    )
    listed = "; ".join(f"{each.field}: {each.description}" for each in violations[:5])
    return attempt_failure(
        request, "INPUT_INVALID", f"the input does not match: {listed}", retryable=False, violations=violations
    )


def _output_invalid(request: StepExecutionRequest, error: BaseException) -> Failure:
    return attempt_failure(request, "OUTPUT_INVALID", str(error), retryable=False)


def _memory(request: StepExecutionRequest, error: BaseException) -> Failure:
    return attempt_failure(request, "MEMORY_EXCEEDED", "the handler ran out of memory", detail=_trace(error))


def _self_cancelled(request: StepExecutionRequest, error: BaseException) -> Failure:
    return attempt_failure(
        request,
        "HANDLER_FAILED",
        "the handler cancelled itself without being told to stop",
        retryable=True,
        detail=_trace(error),
    )


def _exited(request: StepExecutionRequest, error: BaseException) -> Failure:
    message = f"the handler tried to end the process ({type(error).__name__})"
    return attempt_failure(request, "HANDLER_FAILED", message, retryable=True, detail=_trace(error))


_BY_TYPE: tuple[tuple[type[BaseException], Callable[[StepExecutionRequest, BaseException], Failure]], ...] = (
    (HandlerFailed, _handler_failed),
    (FailureError, _carried),
    (OutputInvalid, _output_invalid),
    (MemoryError, _memory),
    (asyncio.CancelledError, _self_cancelled),
    (Cancelled, _self_cancelled),
    (SystemExit, _exited),
    (KeyboardInterrupt, _exited),
)


def unbound(request: StepExecutionRequest, error: ValidationError) -> Ending:
    """The ending where the input does not match the handler's parameters."""
    return Ending(FAILED, failure=_input_invalid(request, error))


def stopped(request: StepExecutionRequest, code: str, note: str, ending: Ending) -> Ending:
    """The ending of an attempt that was told to stop with `code`, given how its handler then ended."""
    if code == CANCELLED:
        if ending.state == COMPLETED:
            return ending  # it was done before it heard of it: the work is not thrown away
        return Ending(
            CANCELLED, failure=attempt_failure(request, CANCELLED, note, cause=None if ending.bare else ending.failure)
        )
    return Ending(FAILED, failure=attempt_failure(request, code, note, cause=None if ending.bare else ending.failure))


def _cause(request: StepExecutionRequest, error: BaseException) -> Failure | None:
    cause = error.__cause__
    if cause is None or cause is error:
        return None
    if isinstance(cause, HandlerFailed):
        return _handler_failed(request, cause)
    return attempt_failure(request, "HANDLER_FAILED", f"{type(cause).__name__}: {cause}", retryable=True)


def _trace(error: BaseException) -> str:
    return clipped(trace_of(error), _LONGEST_DETAIL)


def clipped(text: str, longest: int) -> str:
    """A text without NUL characters (Lesson 28) and of bounded length."""
    text = text.replace("\0", "\\0").encode("utf-8", "replace").decode()
    return text if len(text) <= longest else text[: longest - 1] + "…"
