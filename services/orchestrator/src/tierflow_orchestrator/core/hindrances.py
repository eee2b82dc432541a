"""What keeps a step from starting although everything that it waits for has ended: the rules of docs/flows.md on skipping (E10)."""

from __future__ import annotations

from tierflow_flow.definition import StepSpec
from tierflow_runtime.values import Failure

from tierflow_orchestrator.core import events, failures, joins
from tierflow_orchestrator.core.blocks import sibling
from tierflow_orchestrator.core.kinds.switch import chosen
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step


def hindrance_of(run: Run, step: Step, spec: StepSpec) -> events.StepSkipped | Failure | None:
    """Why a step is skipped, or fails, before its condition is looked at; None where nothing is in its way."""
    skipped = _not_chosen(run, step, spec) if spec.chosen_by else None
    if skipped is not None or spec.always:
        return skipped
    if step.blocked_by:
        return _blocked(run, step, spec)
    other = joins.unchosen(run, step, spec) if step.passed else None
    if other is None:
        return None
    reason = f"needs {other.id}, which {other.unchosen_by} has not chosen"
    return events.StepSkipped(step_id=step.id, reason=reason, unchosen_by=other.unchosen_by)


def _not_chosen(run: Run, step: Step, spec: StepSpec) -> events.StepSkipped | None:
    """Its switch has not chosen it; or could not choose, which is left to what follows from its failure unless the step always runs."""
    switch = sibling(run, step, spec.chosen_by)
    completed = switch.state == "COMPLETED"
    if spec.local in chosen(run, switch) or not (completed or spec.always):
        return None
    unchosen_by = switch.id if completed else switch.unchosen_by
    return events.StepSkipped(step_id=step.id, reason=f"{switch.id} has not chosen it", unchosen_by=unchosen_by)


def _blocked(run: Run, step: Step, spec: StepSpec) -> events.StepSkipped | Failure:
    failed = joins.failed(run, step, spec)
    if failed is not None and spec.join is not None:
        message = f"{step.id} cannot be reached: {joins.told(run, step, spec.join)}."
        return failures.of_step(step, "STEP_FAILED", message, "join", cause=failed.failure)
    blocker = run.steps[step.blocked_by]
    return events.StepSkipped(step_id=step.id, reason=f"needs {blocker.id}, which is {blocker.state}")
