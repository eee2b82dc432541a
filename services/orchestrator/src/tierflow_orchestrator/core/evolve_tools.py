"""How the events of tool calls change a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import OpenCall, ToolCalls


def _began(run: Run, event: events.ToolCallBegan, time: Micros) -> None:
    step = run.steps[event.step_id]
    if step.tools is None:
        step.tools = ToolCalls()
    step.tools.begin(OpenCall(id=event.call_id, tool=event.tool, began_at=time))


def _ended(run: Run, event: events.ToolCallEnded, time: Micros) -> None:
    step = run.steps[event.step_id]
    if step.tools is None or step.tools.open.pop(event.call_id, None) is None:
        raise ValueError(f"run {run.id}: the tool call {event.call_id} ends and has not begun")
    if event.call_id == event.attempt_id:
        step.tools = None


BY_TYPE: dict[type, Callable[[Run, Any, Micros], None]] = {
    events.ToolCallBegan: _began,
    events.ToolCallEnded: _ended,
}
