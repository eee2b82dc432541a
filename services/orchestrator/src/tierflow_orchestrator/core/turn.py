"""One decision in the making: it applies each event at once, so that what follows is decided on the state after it."""

from __future__ import annotations

from tierflow_runtime.values import Failure, Micros

from tierflow_orchestrator.core.decision import Decision as Decision
from tierflow_orchestrator.core.decision import Difference as Difference
from tierflow_orchestrator.core.decision import Reply as Reply
from tierflow_orchestrator.core.events import RunEvent
from tierflow_orchestrator.core.evolve import evolve
from tierflow_orchestrator.core.run import Run


class Turn:
    """A decision under way."""

    __slots__ = ("blobs", "events", "now", "run")

    def __init__(self, run: Run, now: Micros) -> None:
        self.run = run
        self.now = now
        self.events: list[RunEvent] = []
        self.blobs: dict[str, bytes] = {}

    def emit(self, event: RunEvent) -> None:
        """Adds an event and applies it."""
        evolve(self.run, event, self.now)
        self.events.append(event)

    def applied(self) -> Reply:
        """The command changed something."""
        return Reply(applied=True, state=self.run.state)

    def refused(self, failure: Failure | None = None) -> Reply:
        """The command did not apply."""
        return Reply(applied=False, state=self.run.state, failure=failure)
