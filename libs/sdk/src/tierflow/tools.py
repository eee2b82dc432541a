"""Tool calls within an attempt: `async with context.tool("search") as call:`. Users see each begin and end."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import orjson
from tierflow_contracts.common.v1.blackboard_pb2 import ContextCall, ToolCallReport
from tierflow_contracts.common.v1.state_pb2 import ToolOutcome

from tierflow.errors import error_of
from tierflow.outcomes import Cancelled, HandlerFailed

if TYPE_CHECKING:
    from tierflow.context import Port

LONGEST_NAME: Final = 200
TELL_WITHIN: Final = 5.0
"""Seconds for which a cancelled attempt goes on telling how its call ended."""


class ToolCall:
    """One tool call. Its beginning is stored before the block within is entered; leaving the block stores how it ended: well, or by the exception that leaves it."""

    __slots__ = ("_began", "_port", "_report", "_size")

    def __init__(self, port: Port, name: str) -> None:
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise ValueError(f"the name of a tool is 1 to {LONGEST_NAME} printable characters, not {name[:50]!r}")
        self._port = port
        self._report = ToolCallReport(tool=name)
        self._size = 0
        self._began = 0.0

    def returned(self, value: Any) -> None:
        """Notes how much came back: the length of bytes or text, else of the value as JSON. What came back is not told."""
        if isinstance(value, bytes | bytearray | memoryview):
            self._size = len(value)
        else:
            data = value.encode() if isinstance(value, str) else orjson.dumps(value, default=str)
            self._size = len(data)

    async def __aenter__(self) -> ToolCall:
        """Raises BudgetExhausted where the attempt has no call left, TierflowError where the beginning cannot be stored: then the call is not to be made."""
        self._port.book(micro_credits=0, input_tokens=0, output_tokens=0, tool_calls=1, metrics={})
        call = ContextCall(tool_call=self._report)
        answer = await self._port.call_context(call)
        if answer.HasField("failure"):
            raise error_of(answer.failure)
        self._report.number = call.tool_call.number
        self._began = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stores how it ended. Never hides what the call raised."""
        self._note(error)
        if isinstance(error, asyncio.CancelledError):
            await _despite_cancelling(self._tell())
        else:
            await self._tell()

    def _note(self, error: BaseException | None) -> None:
        report = self._report
        report.duration.FromNanoseconds(round((time.monotonic() - self._began) * 1e9))
        report.size = self._size
        if error is None:
            report.outcome = ToolOutcome.TOOL_OUTCOME_SUCCESS
        elif isinstance(error, asyncio.CancelledError | Cancelled):
            report.outcome = ToolOutcome.TOOL_OUTCOME_CANCELLED
        else:
            report.outcome = ToolOutcome.TOOL_OUTCOME_FAILURE
            report.code = error.code if isinstance(error, HandlerFailed) else type(error).__name__[:100]

    async def _tell(self) -> None:
        # Where nobody takes it the attempt's own end says so: the orchestrator ends what is open then.
        await self._port.call_context(ContextCall(tool_call=self._report))


async def _despite_cancelling(telling: Any) -> None:
    """What is to be told of a call that is being stopped is told all the same, for a moment."""
    task = asyncio.ensure_future(telling)
    await asyncio.wait((task,), timeout=TELL_WITHIN)
    task.cancel()
