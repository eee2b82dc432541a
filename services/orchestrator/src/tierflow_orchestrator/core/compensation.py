"""What is to be undone, and in which order: the last that completed first, blocks as one with all that is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step


def note(run: Run, step: Step) -> None:
    """Keeps the order in which steps end, as far as it matters for compensation."""
    if step.id in run.around or (not step.role and _is_to_undo(run, step)):
        run.log.append(step.id)
        if step.above:
            run.around.add(step.above)


def _is_to_undo(run: Run, step: Step) -> bool:
    """Whether the step did what it says how to undo: as a whole, and not by another one that handled its error."""
    if step.state != "COMPLETED" or step.branches is not None or run.spec(step).undo is None:
        return False
    return step.block is None or step.block.what != "handler"


def plan(run: Run) -> list[str]:
    """The steps to compensate, the first one last. What completed as a whole and says how it is compensated is not looked into."""
    inner: dict[str, list[str]] = {}
    for step_id in run.log:
        inner.setdefault(run.steps[step_id].above, []).append(step_id)
    return list(_in_order(run, "", inner))


def _in_order(run: Run, holder: str, inner: Mapping[str, list[str]]) -> Iterator[str]:
    for step_id in inner.get(holder, ()):
        if _is_to_undo(run, run.steps[step_id]):
            yield step_id
        else:
            yield from _in_order(run, step_id, inner)


def after(run: Run, what: str, otherwise: str) -> str:
    """COMPENSATING, where a run that fails (`failure`) or is cancelled (`cancel`) has something to compensate; else its end."""
    if run.log and what in run.definition().compensate_on and plan(run):
        return "COMPENSATING"
    return otherwise
