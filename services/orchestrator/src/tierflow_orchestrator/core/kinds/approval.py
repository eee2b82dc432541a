"""Steps that ask people (Q17), and what follows where people were asked before a handler is called (L13)."""

from __future__ import annotations

from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.durations import parse_duration
from tierflow_runtime.values import Micros, Payload

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.events import ApprovalRequested
from tierflow_orchestrator.core.kinds.base import Ask, Complete, Escalate, Fail, Kind, Proceed, Resolve
from tierflow_orchestrator.core.scope import RunScope, write
from tierflow_orchestrator.core.step import Approval, Step
from tierflow_orchestrator.core.turn import Turn


class ApprovalKind(Kind):
    """Who is asked and what is computed once, when the step begins, and journaled: neither a restart nor a later edit changes who may decide."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """Asks."""
        said = turn.run.spec(step).templates["approval"].resolve(RunScope(turn.run, step))
        return Ask(request_of(step, said, turn.now))


def request_of(
    step: Step, said: dict[str, Any], now: Micros, *, norm: str = "", input_: Payload | None = None
) -> ApprovalRequested:
    """The request that a step's `approval`, with its holes filled, makes. Raises `ExpressionError` where nobody could ever decide it."""
    users, roles, needed = _names(said, "users"), _names(said, "roles"), said.get("needed", 1)
    further = said.get("escalate") or {}
    more_users, more_roles = _names(further, "users"), _names(further, "roles")
    if not (users or roles):
        raise ExpressionError("approval names nobody who may decide: give users or roles")
    if not (roles or more_roles) and needed > len({*users, *more_users}):
        raise ExpressionError(f"approval needs {needed} people and names {len({*users, *more_users})}")
    timeout = said.get("timeout")
    return ApprovalRequested(
        step_id=step.id,
        message=str(said.get("message") or f"Approve {step.id}?"),
        users=users,
        roles=roles,
        needed=needed,
        until=None if timeout is None else now + parse_duration(timeout),
        escalate_users=more_users,
        escalate_roles=more_roles,
        escalate_timeout=parse_duration(further["timeout"]) if "timeout" in further else None,
        norm=norm,
        input=input_,
    )


def _names(said: dict[str, Any], key: str) -> tuple[str, ...]:
    found = said.get(key, [])
    if not isinstance(found, list) or not all(isinstance(name, str) and name for name in found):
        raise ExpressionError(f"approval: {key} is a list of names")
    return tuple(dict.fromkeys(found))


def resolve(turn: Turn, step: Step) -> Proceed:
    """The votes decide: the step goes on, or has failed."""
    approval = _of(step)
    if approval.outcome == "REJECTED":
        vote = next(vote for vote in approval.votes if vote.verdict == "REJECTED")
        said = f": {vote.reason}" if vote.reason else "."
        return Resolve("REJECTED", _rejected(step, f"{vote.user} rejected {step.id}{said}"))
    if step.handler:
        return Resolve("APPROVED")
    by = [{"user": vote.user, "reason": vote.reason, "time": vote.time} for vote in approval.votes]
    return Resolve("APPROVED", Complete(output=write({"approved": True, "by": by})))


def expire(turn: Turn, step: Step) -> Proceed:
    """Nobody has decided in time: further people are asked where there are some, else it is as if it had been rejected (L14)."""
    approval = _of(step)
    if not approval.escalated and (approval.escalate_users or approval.escalate_roles):
        timeout = approval.escalate_timeout
        return Escalate(None if timeout is None else turn.now + timeout)
    message = f"Not enough people decided about {step.id} in time: {approval.approved} of {approval.needed} approved."
    return Resolve("EXPIRED", _rejected(step, message))


def _rejected(step: Step, message: str) -> Fail:
    return Fail(failures.of_step(step, "APPROVAL_REJECTED", message, "approval"))


def _of(step: Step) -> Approval:
    if step.approval is None:
        raise ValueError(f"{step.id} asks nobody")
    return step.approval
