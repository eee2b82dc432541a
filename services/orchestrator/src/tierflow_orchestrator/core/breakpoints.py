"""Steps that wait for somebody before they start."""

from __future__ import annotations

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.steer import EVERY_STEP
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def stops_before(run: Run, step: Step) -> bool:
    """Whether a step that could start is to wait for somebody."""
    steer = run.steer
    if steer is None or step.released or step.is_item or run.state == "COMPENSATING":
        return False
    if step.frame is not None and not step.frame.parent:
        return False  # a document as a whole is its run
    return steer.stepping or EVERY_STEP in steer.breakpoints or _is_named(step, steer.breakpoints)


def _is_named(step: Step, breakpoints: tuple[str, ...]) -> bool:
    """A task of a document is named by its step, by its pointer whatever the iteration, or by its name alone."""
    if step.id in breakpoints:
        return True
    return step.frame is not None and (step.of in breakpoints or step.of.rpartition("/")[2] in breakpoints)


def hold(turn: Turn, step: Step) -> None:
    """A step waits at its breakpoint, and the run pauses; step by step once all that was let through is done (`ending.finish`)."""
    run = turn.run
    if step.held:
        return
    turn.emit(events.StepHeld(step_id=step.id))
    if run.state == "RUNNING" and run.steer is not None and not run.steer.stepping:
        turn.emit(events.RunStateChanged(from_="RUNNING", to="PAUSING", reason=f"BREAKPOINT: {step.id}"))
