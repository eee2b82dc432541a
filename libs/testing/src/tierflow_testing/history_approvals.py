"""What the history of a run says of approvals, against V44. Told again in the plainest way; it shares no code with the core."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(slots=True)
class Asked:
    """What the history has said of a step's approval so far."""

    users: set[str]
    by_role: bool
    needed: int
    further: set[str]
    further_by_role: bool
    norm: str
    approved: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    handed_on: set[str] = field(default_factory=set)
    verdict: str = ""


class _Checker(Protocol):
    asked: dict[str, Asked]
    signals: set[str]

    def expect(self, holds: bool, invariant: str, text: str) -> None: ...
    def _touch(self, name: str) -> Any: ...
    def _needs_ended(self, name: str) -> None: ...


class ApprovalRules:
    """V44: only who was asked decides, each once; nothing is done that needed an approval and did not get it."""

    __slots__ = ()

    def on_ApprovalRequested(self: _Checker, event: Any, time: int) -> None:  # noqa: N802 - named after the event
        """People are asked."""
        self._touch(event.step_id)
        self._needs_ended(event.step_id)
        before = self.asked.get(event.step_id)
        again = before is None or (before.verdict == "APPROVED" and before.norm != event.norm)
        self.expect(again, "V44", f"{event.step_id} asks twice")
        self.expect(bool(event.users or event.roles), "V44", f"{event.step_id} asks nobody")
        self.asked[event.step_id] = Asked(
            set(event.users),
            bool(event.roles),
            event.needed,
            set(event.escalate_users),
            bool(event.escalate_roles),
            event.norm,
        )

    def on_ApprovalDecided(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """Somebody has said something."""
        self._touch(event.step_id)
        asked = self.asked.get(event.step_id)
        self.expect(event.decision_id not in self.signals, "V16", f"decision {event.decision_id} came twice")
        self.signals.add(event.decision_id)
        if asked is None or asked.verdict:
            self.expect(False, "V44", f"{event.step_id} waits for no approval")
            return
        who = event.actor
        self.expect(who in asked.users or asked.by_role, "V44", f"{who} was not asked about {event.step_id}")
        self.expect(bool(who) and who not in asked.handed_on, "V44", f"{who} has no say about {event.step_id}")
        self.expect(who not in asked.approved | asked.rejected, "V44", f"{who} decides twice about {event.step_id}")
        if event.verdict == "DELEGATED":
            asked.handed_on.add(who)
            asked.users.add(event.delegate_to)
        else:
            (asked.approved if event.verdict == "APPROVED" else asked.rejected).add(who)

    def on_ApprovalEscalated(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """Further people are asked."""
        self._touch(event.step_id)
        asked = self.asked[event.step_id]
        self.expect(not asked.verdict, "V44", f"{event.step_id} escalates what is decided")
        asked.users |= asked.further
        asked.by_role = asked.by_role or asked.further_by_role

    def on_ApprovalResolved(self: _Checker, event: Any, time: int) -> None:  # noqa: N802
        """It is decided."""
        self._touch(event.step_id)
        asked = self.asked[event.step_id]
        self.expect(not asked.verdict, "V44", f"{event.step_id} is resolved twice")
        asked.verdict = event.verdict
        if event.verdict == "APPROVED":
            enough = len(asked.approved) >= asked.needed and not asked.rejected
            self.expect(enough, "V44", f"{event.step_id} is approved by {sorted(asked.approved)}")
        elif event.verdict == "REJECTED":
            self.expect(bool(asked.rejected), "V44", f"{event.step_id} is rejected by nobody")
        else:
            self.expect(len(asked.approved) < asked.needed, "V44", f"{event.step_id} expires although approved")

    def allowed(self: _Checker, step_id: str) -> None:
        """The step is dispatched or completes."""
        asked = self.asked.get(step_id)
        self.expect(asked is None or asked.verdict == "APPROVED", "V44", f"{step_id} goes on without its approval")
