"""The events of approvals; see `events`."""

from __future__ import annotations

from tierflow_runtime.values import Micros, Payload

from tierflow_orchestrator.core.event import Event


class ApprovalRequested(Event):
    """A step asks people: READY to AWAITING_APPROVAL. `until` and `escalate_timeout` None: for ever."""

    step_id: str
    message: str
    users: tuple[str, ...]
    roles: tuple[str, ...]
    needed: int
    until: Micros | None = None
    escalate_users: tuple[str, ...] = ()
    escalate_roles: tuple[str, ...] = ()
    escalate_timeout: Micros | None = None
    norm: str = ""
    input: Payload | None = None


class ApprovalDecided(Event):
    """What one person said: APPROVED, REJECTED or DELEGATED."""

    step_id: str
    decision_id: str
    actor: str
    verdict: str
    reason: str = ""
    delegate_to: str = ""


class ApprovalEscalated(Event):
    """The further people of the request may decide as well from now on."""

    step_id: str
    until: Micros | None = None


class ApprovalResolved(Event):
    """What came of it: APPROVED, REJECTED or EXPIRED. A step with a handler is READY again where it is approved; else its end follows."""

    step_id: str
    verdict: str
