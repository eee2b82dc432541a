"""One attempt under way: its limits, what it has reported, and the port through which its handler speaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from tierflow.context import Blob
from tierflow.handler import Handler
from tierflow.outcomes import BudgetExhausted
from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest, StepExecutionResult
from tierflow_runtime.ledger import WORDS

from tierflow_executor.core.attempt import Attempt
from tierflow_executor.endings import Ending
from tierflow_executor.logs import LogTail
from tierflow_executor.progress import MOST_METRICS, Box
from tierflow_executor.secrets import Secrets
from tierflow_executor.wire import fill_returned, seconds, stamp

_NEVER = float("inf")
_BOOKS = threading.Lock()
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much and how long: attempts at once, plain functions at once, seconds that a stopped attempt has to end, seconds an attempt may take where nobody says."""

    slots: int
    threads: int
    grace: float
    default_timeout: float


class Surroundings(Protocol):
    """What an attempt under way needs of the runner."""

    default_timeout: float

    def offer(
        self, running: Running, kind: str, percent: float | None, message: str, metrics: dict[str, float]
    ) -> None:
        """Takes progress, from any thread."""

    def beat(self, running: Running) -> None:
        """The handler lives, which is all that it says; from any thread."""

    def storing(self, running: Running) -> None:
        """Its handler is done and its output is being stored."""

    def read_blob(self, running: Running, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value."""

    async def write_blob(self, running: Running, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value."""

    async def call_context(self, running: Running, call: ContextCall) -> ContextAnswer:
        """Asks for, or changes, what the attempt's swarm shares."""


class Spent:
    """What an attempt has booked."""

    __slots__ = ("credits", "input_tokens", "metrics", "output_tokens", "tool_calls")

    def __init__(self) -> None:
        self.credits = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.tool_calls = 0
        self.metrics: dict[str, float] = {}


class Running:
    """An attempt from the moment it is accepted until it has ended. Moments are of the loop's clock, seconds; infinite where there is no limit.

    Attributes:
        place: Where it is on the wheel.
        cancelled: Whether it is to stop.
        stop_code: Why it is to stop; empty while it is not.
        begun: Whether its coroutine has run its first line, so that cancelling it will be noticed.
        returned: Whether its handler is done; it is then not stopped any more, only its output is being stored.
        unconfirmed: Whether it did not stop within the grace time.
        tools: Tool calls that its handler has begun.
    """

    __slots__ = (
        "attempt", "begun", "box", "cancelled", "cpu_nanos", "deadline_at", "grace_at", "handler", "heartbeat", "heartbeat_timeout", "kill", "last_sign",
        "limit_at", "limit_code", "logs", "memory_bytes", "more_steps", "place", "receipts", "request", "returned", "secrets", "spent", "started_at", "started_ns",
        "stop_code", "stop_note", "surroundings", "task", "told_started", "tools", "traceparent", "unconfirmed",
    )  # fmt: skip

    def __init__(
        self, attempt: Attempt, request: StepExecutionRequest, handler: Handler, surroundings: Surroundings, now: float
    ) -> None:
        self.attempt = attempt
        self.request = request
        self.handler = handler
        self.surroundings = surroundings
        context = request.context
        self.place = 0
        self.cancelled = False
        self.begun = False
        self.returned = False
        self.unconfirmed = False
        self.told_started = False
        self.stop_code = ""
        self.stop_note = ""
        self.started_at = 0.0
        self.started_ns = 0
        self.limit_at = _NEVER
        self.limit_code = ""
        self.grace_at = _NEVER
        self.last_sign = 0.0
        self.heartbeat_timeout = 0.0
        self.deadline_at = _NEVER
        if context.HasField("time_remaining"):
            self.deadline_at = now + seconds(context.time_remaining)
        elif context.HasField("deadline"):
            deadline = context.deadline
            self.deadline_at = now + deadline.seconds + deadline.nanos / 1e9 - time.time()
        self.traceparent = context.traceparent
        self.task: asyncio.Task[None] | None = None
        self.kill: Callable[[], None] | None = None
        self.receipts: list[Callable[[pb.CancelReceipt.ValueType], None]] = []
        self.logs: LogTail | None = None
        self.spent: Spent | None = None
        self.heartbeat: str | None = None
        self.box: Box | None = None
        self.more_steps = ""
        self.cpu_nanos = 0
        self.memory_bytes = 0
        self.secrets: Secrets | None = None
        self.tools = 0

    def reveal(self, text: str) -> str:
        """The input with the values of its secrets. Raises FailureError where one is not known here."""
        names = self.request.input.secrets
        if not names:
            return text
        self.secrets = Secrets(names, self.request.context.tenant)
        return self.secrets.fill(text)

    def hide(self, value: str) -> None:
        """A value that the handler got from elsewhere is not to leave either."""
        if self.secrets is None:
            self.secrets = Secrets((), self.request.context.tenant)
        self.secrets.add(value)

    def masked(self, ending: Ending) -> Ending:
        """The ending without the values of its secrets."""
        return ending if self.secrets is None else self.secrets.ending(ending)

    def start_clock(self, now: float) -> None:
        """The handler is called now: works out when it must have ended, and why."""
        self.started_at = self.last_sign = now
        self.started_ns = time.time_ns()
        if self.handler.tool:
            self.add_spent(0, 0, 0, 1, {})
        options = self.request.options
        if options.HasField("timeout"):
            timeout = seconds(options.timeout)
        elif self.handler.timeout is not None:
            timeout = self.handler.timeout / 1e6
        else:
            timeout = self.surroundings.default_timeout
        self.limit_at, self.limit_code = now + timeout, "TIMEOUT"
        allocation = self.request.allocation
        if allocation.HasField("wall_time") and now + seconds(allocation.wall_time) < self.limit_at:
            self.limit_at, self.limit_code = now + seconds(allocation.wall_time), "BUDGET_EXHAUSTED"
        if self.deadline_at < self.limit_at:
            self.limit_at, self.limit_code = self.deadline_at, "DEADLINE_EXCEEDED"
        if options.HasField("heartbeat_timeout"):
            self.heartbeat_timeout = seconds(options.heartbeat_timeout)

    def next_look(self) -> float:
        """When its limits must be looked at next."""
        if self.heartbeat_timeout:
            return min(self.limit_at, self.last_sign + self.heartbeat_timeout)
        return self.limit_at

    # What its handler says, from any thread.

    def report_progress(self, kind: str, percent: float, message: str, metrics: dict[str, float]) -> None:
        """Takes progress; a sign of life."""
        self.last_sign = time.monotonic()
        if self.secrets is not None:
            message = self.secrets.masked(message)
        self.surroundings.offer(self, kind, percent, message, metrics)

    def report_heartbeat(self, details: str | None) -> None:
        """Takes a sign of life."""
        self.last_sign = time.monotonic()
        if details is not None:
            self.heartbeat = details if self.secrets is None else self.secrets.masked(details)
            self.surroundings.offer(self, "", None, "", {})
        else:
            self.surroundings.beat(self)

    def alive(self) -> None:
        """The work itself has shown that it goes on."""
        self.last_sign = time.monotonic()

    def write_log(self, stream: str, text: str) -> None:
        """Keeps a log line."""
        if self.logs is None:
            self.logs = LogTail()
        self.logs.add(stream, text if self.secrets is None else self.secrets.masked(text))

    def book(
        self, *, micro_credits: int, input_tokens: int, output_tokens: int, tool_calls: int, metrics: dict[str, float]
    ) -> None:
        """Books what was spent; raises BudgetExhausted where that is more than was granted."""
        if min(micro_credits, input_tokens, output_tokens, tool_calls) < 0:
            raise ValueError("what was spent cannot be negative")
        spent = self.add_spent(micro_credits, input_tokens, output_tokens, tool_calls, metrics)
        granted = self.request.allocation
        for name, used in (
            ("credits", spent.credits),
            ("tokens", spent.input_tokens + spent.output_tokens),
            ("tool_calls", spent.tool_calls),
        ):
            if granted.HasField(name) and used > getattr(granted, name):  # type: ignore[arg-type]
                raise BudgetExhausted(f"the attempt has used {used} {WORDS[name]} of {getattr(granted, name)} granted")

    def storing(self) -> None:
        """The handler is done and its output is being stored: its limits do not count any more."""
        self.surroundings.storing(self)

    def add_spent(
        self, micro_credits: int, input_tokens: int, output_tokens: int, tool_calls: int, metrics: dict[str, float]
    ) -> Spent:
        """Books what was spent without looking at what was granted; returns the sum."""
        with _BOOKS:
            spent = self.spent = self.spent or Spent()
            spent.credits = min(_MOST, spent.credits + micro_credits)
            spent.input_tokens = min(_MOST, spent.input_tokens + input_tokens)
            spent.output_tokens = min(_MOST, spent.output_tokens + output_tokens)
            spent.tool_calls = min(_MOST, spent.tool_calls + tool_calls)
            for name, number in metrics.items():
                if name in spent.metrics or len(spent.metrics) < MOST_METRICS:
                    spent.metrics[name] = spent.metrics.get(name, 0.0) + number
        return spent

    def read_blob(self, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value."""
        return self.surroundings.read_blob(self, blob)

    async def write_blob(self, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value, without the values of its secrets."""
        if self.secrets is not None:
            content = self.secrets.stream(content)
        return await self.surroundings.write_blob(self, content, media_type)

    async def call_context(self, call: ContextCall) -> ContextAnswer:
        """Asks for, or changes, what its swarm shares, or tells of a tool call, which gets its number here; all of it without the values of its secrets."""
        if call.HasField("tool_call") and not call.tool_call.number:
            with _BOOKS:
                self.tools += 1
                call.tool_call.number = self.tools
        if self.secrets is not None:
            self.secrets.hide_in(call)
        return await self.surroundings.call_context(self, call)

    def fill(self, message: StepExecutionResult) -> None:
        """Puts what was reported on the way into the result."""
        if self.logs is not None:
            for at, stream, text in self.logs.lines():
                message.logs.add(time=stamp(at), stream=stream, text=text)
        if self.heartbeat is not None:
            message.last_heartbeat.json = self.heartbeat
        usage = message.usage
        if self.cpu_nanos:
            usage.cpu_time.seconds, usage.cpu_time.nanos = divmod(self.cpu_nanos, 1_000_000_000)
        if self.memory_bytes:
            usage.memory_bytes = self.memory_bytes
        spent = self.spent
        if spent is not None:
            usage.credits = spent.credits
            usage.input_tokens = spent.input_tokens
            usage.output_tokens = spent.output_tokens
            usage.tool_calls = spent.tool_calls
            for name, number in spent.metrics.items():
                usage.metrics[name] = number
        if self.request.allocation.ByteSize():
            fill_returned(message, self.request)
