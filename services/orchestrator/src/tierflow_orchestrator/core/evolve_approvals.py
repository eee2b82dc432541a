"""How the events of approvals change a run; a part of `evolve`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import events, limits
from tierflow_orchestrator.core.moves import move, remember
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Approval, Vote


def _requested(run: Run, event: events.ApprovalRequested, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "AWAITING_APPROVAL")
    step.start_by = None
    run.due.discard(step.id)
    queue = run.ready.get(step.handler)
    if queue and step.id in queue:
        queue.remove(step.id)
    if step.scheduled_at is None:
        step.scheduled_at = time
    step.approval = Approval(
        message=event.message,
        users=event.users,
        roles=event.roles,
        needed=event.needed,
        requested_at=time,
        norm=event.norm,
        input=event.input,
        escalate_users=event.escalate_users,
        escalate_roles=event.escalate_roles,
        escalate_timeout=event.escalate_timeout,
    )
    step.reason, step.wakes_at = "APPROVAL", event.until
    step.start_by = None  # It waits for people now, not for a slot.
    if run.started_at is None:
        run.started_at = time
    run.wait(step)


def _decided(run: Run, event: events.ApprovalDecided, time: Micros) -> None:
    approval = run.steps[event.step_id].approval
    remember(run, event.decision_id, True, run.state)
    if approval is None:
        return
    if event.verdict == "DELEGATED":
        approval.delegations = {**approval.delegations, event.actor: event.delegate_to}
    else:
        vote = Vote(user=event.actor, verdict=event.verdict, reason=event.reason, time=time)
        approval.votes = (*approval.votes, vote)
    if approval.outcome:
        run.decided[event.step_id] = None


def _escalated(run: Run, event: events.ApprovalEscalated, time: Micros) -> None:
    step = run.steps[event.step_id]
    approval = step.approval
    if approval is not None:
        approval.escalated = True
        approval.users = tuple(dict.fromkeys((*approval.users, *approval.escalate_users)))
        approval.roles = tuple(dict.fromkeys((*approval.roles, *approval.escalate_roles)))
    step.wakes_at = event.until
    run.wait(step)


def _resolved(run: Run, event: events.ApprovalResolved, time: Micros) -> None:
    step = run.steps[event.step_id]
    run.decided.pop(step.id, None)
    if step.approval is not None:
        step.approval.verdict = event.verdict
    if step.handler and event.verdict == "APPROVED":
        if step.approval is not None:
            step.granted = (*step.granted, step.approval.norm)
        move(run, step, "READY")
        run.waits.pop(step.id, None)
        step.reason, step.wakes_at = "", None
        run.ready.setdefault(step.handler, deque()).append(step.id)
        limits.await_slot(run, step, run.spec(step), time)


BY_TYPE: dict[type, Callable[[Run, Any, Micros], None]] = {
    events.ApprovalRequested: _requested,
    events.ApprovalDecided: _decided,
    events.ApprovalEscalated: _escalated,
    events.ApprovalResolved: _resolved,
}
