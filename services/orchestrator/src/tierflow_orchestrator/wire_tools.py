"""The events and reports of tool calls as messages, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tierflow_contracts.common.v1.blackboard_pb2 import ToolCallReport
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime import wire
from tierflow_runtime.errors import failure
from tierflow_runtime.names import TOOL_OUTCOMES
from tierflow_runtime.values import FailureError, Violation

from tierflow_orchestrator.core import commands, events

LONGEST_NAME: Final = 200
LONGEST_CODE: Final = 100
_MOST: Final = 2**31
LONGEST_CALL: Final = 366 * 86_400 * 1_000_000
"""Microseconds."""


def _began(e: events.ToolCallBegan) -> dict[str, Any]:
    began = ev.ToolCallBegan(call_id=e.call_id, tool=e.tool, attempt_id=e.attempt_id)
    return {"step_id": e.step_id, "attempt": e.attempt, "tool_call_began": began}


def _ended(e: events.ToolCallEnded) -> dict[str, Any]:
    ended = ev.ToolCallEnded(
        call_id=e.call_id,
        tool=e.tool,
        attempt_id=e.attempt_id,
        outcome=TOOL_OUTCOMES.number(e.outcome),
        code=e.code,
        duration=wire.duration(e.duration),
        size=e.size,
    )
    return {"step_id": e.step_id, "attempt": e.attempt, "tool_call_ended": ended}


ENCODERS: Mapping[type[Any], Callable[[Any], dict[str, Any]]] = {
    events.ToolCallBegan: _began,
    events.ToolCallEnded: _ended,
}


def _from_began(m: ev.Event) -> events.RunEvent:
    p = m.tool_call_began
    return events.ToolCallBegan(
        step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, call_id=p.call_id, tool=p.tool
    )


def _from_ended(m: ev.Event) -> events.RunEvent:
    p = m.tool_call_ended
    return events.ToolCallEnded(
        step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, call_id=p.call_id, tool=p.tool,
        outcome=TOOL_OUTCOMES.name(p.outcome), code=p.code, duration=wire.micros(p.duration), size=p.size,
    )  # fmt: skip


DECODERS: Mapping[str, Callable[[ev.Event], events.RunEvent]] = {
    "tool_call_began": _from_began,
    "tool_call_ended": _from_ended,
}


def report_command(attempt_id: str, message: ToolCallReport) -> commands.ReportTool:
    """What an attempt says of one of its calls, as a command.

    Raises:
        FailureError: INVALID_REQUEST, with everything that is wrong with it.
    """
    found = [
        Violation(field=f"tool_call.{field}", description=text)
        for field, holds, text in (
            ("number", 0 < message.number < _MOST, "must be 1 or more"),
            ("tool", _is_name(message.tool, LONGEST_NAME), f"must be 1 to {LONGEST_NAME} printable characters"),
            ("outcome", _is_told(message), "must be unset, SUCCESS, FAILURE or CANCELLED"),
            ("code", not message.code or _is_name(message.code, LONGEST_CODE), f"must be at most {LONGEST_CODE} printable characters"),
            ("duration", 0 <= wire.micros(message.duration) <= LONGEST_CALL, "must be 0 to 366 days"),
            ("size", message.size >= 0, "must not be negative"),
        )
        if not holds
    ]  # fmt: skip
    if found:
        text = "The report of a tool call breaks the contract."
        raise FailureError(failure("INVALID_REQUEST", text, component="tools", violations=tuple(found)))
    return commands.ReportTool(
        attempt_id=attempt_id,
        number=message.number,
        tool=message.tool,
        outcome=TOOL_OUTCOMES.name(message.outcome),
        code=message.code,
        duration=wire.micros(message.duration) if message.HasField("duration") else None,
        size=message.size,
    )


def _is_name(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isprintable()


def _is_told(message: ToolCallReport) -> bool:
    """Whether the outcome is one that an attempt can know: that a call is lost is for the orchestrator to say."""
    return TOOL_OUTCOMES.name(message.outcome) in ("", "SUCCESS", "FAILURE", "CANCELLED")
