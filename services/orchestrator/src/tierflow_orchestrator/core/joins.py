"""Joins, and branches that a switch has not chosen: whether what has ended is enough for a step to start.

A join counts the steps that completed. It is met once they are enough, out of reach once too many have ended otherwise; then the step is READY, whatever the
others do. A step without a join needs all to end well; that a switch chose another branch is no hindrance where the chosen one arrived.
"""

from __future__ import annotations

from tierflow_flow.definition import Join, StepSpec

from tierflow_orchestrator.core.blocks import sibling
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step


def count_in(run: Run, step: Step, need: Step, good: bool) -> bool:
    """Counts a need that has ended into a step with a join; whether the step may be looked at now."""
    join = run.definition().joins[step.of]
    if need.of in join.of:
        arrived = need.state == "COMPLETED"
        step.arrived += arrived
        step.missed += not arrived
    else:
        _require(step, need, good)
    if step.state != "PENDING":
        step.late_needs = (*step.late_needs, need.id)
        return False
    if not decided(step, join) or step.waiting > len(join.of) - step.arrived - step.missed:
        return False
    if step.arrived < join.at_least and not step.blocked_by:
        step.blocked_by = need.id if need.of in join.of else _first_bad(run, step, join)
    return True


def _require(step: Step, need: Step, good: bool) -> None:
    """A need that no join counts has ended."""
    if need.unchosen_by:
        step.passed = True
    elif not good and not step.blocked_by:
        step.blocked_by = need.id
    step.failing = step.failing or failing(need)


def decided(step: Step, join: Join) -> bool:
    """Whether the join is met, or out of reach."""
    return step.arrived >= join.at_least or step.missed > len(join.of) - join.at_least


def _first_bad(run: Run, step: Step, join: Join) -> str:
    """Of the steps that a join counts: the first that ended without completing."""
    counted_in = (sibling(run, step, name) for name in join.of)
    return next(other.id for other in counted_in if ended_badly(other))


def ended_badly(step: Step) -> bool:
    """Whether a step ended without completing."""
    return step.ended and step.state != "COMPLETED"


def failing(need: Step) -> bool:
    """Whether a need failed, or was skipped because of a failure."""
    if need.unchosen_by or need.tolerated:
        return False
    return need.state == "FAILED" or (need.state == "SKIPPED" and need.failing)


def sees_failure(run: Run, step: Step) -> bool:
    """Whether a failure keeps the step from what it needs: what failure() says in its condition."""
    join = run.definition().joins.get(step.of)
    if step.failing or join is None or not _blocked_by_one(run, step, join):
        return step.failing
    return any(failing(sibling(run, step, name)) for name in join.of)


def failed(run: Run, step: Step, spec: StepSpec) -> Step | None:
    """Where the join is out of reach because of failures, tolerated or not: the first of those that failed."""
    if spec.join is None or not _blocked_by_one(run, step, spec.join):
        return None
    counted_in = (sibling(run, step, name) for name in spec.join.of)
    return next((other for other in counted_in if other.state == "FAILED"), None)


def _blocked_by_one(run: Run, step: Step, join: Join) -> bool:
    """Whether what blocks the step is one of those that its join counts."""
    return bool(step.blocked_by) and run.steps[step.blocked_by].of in join.of


def told(run: Run, step: Step, join: Join) -> str:
    """What is asked for and what came of it, in words."""
    found = ", ".join(f"{name} is {sibling(run, step, name).state}" for name in join.of[:12])
    more = "" if len(join.of) <= 12 else f" and {len(join.of) - 12} more"
    return f"{join.at_least} of {len(join.of)} must complete: {found}{more}"


def unchosen(run: Run, step: Step, spec: StepSpec) -> Step | None:
    """A needed step on a branch that its switch did not choose, where no needed step on a chosen branch of that switch ended well; None where there is none."""
    flow = run.definition()
    needs = [sibling(run, step, name) for name in spec.needs]
    arrived = 0
    for need in needs:
        if need.state == "COMPLETED" or need.tolerated:
            arrived |= flow.lanes.get(need.of, 0)
    for need in needs:
        if need.unchosen_by and not counted(spec, need):
            switch = run.steps[need.unchosen_by].of
            if not arrived & flow.lane_of.get(switch, 0):
                return need
    return None


def counted(spec: StepSpec, need: Step) -> bool:
    """Whether it is the join that decides about the need."""
    return spec.join is not None and need.of in spec.join.of
