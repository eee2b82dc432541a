"""Limits in time that span attempts: how long a step may wait for a slot, how long it may take with all its attempts (Q2).

They are moments in the step itself, so that they hold over restarts; the heap in the run is derived from them. A step that has none costs nothing.
"""

from __future__ import annotations

from heapq import heappush

from tierflow_flow.definition import StepSpec
from tierflow_runtime.values import Failure, Micros

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step


def begin(run: Run, step: Step, spec: StepSpec) -> None:
    """The step may start as of now."""
    if spec.total_timeout is not None:
        if step.end_by is None:
            step.end_by = run.moment + spec.total_timeout
        heappush(run.limits, (step.end_by, step.id))
    await_slot(run, step, spec, run.moment)


def await_slot(run: Run, step: Step, spec: StepSpec, since: Micros) -> None:
    """The step wants a slot as of a moment."""
    if spec.start_timeout is not None:
        step.start_by = since + spec.start_timeout
        heappush(run.limits, (step.start_by, step.id))


def restore(run: Run, step: Step) -> None:
    """A step is back from where it was stored."""
    for moment in (step.start_by, step.end_by):
        if moment is not None:
            heappush(run.limits, (moment, step.id))


def over(run: Run, now: Micros) -> Step | None:
    """The step whose limit is over first; None where none is."""
    moment = run.next_limit()
    return run.steps[run.limits[0][1]] if moment is not None and moment <= now else None


def failure_of(run: Run, step: Step, now: Micros, cause: Failure | None = None) -> Failure:
    """The failure of a step whose time is up."""
    if step.end_by is not None and step.end_by <= now:
        return out_of_time(run, step, cause or step.failure)
    length = spoken(run.spec(step).start_timeout)
    message = f"{step.id} has waited for a slot longer than its start_timeout of {length}."
    return failures.of_step(step, "TIMEOUT", message, "start_timeout", cause=cause or step.failure)


def out_of_time(run: Run, step: Step, cause: Failure | None) -> Failure:
    """The failure of a step for which no more attempt can be made in time."""
    message = f"{step.id} cannot end within its total_timeout of {spoken(run.spec(step).total_timeout)}."
    return failures.of_step(step, "TIMEOUT", message, "total_timeout", cause=cause)


def spoken(micros: Micros | None) -> str:
    """A duration for people."""
    return f"{(micros or 0) / 1_000_000:g}s"
