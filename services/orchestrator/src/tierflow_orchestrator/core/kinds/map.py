"""Steps that call a handler for each item of an array."""

from __future__ import annotations

from typing import Any

from tierflow_flow.definition import ExpressionError

from tierflow_orchestrator.core.kinds.base import Expand, Kind, Proceed
from tierflow_orchestrator.core.scope import RunScope
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Map(Kind):
    """Its items are steps of their own; `branches` counts them."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """As many items as the array has."""
        return Expand(len(items_of(turn, step)))


def items_of(turn: Turn, step: Step) -> list[Any]:
    """The items of a map (or of an item's map), plain; evaluated once and kept. Raises `ExpressionError`."""
    run = turn.run
    items = run.items.get(step.of)
    if items is None:
        template = run.spec(step).items
        found = None if template is None else template.resolve(RunScope(run, run.steps[step.of]))
        if not isinstance(found, list):
            raise ExpressionError("the items of a map are an array")
        items = run.items[step.of] = found
    return items
