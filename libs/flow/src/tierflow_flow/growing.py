"""Flows that grow: a step may return further steps, which are checked as a flow is and become a block below it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from tierflow_expressions.values import loads

from tierflow_flow.compiling import compile_plain
from tierflow_flow.definition import Flow, FlowError, Problem, StepSpec
from tierflow_flow.limits import MAX_GROWN

Value = TypeVar("Value")
_KEPT = ("name", "version", "input", "defaults", "vars", "env", "navigator", "compensate_on")
"""Keys of a flow that matter to the steps of a block."""


def grown(flow: Flow, step_id: str, definition: str) -> Flow:
    """The flow with a block below one of its own steps. Raises `FlowError` with everything that is wrong; the flow itself stays as it is.

    Args:
        flow: The flow, or what it has grown to so far.
        step_id: The step, which has `grows`.
        definition: JSON text of an object with `steps`, and `output` where it has one.
    """
    whole = loads(flow.canonical)
    spec = flow.by_id[step_id]
    before = _before(flow, spec)
    stubs = [{"id": id_, "emit": "known"} for id_ in before]
    block = {**_object(definition), "id": step_id, **({"needs": before} if before else {})}
    document = {key: whole[key] for key in _KEPT if key in whole} | {"steps": [*stubs, block]}
    try:
        made = compile_plain(document)
    except FlowError as error:
        raise FlowError([_placed(problem, len(stubs)) for problem in error.problems]) from None
    inner = {id_: each for id_, each in made.by_id.items() if id_.startswith(f"{step_id}/")}
    problems = list(_refusals(flow, spec, inner))
    if problems:
        raise FlowError(problems)
    return dataclasses.replace(
        flow,
        by_id={**flow.by_id, **inner, step_id: dataclasses.replace(spec, block=made.by_id[step_id].block)},
        dependants=_with(flow.dependants, made.dependants, inner),
        content_steps=flow.content_steps | made.content_steps,
        joins=_with(flow.joins, made.joins, inner),
        lanes=_with(flow.lanes, made.lanes, inner),
        lane_of=_with(flow.lane_of, made.lane_of, inner),
        compensate_on=flow.compensate_on | made.compensate_on,
    )


def _with(known: Mapping[str, Value], made: Mapping[str, Value], inner: Mapping[str, StepSpec]) -> dict[str, Value]:
    """What is known by step, and the same of the steps that have grown."""
    return {**known, **{id_: made[id_] for id_ in inner if id_ in made}}


def _object(definition: str) -> dict[str, Any]:
    value = loads(definition)
    return {key: value[key] for key in ("steps", "output") if key in value}


def _before(flow: Flow, spec: StepSpec) -> list[str]:
    """The steps that have ended for certain where this one has: what grows below it may read them. In the flow's order."""
    found: set[str] = set()
    waiting = list(spec.needs)
    while waiting:
        id_ = waiting.pop()
        if id_ not in found and flow.by_id[id_].join is None:
            waiting.extend(flow.by_id[id_].needs)
        found.add(id_)
    return [step.id for step in flow.steps if step.id in found]


def _placed(problem: Problem, position: int) -> Problem:
    """A problem with its place below the step."""
    return Problem(problem.path.removeprefix(f"steps[{position}]").removeprefix(".") or "steps", problem.description)


def _refusals(flow: Flow, spec: StepSpec, inner: Mapping[str, StepSpec]) -> list[Problem]:
    problems = []
    if len(inner) > MAX_GROWN:
        problems.append(Problem("steps", f"{len(inner)} steps; at most {MAX_GROWN} may grow below a step"))
    allowed = set(spec.grows or flow.handlers)
    for id_, each in inner.items():
        path = "steps." + id_.partition("/")[2].replace("/", ".steps.")
        if each.handler and each.handler not in allowed:
            problems.append(Problem(path, f"{each.handler} may not be called by what grows here"))
    return problems
