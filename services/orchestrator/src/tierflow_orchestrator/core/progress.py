"""How far a run is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tierflow_orchestrator.core.step import Branches

if TYPE_CHECKING:
    from tierflow_orchestrator.core.run import Run


def percent(run: Run) -> float:
    """Share of the flow's steps that have ended, 0 to 100, a map counted by its items, a block as one. Never falls; 100 only when COMPLETED."""
    if run.state == "COMPLETED":
        return 100.0
    total = run.top_ended + run.open_steps
    if not total:
        return 0.0
    part = float(run.top_ended)
    for branches in _under_way(run):
        if branches.count:
            part += branches.ended / branches.count
    return min(99.0, 100.0 * part / total)


def _under_way(run: Run) -> Iterator[Branches]:
    """Of the maps whose items are being worked on: how far they are."""
    for spec in run.flow.steps if run.flow is not None else ():
        step = run.steps.get(spec.id) if spec.items is not None else None
        if step is not None and step.state == "RUNNING" and step.branches is not None:
            yield step.branches
