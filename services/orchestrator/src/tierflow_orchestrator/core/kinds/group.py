"""Steps that hold other steps."""

from __future__ import annotations

from tierflow_orchestrator.core.kinds.base import Begin, Kind, Proceed
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Group(Kind):
    """Its steps begin with it; it ends when they have."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """All its steps."""
        return Begin()
