"""What executing a run again would mean: which steps are executed, which results are reused, and what the executed ones used the last time (S11)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import msgspec
from tierflow_runtime.values import NO_USAGE, Failure, Micros, Usage

from tierflow_orchestrator.core import generations
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.steering import conflict, invalid
from tierflow_orchestrator.core.step import Step


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A step that is executed again: why, and what it took the last time."""

    step_id: str
    reason: str
    attempts: int = 0
    duration: Micros = 0
    usage: Usage = NO_USAGE
    known: bool = False
    """Whether it was executed before."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in the flow's order; `duration` is that of the longest way through the executed ones."""

    executed: tuple[PlannedStep, ...]
    reused: tuple[str, ...]
    attempts: int
    duration: Micros
    usage: Usage


def plan(run: Run, kind: str, step_ids: Sequence[str], *, at_checkpoint: bool = False) -> Plan | Failure:
    """The plan of a RETRY, FROM_STEPS, FORK or REPLAY; or why it cannot be. `at_checkpoint`: the run is as it was then, and no step need be named."""
    failure = conflict(run, "retry") if kind == "RETRY" else None
    failure = failure or _wrong(run, kind, step_ids, may_be_none=at_checkpoint)
    if failure is not None:
        return failure
    found = _executed(run, kind, step_ids)
    partly = generations.in_part(run, found) if kind == "RETRY" else frozenset()
    executed = _planned_steps(run, found, partly)
    usage = NO_USAGE
    for one in executed:
        usage = usage.plus(one.usage)
    return Plan(
        executed=executed,
        reused=tuple(spec.id for spec in run.definition().steps if spec.id not in found and _done(run, spec.id)),
        attempts=sum(one.attempts for one in executed),
        duration=_longest(run, executed),
        usage=usage,
    )


def plan_at_checkpoint(run: Run, kind: str, step_ids: Sequence[str]) -> Plan | Failure:
    """The plan of a FROM_STEPS or FORK, for a run as it was at a checkpoint: a fork without steps keeps all that had completed."""
    if kind == "FORK" and not step_ids:
        step_ids = [spec.id for spec in run.definition().steps if _done(run, spec.id)]
    return plan(run, kind, step_ids, at_checkpoint=True)


def _wrong(run: Run, kind: str, step_ids: Sequence[str], *, may_be_none: bool) -> Failure | None:
    """Why the steps that are named cannot be meant."""
    flow = run.definition()
    for step_id in step_ids:
        if all(spec.id != step_id for spec in flow.steps):
            return invalid("step_ids", f"{step_id[:60]!r} is no step of the flow", "plan")
        if kind == "FORK" and not _done(run, step_id):
            state = run.steps[step_id].state if step_id in run.steps else "not known"
            return invalid("step_ids", f"{step_id} is {state}; only what has COMPLETED can be kept", "plan")
    if kind == "FROM_STEPS" and not step_ids and not may_be_none:
        return invalid("step_ids", "names no step to begin with", "plan")
    return None


def _done(run: Run, step_id: str) -> bool:
    return step_id in run.steps and run.steps[step_id].state == "COMPLETED"


def _executed(run: Run, kind: str, step_ids: Sequence[str]) -> dict[str, str]:
    flow = run.definition()
    if kind == "RETRY":
        return generations.again(run)
    if kind == "FROM_STEPS":
        found = {spec.id: _why(run, spec.id) for spec in flow.steps if not _done(run, spec.id)}
        found |= dict.fromkeys(step_ids, "CHOSEN")
        return generations.with_dependants(flow, found)
    kept = set(step_ids) if kind == "FORK" else set()
    return {
        spec.id: "NOT KEPT" if _done(run, spec.id) else _why(run, spec.id) for spec in flow.steps if spec.id not in kept
    }


def _why(run: Run, step_id: str) -> str:
    step = run.steps.get(step_id)
    return step.state if step is not None and step.ended else "NOT EXECUTED"


def _below(run: Run) -> dict[str, list[Step]]:
    """By step of the flow: it, and all that it began."""
    found: dict[str, list[Step]] = {}
    for step in run.steps.values():
        found.setdefault(generations.top(run, step), []).append(step)
    return found


def _planned_steps(run: Run, found: Mapping[str, str], partly: Container[str]) -> tuple[PlannedStep, ...]:
    """What the steps that are found took the last time; of those that run again in part: what runs again."""
    planned, begun = [], _below(run)
    for step_id, reason in found.items():
        steps = begun.get(step_id, [])
        if step_id in partly:
            steps = [step for step in steps if step.state not in generations.KEPT]
        planned.append(_planned(step_id, reason, steps))
    return tuple(planned)


def _planned(step_id: str, reason: str, steps: Sequence[Step]) -> PlannedStep:
    usage = NO_USAGE
    for step in steps:
        usage = usage.plus(step.usage)
    begun = [step.scheduled_at for step in steps if step.scheduled_at is not None]
    ended = [step.ended_at for step in steps if step.ended_at is not None and step.scheduled_at is not None]
    return PlannedStep(
        step_id=step_id,
        reason=reason,
        attempts=usage.attempts,
        duration=max(0, max(ended) - min(begun)) if begun and ended else 0,
        usage=usage,
        known=bool(begun),
    )


def _longest(run: Run, executed: Sequence[PlannedStep]) -> Micros:
    """The longest way through these steps, by what each needs."""
    took = {one.step_id: one.duration for one in executed}
    by_id = run.definition().by_id
    until: dict[str, Micros] = {}
    waiting = list(took)
    while waiting:
        step_id = waiting[-1]
        needs = [need for need in by_id[step_id].needs if need in took]
        open_ = [need for need in needs if need not in until]
        if open_:
            waiting.extend(open_)
            continue
        waiting.pop()
        until[step_id] = took[step_id] + max((until[need] for need in needs), default=0)
    return max(until.values(), default=0)
