"""What must hold in the history of a run that walks a document: its steps become known one by one, each within one that is under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tierflow_testing.history import _Checker
from tierflow_testing.history_steering import StepSeen


@dataclass(slots=True)
class DocumentChecker(_Checker):
    """The rules of all runs, but for what needs and items of maps say; and those of tasks."""

    parents: dict[str, str] = field(default_factory=dict)
    taken: int = 0

    def on_StepEntered(self, event: Any, time: int) -> None:  # noqa: N802 - named after the event
        """V4: a task begins once, within one that has begun and not ended."""
        self.expect(self.opened, "V3", f"{event.step_id} began before the run was RUNNING")
        self.expect(event.step_id not in self.parents, "V2", f"{event.step_id} began twice")
        if event.parent:
            around = self._step(event.parent)
            self.expect(
                event.parent in self.parents, "V4", f"{event.step_id} began within {event.parent}, which never did"
            )
            self.expect(
                not around.ended and around.waits, "V4", f"{event.step_id} began within {event.parent}, which is over"
            )
        else:
            self.expect(not self.parents, "V4", f"{event.step_id} began beside the document")
        self.parents[event.step_id] = event.parent
        self._step(event.step_id)

    def reopen(self, event: Any) -> None:
        """R31: a document that is retried is walked again from its beginning; its attempts go on above all that were made."""
        floor = self.floor
        _Checker.reopen(self, event)
        self.floor = max(floor, self.floor)
        self.tolerated = False
        self.steps.clear()
        self.parents.clear()

    def on_ContextExported(self, event: Any, time: int) -> None:  # noqa: N802
        """A task that is under way sets the context."""
        self._touch(event.step_id)

    def on_EventConsumed(self, event: Any, time: int) -> None:  # noqa: N802
        """V16: an event that came is taken once."""
        step = self._touch(event.step_id)
        self.expect(step.waits, "V2", f"{event.step_id} took an event before it listened")
        self.taken += 1
        self.expect(self.taken <= len(self.signals), "V16", f"{self.taken} events were taken, {len(self.signals)} came")

    def on_StepWaiting(self, event: Any, time: int) -> None:  # noqa: N802
        """A task may wait for those in it, for another try, and again for those in it."""
        step = self._touch(event.step_id)
        self.expect(not step.epoch, "V2", f"{event.step_id} waits after an attempt")
        step.waits = True
        step.due = event.until if event.reason in ("TIMER", "RETRY") else None

    def on_StepFailed(self, event: Any, time: int) -> None:  # noqa: N802
        """V19: only what the document as a whole did not catch makes its run fail."""
        before = self.untolerated
        _Checker.on_StepFailed(self, event, time)
        self.untolerated = before or not self.parents.get(event.step_id, "")

    def _touch(self, name: str) -> StepSeen:
        self.expect(name in self.parents, "V4", f"{name} moved and never began")
        step = self._step(name)
        self.expect(not step.ended, "V2", f"{name} moved after its end")
        return step

    def _needs_ended(self, name: str) -> None:
        """Tasks need nothing but their turn."""
