"""What is to be undone, and in which order: the last that completed first, blocks as one with all that is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step


def note(run: Run, step: Step) -> None:
    """Keeps the order in which steps end, as far as it matters for compensation."""
    done = step.state == "COMPLETED" and not (step.block is not None and step.block.what == "handler")
    if (done and run.spec(step).undo is not None and step.branches is None and not step.role) or step.id in run.around:
        run.log.append(step.id)
        if step.above:
            run.around.add(step.above)


def plan(run: Run) -> list[str]:
    """The steps to compensate, the first one last. What completed as a whole and says how it is compensated is not looked into."""
    inner: dict[str, list[str]] = {}
    for step_id in run.log:
        inner.setdefault(run.steps[step_id].above, []).append(step_id)
    return list(_in_order(run, "", inner))


def _in_order(run: Run, holder: str, inner: Mapping[str, list[str]]) -> Iterator[str]:
    for step_id in inner.get(holder, ()):
        step = run.steps[step_id]
        if step.state == "COMPLETED" and step.branches is None and run.spec(step).undo is not None:
            yield step_id
        else:
            yield from _in_order(run, step_id, inner)


def after(run: Run, what: str, otherwise: str) -> str:
    """COMPENSATING, where a run that fails (`failure`) or is cancelled (`cancel`) has something to compensate; else its end."""
    if run.log and what in run.definition().compensate_on and plan(run):
        return "COMPENSATING"
    return otherwise
