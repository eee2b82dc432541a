"""The events of approvals as messages, and back; approvals as they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_contracts.orchestrator.v1 import approval_pb2 as pb
from tierflow_runtime import wire
from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step

VERDICTS = {
    "APPROVED": pb.APPROVAL_VERDICT_APPROVED,
    "REJECTED": pb.APPROVAL_VERDICT_REJECTED,
    "DELEGATED": pb.APPROVAL_VERDICT_DELEGATED,
    "EXPIRED": pb.APPROVAL_VERDICT_EXPIRED,
}


def _requested(e: events.ApprovalRequested) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "approval_requested": ev.ApprovalRequested(
            message=e.message,
            users=e.users,
            roles=e.roles,
            needed=e.needed,
            until=None if e.until is None else wire.timestamp(e.until),
            escalate_users=e.escalate_users,
            escalate_roles=e.escalate_roles,
            escalate_timeout=None if e.escalate_timeout is None else wire.duration(e.escalate_timeout),
            norm=e.norm,
            input=wire.payload_to_proto(e.input),
        ),
    }


def _decided(e: events.ApprovalDecided) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "approval_decided": ev.ApprovalDecided(
            decision_id=e.decision_id, actor=e.actor, verdict=e.verdict, reason=e.reason, delegate_to=e.delegate_to
        ),
    }


def _escalated(e: events.ApprovalEscalated) -> dict[str, Any]:
    until = None if e.until is None else wire.timestamp(e.until)
    return {"step_id": e.step_id, "approval_escalated": ev.ApprovalEscalated(until=until)}


def _resolved(e: events.ApprovalResolved) -> dict[str, Any]:
    return {"step_id": e.step_id, "approval_resolved": ev.ApprovalResolved(verdict=e.verdict)}


ENCODERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    events.ApprovalRequested: _requested,
    events.ApprovalDecided: _decided,
    events.ApprovalEscalated: _escalated,
    events.ApprovalResolved: _resolved,
}


def _moment(message: Any, field: str) -> Micros | None:
    return wire.micros(getattr(message, field)) if message.HasField(field) else None


def _from_requested(m: ev.Event) -> events.RunEvent:
    p = m.approval_requested
    return events.ApprovalRequested(
        step_id=m.step_id,
        message=p.message,
        users=tuple(p.users),
        roles=tuple(p.roles),
        needed=p.needed,
        until=_moment(p, "until"),
        escalate_users=tuple(p.escalate_users),
        escalate_roles=tuple(p.escalate_roles),
        escalate_timeout=_moment(p, "escalate_timeout"),
        norm=p.norm,
        input=wire.payload_from_proto(p.input) if p.HasField("input") else None,
    )


def _from_decided(m: ev.Event) -> events.RunEvent:
    p = m.approval_decided
    return events.ApprovalDecided(
        step_id=m.step_id,
        decision_id=p.decision_id,
        actor=p.actor,
        verdict=p.verdict,
        reason=p.reason,
        delegate_to=p.delegate_to,
    )


DECODERS: dict[str, Callable[[ev.Event], events.RunEvent]] = {
    "approval_requested": _from_requested,
    "approval_decided": _from_decided,
    "approval_escalated": lambda m: events.ApprovalEscalated(
        step_id=m.step_id, until=_moment(m.approval_escalated, "until")
    ),
    "approval_resolved": lambda m: events.ApprovalResolved(step_id=m.step_id, verdict=m.approval_resolved.verdict),
}


def approval_shown(run: Run, step: Step) -> pb.Approval | None:
    """The approval of a step; None where nobody was asked."""
    approval = step.approval
    if approval is None:
        return None
    shown = pb.Approval(
        run_id=run.id,
        step_id=step.id,
        flow_name=run.flow_name,
        swarm_id=run.context.swarm_id,
        user_id=run.context.user_id,
        message=approval.message,
        users=approval.users,
        roles=approval.roles,
        needed=approval.needed,
        delegations=approval.delegations,
        requested_at=wire.timestamp(approval.requested_at),
        until=None if step.wakes_at is None else wire.timestamp(step.wakes_at),
        escalated=approval.escalated,
        handler=step.handler,
        input=wire.payload_to_proto(approval.input),
        norm=approval.norm,
    )
    for vote in approval.votes:
        shown.votes.add(
            user_id=vote.user, verdict=VERDICTS[vote.verdict], reason=vote.reason, time=wire.timestamp(vote.time)
        )
    return shown


def pending_of(run: Run, user: str, roles: Iterable[str]) -> list[pb.Approval]:
    """The approvals of a run that wait: all of them where the run is the user's or no user is named, else those that the user may decide."""
    held = tuple(roles)
    found = []
    for step_id in run.waits:
        step = run.steps[step_id]
        if step.approval is None or step.state != "AWAITING_APPROVAL":
            continue
        if not user or user == run.context.user_id or step.approval.may_decide(user, held):
            shown = approval_shown(run, step)
            if shown is not None:
                found.append(shown)
    return found
