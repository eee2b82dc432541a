"""Steps that run their block again and again, one iteration after the other (E13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierflow_flow.limits import DEFAULT_ITERATIONS, MAX_ITERATIONS, MAX_RUN_TIMEOUT

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.kinds.base import Complete, Fail, Iterate, Kind, Proceed, Wait
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import RunScope, items_of
from tierflow_orchestrator.core.step import Step, item_id
from tierflow_orchestrator.core.turn import Turn

_BREATH = 100
"""Iterations of which no other than the last begins later than the first, before others may decide in between."""


class Loop(Kind):
    """Bounded in number; the delay between iterations is a durable timer."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """The first iteration, where there is one."""
        return _next(turn, step, 0)

    def due(self, turn: Turn, step: Step) -> Proceed:
        """The delay is over."""
        return Iterate(_count(step))

    def go_on(self, turn: Turn, step: Step) -> Proceed:
        """An iteration has completed: another one, now or after a delay, or the end."""
        run, count = turn.run, _count(step)
        iteration = run.steps[item_id(step.id, count - 1)]
        block = run.spec(step).block
        if block is not None and block.until is not None and block.until.resolve(RunScope(run, iteration, inside=True)):
            return _done(run, step)
        how = _next(turn, step, count)
        if not isinstance(how, Iterate):
            return how
        delay = _delay(run.spec(step).settings["loop"], count)
        if delay:
            return Wait("DELAY", turn.now + delay)
        if count % _BREATH == 0 and run.steps[item_id(step.id, count - _BREATH)].started_at == turn.now:
            return Wait("DELAY", turn.now + 1)
        return how


def _count(step: Step) -> int:
    return step.block.iterations if step.block is not None else 0


def _next(turn: Turn, step: Step, index: int) -> Proceed:
    """The iteration of this index, or the end. Raises `ExpressionError`."""
    run = turn.run
    spec = run.spec(step)
    if "for" in spec.templates and index >= len(items_of(run, step)):
        return _done(run, step)
    condition = spec.templates.get("while")
    if condition is not None and not condition.resolve(RunScope(run, step)):
        return _done(run, step)
    counted = "for" in spec.templates
    most = spec.settings["loop"].get("max", MAX_ITERATIONS if counted else DEFAULT_ITERATIONS)
    if index >= most or (counted and len(items_of(run, step)) > most):
        message = f"{step.id} may have {most} iterations, and would need more."
        return Fail(failures.of_step(step, "LOOP_EXHAUSTED", message, "loop"))
    return Iterate(index)


def _done(run: Run, step: Step) -> Proceed:
    """The output of the last iteration is the loop's."""
    count = _count(step)
    if not count:
        return Complete()
    return Complete(output=run.steps[item_id(step.id, count - 1)].output)


def _delay(loop: Mapping[str, Any], ended: int) -> int:
    """Microseconds before the iteration that follows `ended` others."""
    delay, longest = loop.get("delay", 0), loop.get("max_delay")
    try:
        grown = float(delay) * loop.get("factor", 1.0) ** (ended - 1)
    except OverflowError:
        grown = float("inf")
    return int(min(grown, longest if longest is not None else MAX_RUN_TIMEOUT))
