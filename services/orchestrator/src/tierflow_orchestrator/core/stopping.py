"""Stopping single steps while their run goes on: what has not started ends at once, what is in flight when there is a receipt."""

from __future__ import annotations

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.ending import cancel_items
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def stop_step(turn: Turn, step: Step, reason: str) -> None:
    """Cancels a step. Its attempts in flight are told to stop (`react`), and it ends when they have; whatever they still bring is booked and refused."""
    if step.ended or step.stop_to:
        return
    if step.branches is None and not step.in_flight:
        turn.emit(events.StepCancelled(step_id=step.id, reason=reason))
        return
    turn.emit(events.StepStopping(step_id=step.id, reason=reason, attempt_id=step.attempt_id))
    if step.branches is not None:
        cancel_items(turn, step, reason)
