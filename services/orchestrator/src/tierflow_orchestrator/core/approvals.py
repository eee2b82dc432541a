"""What people say about approvals: only those who were asked, each once. Whoever is not known is not heard (L14)."""

from __future__ import annotations

from tierflow_runtime.values import Failure, Violation

from tierflow_orchestrator.core import commands, events, failures
from tierflow_orchestrator.core.navigator import fire
from tierflow_orchestrator.core.step import Approval, Step
from tierflow_orchestrator.core.turn import Reply, Turn


def receive(turn: Turn, command: commands.DecideApproval) -> Reply:
    """A decision: journaled, and what follows from it. A paused run keeps it and goes by it when it is resumed."""
    run = turn.run
    if command.command_id in run.commands:
        return turn.applied()
    step = run.steps.get(command.step_id)
    if step is None:
        return turn.refused(failures.made("NOT_FOUND", f"The run has no step {command.step_id[:80]}.", "approval"))
    approval = step.approval
    if approval is None or step.state != "AWAITING_APPROVAL":
        message = f"{step.id} waits for no approval: it is {step.state}."
        return turn.refused(failures.of_step(step, "STATE_CONFLICT", message, "approval"))
    refusal = _refusal(step, approval, command)
    if refusal is not None or step.id in run.decided or approval.has_decided(command.actor):
        return turn.refused(refusal)
    turn.emit(
        events.ApprovalDecided(
            step_id=step.id,
            decision_id=command.command_id,
            actor=command.actor,
            verdict=command.verdict,
            reason=command.reason,
            delegate_to=command.delegate_to,
        )
    )
    if run.decided and run.state in ("RUNNING", "SUSPENDED"):
        fire(turn)
    return turn.applied()


def _refusal(step: Step, approval: Approval, command: commands.DecideApproval) -> Failure | None:
    if not approval.may_decide(command.actor, command.roles):
        message = f"{command.actor or 'Nobody'} is not among those who may decide about {step.id}."
        return failures.of_step(step, "PERMISSION_DENIED", message, "approval")
    if command.verdict != "DELEGATED":
        return None
    to = command.delegate_to
    if not to or to == command.actor:
        return _invalid(step, "name somebody else")
    if approval.may_decide(to, ()):
        return _invalid(step, f"{to} may decide anyway")
    if approval.has_decided(to):
        return _invalid(step, f"{to} has decided already")
    if to in approval.delegations:
        return _invalid(step, f"{to} has handed it on")
    return None


def _invalid(step: Step, description: str) -> Failure:
    found = (Violation(field="delegate_to", description=description),)
    message = f"The delegation of {step.id} was refused: {description}."
    return failures.of_step(step, "INVALID_REQUEST", message, "approval", violations=found)
