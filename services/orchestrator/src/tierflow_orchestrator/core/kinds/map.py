"""Steps that do the same for each item of an array: call a handler, or run a block."""

from __future__ import annotations

from tierflow_orchestrator.core.kinds.base import Begin, Expand, Kind, Proceed
from tierflow_orchestrator.core.scope import items_of
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Map(Kind):
    """Its items are steps of their own; `branches` counts them."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """As many items as the array has."""
        return Expand(len(items_of(turn.run, step)))


class MapBlock(Map):
    """Each of its items has a block; `parts` sees to them."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """Of the map: as many items as the array has. Of an item: its steps."""
        return Begin() if step.is_item else super().begin(turn, step)
