"""Runs of other flows that steps stand for (E12, Q7): whether they go the way of their parent. What they may spend is in `budget`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tierflow_orchestrator.core import commands, events
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.turn import Reply, Turn

RUNS: Final = "runs"
"""Stands in the place of an executor's id."""


def attempts_in_flight(run: Run) -> bool:
    """Whether something is in flight at an executor. Runs of other flows pause by themselves."""
    return any(not run.steps[step_id].child for step_id in run.live)


def awaited(run: Run) -> bool:
    """Whether all that is in flight are runs of other flows that are stored and have heard whatever they should: whoever owns them reports their end."""
    if run.state not in ("RUNNING", "PAUSED"):
        return False
    paused = run.state == "PAUSED"
    steps = (run.steps[step_id] for step_id in run.live)
    return all(s.child and s.state == "RUNNING" and s.child_paused == paused and not s.stopping for s in steps)


def untold(run: Run, steps: Iterable[str]) -> Iterator[commands.TellChild]:
    """What the runs of these steps are still to hear."""
    paused = run.state in ("PAUSING", "PAUSED")
    if not paused and run.state not in ("RUNNING", "SUSPENDED"):
        return
    for step_id in steps:
        step = run.steps[step_id]
        if step.child and step.child_paused != paused and step.state == "RUNNING" and step.id in run.live:
            yield commands.TellChild(attempt_id=step.attempt_id, child_run_id=step.child, paused=paused)


def told(turn: Turn, command: commands.ReportTold) -> Reply:
    """A run of another flow has heard what it was told."""
    run = turn.run
    for step_id in run.live:
        step = run.steps[step_id]
        if step.attempt_id == command.attempt_id and step.child and step.child_paused != command.paused:
            turn.emit(events.ChildTold(step_id=step.id, attempt_id=step.attempt_id, paused=command.paused))
            return turn.applied()
    return turn.refused()
