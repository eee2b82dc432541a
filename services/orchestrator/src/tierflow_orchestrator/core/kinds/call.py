"""Steps that call a handler, or run another flow."""

from __future__ import annotations

from tierflow_orchestrator.core.kinds.base import Dispatch, Kind, Proceed
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Call(Kind):
    """Its attempts run at an executor, or are runs of their own; `slots` and `attempts` see to them, and `children`."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """A slot comes when there is one."""
        return Dispatch()
