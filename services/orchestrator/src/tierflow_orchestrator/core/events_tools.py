"""The events of tool calls; see `events` and docs/tools.md."""

from __future__ import annotations

from tierflow_runtime.values import Micros

from tierflow_orchestrator.core.event import Event


class ToolCallBegan(Event):
    """An attempt calls a tool. It is stored before the call is made."""

    step_id: str
    attempt: int
    attempt_id: str
    call_id: str
    tool: str


class ToolCallEnded(Event):
    """How a tool call ended: the one end of a call that began."""

    step_id: str
    attempt: int
    attempt_id: str
    call_id: str
    tool: str
    outcome: str
    """SUCCESS, FAILURE, CANCELLED, or LOST: the attempt is over, and nobody said."""
    code: str = ""
    duration: Micros = 0
    size: int = 0
