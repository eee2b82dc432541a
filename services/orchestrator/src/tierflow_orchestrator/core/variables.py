"""Variables of a run: each step sees what the steps before it have set, and nothing of its siblings (E9).

What a step sees is a view over the steps that it needs: for each variable the steps whose value counts. Views are derived and shared along a chain of steps,
so that branches copy nothing (E8). Where branches meet that have both set a variable, neither after the other, the flow's `merge` decides, and the decision is an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import walk
from tierflow_expressions.values import loads

from tierflow_orchestrator.core.blocks import above
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step, Variable

View = dict[str, tuple[str, ...]]

_NOTHING: Final[View] = {}


def lookup(run: Run, step: Step | None, path: tuple[str | int, ...]) -> Any:
    """The value at a path below `vars`, as a step sees it; for None, the run at its end. Raises `ExpressionError`, also where branches disagree."""
    flow = run.definition()
    if not flow.setters:
        return walk(flow.vars, path, "vars")
    seen = _at_end(run) if step is None else view(run, outermost(run, step))
    if path and path[0] in seen:
        return walk(_value(run, str(path[0]), seen[str(path[0])]), path, "vars", start=1)
    if path:
        return walk(flow.vars, path, "vars")
    return {**flow.vars, **{name: _value(run, name, writers) for name, writers in seen.items()}}


def outermost(run: Run, step: Step) -> Step:
    """The step of the flow itself within which a step is."""
    for other in above(run, step):
        step = other
    return step


def view(run: Run, step: Step) -> View:
    """For each variable that was set before a step of the flow itself: who set it; several only where values are appended."""
    waiting = [step]
    while waiting:
        now = waiting[-1]
        missing = [need for need in _before(run, now) if need.id not in run.views] if now.id not in run.views else []
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        if now.id not in run.views:
            run.views[now.id] = _resolved(now, _met(run, _before(run, now)))
    return run.views[step.id]


def conflicts(run: Run, step: Step) -> View:
    """The variables that branches have set that meet in this step, each with who set it, in that order; before anything was decided about them."""
    needs = _before(run, step)
    for need in needs:
        view(run, need)
    merge = run.definition().merge
    return {
        name: writers
        for name, writers in _met(run, needs).items()
        if len(writers) > 1 and not (merge.get(name) == "append" and _in_one(run, needs, name, writers))
    }


def _in_one(run: Run, needs: list[Step], name: str, writers: tuple[str, ...]) -> bool:
    """Whether one branch had all of it already."""
    return any(len(_after(run, need).get(name, ())) == len(writers) for need in needs)


def _before(run: Run, step: Step) -> list[Step]:
    """The needs whose variables a step sees."""
    needs = (run.steps[name] for name in run.spec(step).needs)
    return [need for need in needs if need.ended and need.id not in step.late_needs]


def _after(run: Run, step: Step) -> View:
    """What the steps after a step see because of it."""
    before = run.views[step.id]
    own = {variable.name for variable in step.variables if not variable.merged_from}
    if not own:
        return before
    append = run.definition().merge
    return {**before, **{n: (*before.get(n, ()), step.id) if append.get(n) == "append" else (step.id,) for n in own}}


def _met(run: Run, needs: Iterable[Step]) -> View:
    """The views after these steps together: per variable those of whose values none was set after the other."""
    different = {id(one): one for one in (_after(run, need) for need in needs) if one}
    views = list(different.values())
    if len(views) < 2:
        return views[0] if views else _NOTHING
    return {name: _of_all(run, name, views) for name in sorted(set().union(*views))}


def _of_all(run: Run, name: str, views: list[View]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(writer for one in views for writer in one.get(name, ())))
    return _ordered(run, found) if run.definition().merge.get(name) == "append" else _latest(run, name, found)


def _latest(run: Run, name: str, writers: tuple[str, ...]) -> tuple[str, ...]:
    """Of several that have set a variable: those after which none of the others has."""
    if len(writers) < 2:
        return writers
    outdated: set[str] = set()
    for writer in writers:
        waiting = list(_replaced(run, name, writer))
        while waiting:
            other = waiting.pop()
            if other not in outdated:
                outdated.add(other)
                waiting.extend(_replaced(run, name, other))
    return _ordered(run, tuple(writer for writer in writers if writer not in outdated))


def _replaced(run: Run, name: str, writer: str) -> tuple[str, ...]:
    """Whose values of a variable a step's own has replaced."""
    for variable in run.steps[writer].variables:
        if variable.name == name and variable.merged_from:
            return variable.merged_from
    return run.views[writer].get(name, ())


def _ordered(run: Run, writers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(writers, key=lambda name: run.steps[name].set_number))


def _resolved(step: Step, met: View) -> View:
    """What a step sees where branches meet in it, once that is decided: the step stands for what was decided."""
    merged = {variable.name: (step.id,) for variable in step.variables if variable.merged_from}
    return {**met, **merged} if merged else met


def _at_end(run: Run) -> View:
    """What the run's output sees: everything."""
    leaves = [run.steps[name] for name in run.definition().leaves]
    for leaf in leaves:
        view(run, leaf)
    return _met(run, leaves)


def _value(run: Run, name: str, writers: tuple[str, ...]) -> Any:
    rule = run.definition().merge.get(name, "error")
    if rule == "append":
        return [*run.definition().vars.get(name, ()), *(_set_by(run, name, writer) for writer in writers)]
    if len(writers) > 1 and rule == "error":
        raise ExpressionError(told(name, writers))
    return _set_by(run, name, writers[0] if rule == "first" else writers[-1])


def _set_by(run: Run, name: str, writer: str) -> Any:
    key = f"{writer}\0{name}"
    if key not in run.parsed:
        run.parsed[key] = loads(value_of(run, name, writer))
    return run.parsed[key]


def value_of(run: Run, name: str, writer: str) -> str:
    """The JSON text of the value that a step has set a variable to."""
    return next(variable.value for variable in reversed(run.steps[writer].variables) if variable.name == name)


def told(name: str, writers: tuple[str, ...]) -> str:
    """Why a variable has no value."""
    return f"vars.{name} was set by {' and by '.join(writers[:5])}, none after the other; say under merge which counts"


def merged(run: Run, step: Step) -> tuple[Variable, ...]:
    """What is decided about the variables of branches that meet in a step. Raises `ExpressionError` where the flow says that it is an error."""
    found = []
    for name, writers in conflicts(run, step).items():
        rule = run.definition().merge.get(name, "error")
        if rule == "error":
            raise ExpressionError(told(name, writers))
        chosen = writers[0] if rule == "first" else writers[-1]
        value = "" if rule == "append" else value_of(run, name, chosen)
        found.append(Variable(name, value or "null", writers, rule))
    return tuple(found)
