"""What a handler is given: who asks, within which limits, and how to report on the way."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from datetime import UTC, datetime
from operator import index
from typing import TYPE_CHECKING, Any, Literal, Protocol

import orjson
from pydantic import BaseModel
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest

from tierflow.outcomes import Cancelled

if TYPE_CHECKING:
    from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall

    from tierflow.blackboard import Blackboard
    from tierflow.tools import ToolCall

LONGEST_HEARTBEAT = 64 * 1024
Kind = Literal["progress", "thinking", "tool", "token"]


class Blob(BaseModel):
    """Names a stored value by its content: SHA-256 in hex, its length in bytes, its media type. May be part of a handler's input and output."""

    sha256: str
    size: int
    media_type: str = "application/octet-stream"


class Port(Protocol):
    """What a context needs of whoever runs the attempt. Every method may be called from any thread."""

    cancelled: bool
    traceparent: str

    def report_progress(self, kind: str, percent: float, message: str, metrics: dict[str, float]) -> None:
        """Passes progress on; it may be coalesced or lost."""

    def report_heartbeat(self, details: str | None) -> None:
        """Notes a sign of life, with details as JSON text for the next attempt."""

    def write_log(self, stream: str, text: str) -> None:
        """Keeps a log line."""

    def book(
        self, *, micro_credits: int, input_tokens: int, output_tokens: int, tool_calls: int, metrics: dict[str, float]
    ) -> None:
        """Books what was spent.

        Raises:
            BudgetExhausted: More was spent than the attempt was granted.
        """

    def read_blob(self, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value; the last chunk comes only if the content matches its name."""

    async def write_blob(self, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value."""

    async def call_context(self, call: ContextCall) -> ContextAnswer:
        """Asks for, or changes, what the attempt's swarm shares."""


class Log:
    """Log lines of an attempt; the last 32 KiB are kept with its result."""

    __slots__ = ("_port",)

    def __init__(self, port: Port) -> None:
        self._port = port

    def debug(self, message: str, *args: object) -> None:
        """Writes a line; `args` are put in as with `%`."""
        self._port.write_log("debug", message % args if args else message)

    def info(self, message: str, *args: object) -> None:
        """Writes a line; `args` are put in as with `%`."""
        self._port.write_log("info", message % args if args else message)

    def warning(self, message: str, *args: object) -> None:
        """Writes a line; `args` are put in as with `%`."""
        self._port.write_log("warning", message % args if args else message)

    def error(self, message: str, *args: object) -> None:
        """Writes a line; `args` are put in as with `%`."""
        self._port.write_log("error", message % args if args else message)


class Context:
    """Who asks for this attempt, its limits, and the way to report. Immutable; its methods may be called from any thread."""

    __slots__ = ("_port", "_request")

    def __init__(self, request: StepExecutionRequest, port: Port) -> None:
        self._request = request
        self._port = port

    @property
    def tenant(self) -> str:
        """The tenant."""
        return self._request.context.tenant

    @property
    def user_id(self) -> str:
        """The user on whose behalf this runs."""
        return self._request.context.user_id

    @property
    def swarm_id(self) -> str:
        """The swarm."""
        return self._request.context.swarm_id

    @property
    def run_id(self) -> str:
        """The run."""
        return self._request.context.run_id

    @property
    def step_id(self) -> str:
        """The step's path in its run."""
        return self._request.context.step_id

    @property
    def handler(self) -> str:
        """The name under which the handler was called."""
        return self._request.input.handler

    @property
    def attempt(self) -> int:
        """The attempt, from 1."""
        return self._request.context.attempt

    @property
    def attempt_id(self) -> str:
        """Id of the attempt."""
        return self._request.context.attempt_id

    @property
    def epoch(self) -> int:
        """Fencing epoch: hand it to whatever can refuse an older one."""
        return self._request.context.epoch

    @property
    def idempotency_key(self) -> str:
        """Stable for the step over all its attempts: hand it to whatever is called."""
        return self._request.context.idempotency_key

    @property
    def correlation_id(self) -> str:
        """Chosen by the client for finding related work."""
        return self._request.context.correlation_id

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the execution, a copy."""
        return dict(self._request.context.labels)

    @property
    def traceparent(self) -> str:
        """W3C trace context for calls that the handler makes; empty where nothing is traced."""
        return self._port.traceparent

    @property
    def tracestate(self) -> str:
        """W3C trace state for calls that the handler makes."""
        return self._request.context.tracestate

    @property
    def deadline(self) -> datetime | None:
        """When all of it must be over, in UTC; None where there is no limit."""
        context = self._request.context
        return context.deadline.ToDatetime(tzinfo=UTC) if context.HasField("deadline") else None

    @property
    def test_mode(self) -> bool:
        """Whether a side-effecting handler must only pretend."""
        return self._request.options.test_mode

    @property
    def credits(self) -> int | None:
        """Micro-credits granted to this attempt; None where not limited."""
        allocation = self._request.allocation
        return allocation.credits if allocation.HasField("credits") else None

    @property
    def memory_bytes(self) -> int | None:
        """Memory granted to this attempt; None where not limited."""
        allocation = self._request.allocation
        return allocation.memory_bytes if allocation.HasField("memory_bytes") else None

    @property
    def last_heartbeat(self) -> Any:
        """Details of the last heartbeat of the attempt before; None where there are none."""
        payload = self._request.input.last_heartbeat
        return orjson.loads(payload.json) if payload.WhichOneof("kind") == "json" else None

    @property
    def log(self) -> Log:
        """Log lines kept with the result."""
        return Log(self._port)

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is to stop. Plain functions cannot be stopped from outside: look at it in loops."""
        return self._port.cancelled

    def check(self) -> None:
        """Raises `Cancelled` if the attempt is to stop; for loops of plain functions."""
        if self._port.cancelled:
            raise Cancelled

    def progress(self, percent: float = 0.0, message: str = "", *, kind: Kind = "progress", **metrics: float) -> None:
        """Says how far the work is; a sign of life. May be called as often as you like: at most ten a second are sent, the last always.

        Args:
            percent: Share done, 0 to 100.
            message: What it is doing; texts of kind `token` are joined, of other kinds the latest wins.
            kind: What kind of sign this is.
            metrics: Further named numbers.
        """
        self._port.report_progress(kind, float(percent), str(message), _numbers(metrics))

    def heartbeat(self, details: Any = None) -> None:
        """A sign of life. `details` (a JSON value, at most 64 KiB) are handed to the next attempt as `last_heartbeat`, should this one fail."""
        text = None if details is None else orjson.dumps(details).decode()
        if text is not None and len(text) > LONGEST_HEARTBEAT:
            raise ValueError(
                f"heartbeat details of {len(text)} characters; at most {LONGEST_HEARTBEAT} are kept, store more as a blob"
            )
        self._port.report_heartbeat(text)

    def spend(
        self,
        micro_credits: int = 0,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        tool_calls: int = 0,
        **metrics: float,
    ) -> None:
        """Books what was spent; 1,000,000 micro-credits are 1 USD. Booked even if the attempt fails.

        Raises:
            BudgetExhausted: More was spent than the attempt was granted.
        """
        self._port.book(
            micro_credits=index(micro_credits),
            input_tokens=index(input_tokens),
            output_tokens=index(output_tokens),
            tool_calls=index(tool_calls),
            metrics=_numbers(metrics),
        )

    def tool(self, name: str) -> ToolCall:
        """A call of something outside, which users see begin and end: `async with context.tool("search") as call:`; for async handlers.

        Its beginning is stored before the block is entered, and counted against `tool_calls` of what was granted. Only the name is told, nothing of what the tool is
        given or gives back; `call.returned(value)` notes how much that is.
        """
        from tierflow.tools import ToolCall

        return ToolCall(self._port, name)

    @property
    def blackboard(self) -> Blackboard:
        """What the attempt's swarm shares: `await context.blackboard.get("facts")`. Nothing of it is fetched before it is asked for; for async handlers."""
        from tierflow.blackboard import Blackboard
        from tierflow.own_swarm import OwnSwarm

        return Blackboard(OwnSwarm(self._port))

    def blob(self, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value in chunks: `async for chunk in context.blob(order.scan)`."""
        return self._port.read_blob(blob)

    async def store(self, content: bytes | AsyncIterable[bytes], media_type: str = "application/octet-stream") -> Blob:
        """Stores a value and names it; return the name as part of the output."""
        return await self._port.write_blob(content, media_type)


def _numbers(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(number) for name, number in metrics.items()} if metrics else metrics
