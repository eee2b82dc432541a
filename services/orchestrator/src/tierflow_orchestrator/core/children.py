"""Runs of other flows that steps stand for (E12, Q7): what they may spend, and whether they go the way of their parent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from tierflow_flow.definition import StepSpec
from tierflow_runtime.values import Allocation, Failure, Usage

from tierflow_orchestrator.core import commands, events, failures
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Reply, Turn

RUNS: Final = "runs"
"""Stands in the place of an executor's id."""

_NOTHING: Final = Allocation()
_SPENT: Final = ("steps", "credits", "tokens", "tool_calls")


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


def held(run: Run) -> Allocation:
    """What runs of other flows hold of what this one may spend."""
    if not run.definition().subflows:
        return _NOTHING
    grants = [step.grant for step_id in run.live if (step := run.steps[step_id]).child and step.grant is not None]
    totals = {name: sum(getattr(grant, name) or 0 for grant in grants) for name in _SPENT}
    return Allocation(**totals)


def left(run: Run) -> Allocation:
    """What may still be spent: what was given, less what is spent and what is held. None where there is no limit."""
    usage, reserved = run.usage, held(run)
    spent = {
        "steps": run.attempts,
        "credits": usage.credits,
        "tokens": usage.input_tokens + usage.output_tokens,
        "tool_calls": usage.tool_calls,
    }
    found: dict[str, int | None] = {}
    for name in _SPENT:
        limit = getattr(run.allocation, name)
        found[name] = None if limit is None else max(0, limit - spent[name] - (getattr(reserved, name) or 0))
    return Allocation(**found)


def grant_for(run: Run, step: Step, spec: StepSpec) -> Allocation | Failure:
    """What the run of a step may spend: its share where it has one, else all that is left; the attempt that it is itself is paid before."""
    rest, wanted = left(run), spec.settings.get("allocation", {})
    found: dict[str, int | None] = {}
    for name in _SPENT:
        most = getattr(rest, name)
        least = int(name == "steps")
        if most is not None:
            most -= least
        share = wanted.get(name, most)
        if most is not None and (share > most or most < least):
            message = f"{step.id} wants {share} {name.replace('_', ' ')} for its run; {max(0, most)} are left."
            return failures.of_step(step, "BUDGET_EXHAUSTED", message, "schedule", cause=step.failure)
        found[name] = share
    return _nested(run, step, Allocation(**found))


def _nested(run: Run, step: Step, grant: Allocation) -> Allocation | Failure:
    """The grant with what is handed down as it is, one level deeper."""
    own, depth = run.allocation, run.allocation.depth
    if depth is not None and depth < 1:
        return failures.of_step(step, "BUDGET_EXHAUSTED", f"{step.id} would be nested too deeply.", "schedule")
    return msgspec.structs.replace(
        grant,
        memory_bytes=own.memory_bytes,
        concurrent_steps=own.concurrent_steps,
        depth=None if depth is None else depth - 1,
    )


def booked(usage: Usage, steps: int) -> Usage:
    """What is booked for the run of a step: all that it used, and the attempt that it was itself."""
    return msgspec.structs.replace(usage, attempts=usage.attempts + 1, steps=usage.steps + steps)
