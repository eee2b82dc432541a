"""Tool calls: the one path on which they are told of, from their beginning to their one end (B19, H7).

A call is an attempt as a whole, where its handler says that it is a tool, or one of many that a handler makes on its way. It is begun by the decision that gives the
attempt to its executor, or by the executor's report, which is stored before the call is made; whoever ends the attempt ends with it whatever is still open.
"""

from __future__ import annotations

from typing import Any, Final

from tierflow_runtime.values import BlobRef, Failure, Payload

from tierflow_orchestrator.core import commands, events, failures
from tierflow_orchestrator.core.step import OpenCall, Step
from tierflow_orchestrator.core.turn import Reply, Turn

MOST_OPEN: Final = 256
"""Calls that an attempt may have open at once; how many it makes in all is not limited here."""
_OUTCOMES: Final = {"COMPLETED": "SUCCESS", "CANCELLED": "CANCELLED"}


def begin_attempt(turn: Turn, step: Step) -> None:
    """The attempt that was just scheduled is a tool call as a whole."""
    _begin(turn, step, step.attempt_id, step.handler)


def _begin(turn: Turn, step: Step, call_id: str, tool: str) -> None:
    turn.emit(
        events.ToolCallBegan(
            step_id=step.id, attempt=step.attempt, attempt_id=step.attempt_id, call_id=call_id, tool=tool
        )
    )


def _end(turn: Turn, step: Step, call: OpenCall, outcome: str, **more: Any) -> None:
    more.setdefault("duration", max(0, turn.now - call.began_at))
    turn.emit(
        events.ToolCallEnded(
            step_id=step.id,
            attempt=step.attempt,
            attempt_id=step.attempt_id,
            call_id=call.id,
            tool=call.tool,
            outcome=outcome,
            **more,
        )
    )


def report(turn: Turn, step: Step, command: commands.ReportTool) -> Reply:
    """The present attempt of a step tells of one of its calls. What comes again changes nothing."""
    calls = step.tools
    call_id = f"{step.attempt_id}#{command.number}"
    if command.outcome:
        call = calls.open.get(call_id) if calls is not None else None
        if call is None:
            return turn.refused()
        more = {} if command.duration is None else {"duration": command.duration}
        _end(turn, step, call, command.outcome, code=command.code, size=command.size, **more)
        return turn.applied()
    if calls is not None and calls.has_begun(command.number):
        known = call_id in calls.open
        return turn.refused(None if known else failures.stale(f"{call_id} has ended."))
    if calls is not None and len(calls.open) >= MOST_OPEN:
        return turn.refused(_too_many(step))
    _begin(turn, step, call_id, command.tool)
    return turn.applied()


def _too_many(step: Step) -> Failure:
    message = f"The attempt of {step.id} has {MOST_OPEN} tool calls open at once; end some before it begins another."
    return failures.of_step(step, "RATE_LIMITED", message, "tool_call", retryable=True)


def end_with(turn: Turn, step: Step, command: commands.ReportResult) -> None:
    """The executor says how the attempt ended: so did the call that it is; calls on its way of which nobody said are lost."""
    for call in _open(step):
        if call.id != step.attempt_id:
            _end(turn, step, call, "LOST")
            continue
        code = command.failure.code if command.failure is not None else ""
        took = command.usage.wall_time
        more = {"duration": took} if took else {}
        outcome = _OUTCOMES.get(command.state, "FAILURE")
        _end(turn, step, call, outcome, code=code, size=_size(command.output), **more)


def lose(turn: Turn, step: Step) -> None:
    """The attempt is given up and nobody knows how it ended: nor its calls."""
    for call in _open(step):
        _end(turn, step, call, "LOST")


def _open(step: Step) -> tuple[OpenCall, ...]:
    """Its open calls, the one that the attempt is last: it ends when everything in it has."""
    return tuple(reversed(step.tools.open.values())) if step.tools is not None else ()


def _size(output: Payload | None) -> int:
    if output is None:
        return 0
    return output.size if isinstance(output, BlobRef) else len(output.encode())
