"""Handlers as they are, in rehearsals: called with their typed input and a context that keeps what they say."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from pydantic import ValidationError
from tierflow.context import Blob, Context
from tierflow.handler import Handler, OutputInvalid, declared
from tierflow.outcomes import Degraded, HandlerFailed
from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall, ToolCallStored
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_runtime.values import Failure, Micros

from tierflow_kit import fakes
from tierflow_kit.fakes import Answer, Attempt, FakeError


class Notes:
    """What a handler reported on its way; the other side of its context."""

    cancelled = False
    traceparent = ""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.credits = 0
        self.blobs: dict[str, bytes] = {}
        self.tools: list[str] = []

    def report_progress(self, kind: str, percent: float, message: str, metrics: dict[str, float]) -> None:
        """Nobody watches."""

    def report_heartbeat(self, details: str | None) -> None:
        """Nobody listens."""

    def write_log(self, stream: str, text: str) -> None:
        """Keeps a line."""
        self.lines.append(f"{stream}: {text}")

    def book(
        self, *, micro_credits: int, input_tokens: int, output_tokens: int, tool_calls: int, metrics: dict[str, float]
    ) -> None:
        """Adds up."""
        self.credits += micro_credits

    async def read_blob(self, blob: Blob) -> AsyncIterator[bytes]:
        """A value that the same attempt has stored."""
        if blob.sha256 not in self.blobs:
            raise FakeError(f"the stored value {blob.sha256} is not there: a rehearsal has no store")
        yield self.blobs[blob.sha256]

    async def write_blob(self, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Keeps a value."""
        data = content if isinstance(content, bytes) else b"".join([chunk async for chunk in content])
        name = hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return Blob(sha256=name, size=len(data), media_type=media_type)

    async def call_context(self, call: ContextCall) -> ContextAnswer:
        """A rehearsal shares nothing; that a tool is called is no secret in it."""
        if call.HasField("tool_call"):
            self.tools.append(call.tool_call.tool)
            return ContextAnswer(tool_call_stored=ToolCallStored())
        raise FakeError("the blackboard is not there: a rehearsal has no swarm; give the step a fake")


def handler_of(function: Callable[..., Any]) -> Handler:
    """The handler that a function was declared as. Raises `FakeError` where it was not."""
    for each in reversed(declared()):
        if each.function is function:
            return each
    name = getattr(function, "__qualname__", repr(function))
    raise FakeError(f"{name} is no handler: declare it with @handler, or give it to fake() with a name")


def performed(handler: Handler, after: Micros) -> fakes.Respond:
    """Answers by calling the handler, as an executor does: its input is checked, its output, and its errors become failures."""

    def respond(attempt: Attempt) -> Answer:
        notes = Notes()
        try:
            output, failure = _call(handler, attempt, notes), None
        except (Exception, OutputInvalid) as error:
            if isinstance(error, FakeError):
                raise
            output, failure = None, failure_of(error)
        degraded = isinstance(output, Degraded)
        value = None if failure is not None else json.loads(handler.encode(output.value if degraded else output))
        return Answer(value, failure, after, degraded=degraded, credits=notes.credits, logs=tuple(notes.lines))

    return respond


def _call(handler: Handler, attempt: Attempt, notes: Notes) -> Any:
    args, named = handler.arguments(Context(_request(attempt), notes), json.dumps(attempt.input))
    output = handler.function(*args, **named)
    output = asyncio.run(output) if inspect.iscoroutine(output) else output
    handler.encode(output.value if isinstance(output, Degraded) else output)  # OutputInvalid is a failure too
    return output


def _request(attempt: Attempt) -> StepExecutionRequest:
    request = StepExecutionRequest()
    context = request.context
    context.tenant = context.user_id = context.swarm_id = "test"
    context.run_id, context.step_id, context.attempt = "test", attempt.step, attempt.number
    context.attempt_id = f"test/{attempt.step}/{attempt.number}"
    context.idempotency_key = f"test/{attempt.step}"
    request.input.handler = attempt.handler
    return request


def failure_of(error: BaseException) -> Failure:
    """The failure of an attempt whose handler raised this."""
    if isinstance(error, HandlerFailed):
        wait = None if error.retry_after is None else round(error.retry_after * 1_000_000)
        return fakes.failure(error.code, error.message, retryable=error.retryable, retry_after=wait)
    if isinstance(error, ValidationError):
        found = "; ".join(f"input.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        return fakes.failure("INPUT_INVALID", f"the input does not match: {found}", retryable=False)
    if isinstance(error, OutputInvalid):
        return fakes.failure("OUTPUT_INVALID", str(error), retryable=False)
    return fakes.failure("HANDLER_FAILED", f"{type(error).__name__}: {error}", retryable=True)
