"""Stopping single steps while their run goes on: what has not started ends at once, what is in flight when there is a receipt."""

from __future__ import annotations

from tierflow_flow.definition import Join

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.blocks import sibling
from tierflow_orchestrator.core.ending import cancel_below
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def stop_step(turn: Turn, step: Step, reason: str) -> None:
    """Cancels a step. Its attempts in flight are told to stop (`react`), and it ends when they have; whatever they still bring is booked and refused."""
    if step.ended or step.stop_to not in ("", "READY"):
        return
    if not step.holds and not step.in_flight:
        turn.emit(events.StepCancelled(step_id=step.id, reason=reason))
        return
    turn.emit(events.StepStopping(step_id=step.id, reason=reason, attempt_id=step.attempt_id))
    if step.holds:
        cancel_below(turn, step, reason)


def release_needs(turn: Turn, step: Step, join: Join) -> None:
    """A step's join is decided: what it does not wait for any more is stopped, as far as nothing else needs it, and so are the steps before that (E7)."""
    reason = f"{step.id} does not wait for it any more"
    run = turn.run
    candidates = [other for name in join.of if not (other := sibling(run, step, name)).ended]
    while candidates:
        other = candidates.pop()
        if not other.ended and not other.stop_to and not _needed(run, other):
            stop_step(turn, other, reason)
            needs = [sibling(run, other, name) for name in run.spec(other).needs]
            candidates.extend(need for need in needs if not need.ended)


def _needed(run: Run, step: Step) -> bool:
    """Whether the output of the run or of the block reads the step, or a step waits for it that is not being stopped itself."""
    flow = run.definition()
    block = run.spec(run.steps[step.parent]).block if step.parent else None
    output = flow.output if block is None else block.output
    if output is not None and run.spec(step).local in output.steps:
        return True
    dependants = flow.dependants.get(step.of, ())
    return any(sibling(run, step, name).state == "PENDING" for name in dependants)
