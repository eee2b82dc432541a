"""What events do to a plan of several runs. Part of `swarm.evolve`; nothing here decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierflow_runtime.values import NO_USAGE

from tierflow_coordinator.core import events
from tierflow_coordinator.core.plan import FAILED, PENDING, SKIPPED, Plan, PlannedRun, Standing

if TYPE_CHECKING:
    from tierflow_coordinator.core.swarm import Swarm


def begun(event: events.SwarmCreated) -> Plan | None:
    """The plan that a swarm was accepted with; None where it has one flow."""
    if not event.plan:
        return None
    return Plan(runs=event.plan, output=event.plan_output, standings={each.id: Standing() for each in event.plan})


def decided(swarm: Swarm, event: events.PlanDecided) -> None:
    """A run does not take place, or a choice was made."""
    plan = swarm.plan
    if plan is None:
        return
    standing, planned = plan.standings[event.planned], plan.run(event.planned)
    if standing.run_id and swarm.run is not None and swarm.run.run_id == standing.run_id:
        swarm.run.finished = True  # Tier 2 refused it.
    standing.state, standing.reason = event.state, event.reason
    standing.failure, standing.output = event.failure, event.output
    standing.chosen, standing.unchosen_by = event.chosen, event.unchosen_by
    standing.outcome = "FAILURE" if event.state == FAILED else ""
    _note_failing(plan, planned, standing)


def requested(plan: Plan, event: events.RunRequested) -> None:
    """A run of the plan was asked for."""
    standing = plan.standings[event.planned]
    if standing.run_id != event.run_id:
        plan.spent = plan.spent if standing.usage == NO_USAGE else plan.spent.plus(standing.usage)
        standing.usage = NO_USAGE
        standing.made += 1
    standing.state, standing.reason = "RUNNING", event.reason
    standing.run_id, standing.generation = event.run_id, event.generation
    standing.flow, standing.input = event.flow, event.input


def finished(swarm: Swarm, plan: Plan, event: events.RunFinished) -> None:
    """A run of the plan ended."""
    standing = plan.standing_of(event.run_id)
    if standing is None:
        return
    planned = next(each for each in plan.runs if plan.standings[each.id] is standing)
    standing.state = event.state
    standing.outcome, standing.output = event.outcome, event.output
    standing.failure, standing.usage = event.failure, event.usage
    _note_failing(plan, planned, standing)
    swarm.usage = plan.used()


def _note_failing(plan: Plan, planned: PlannedRun, standing: Standing) -> None:
    if standing.state == FAILED:
        standing.failing = not planned.tolerate
    else:
        standing.failing = (
            standing.state == SKIPPED
            and not standing.unchosen_by
            and any(plan.standings[need].failing for need in planned.needs)
        )


def reopened(plan: Plan) -> None:
    """A generation begins: what failed, and what comes after it, is decided anew. What completed stays."""
    plan.generation += 1
    anew: set[str] = set()
    for planned in _ordered(plan):
        standing = plan.standings[planned.id]
        if standing.state in (FAILED, PENDING) or not anew.isdisjoint(planned.needs):
            anew.add(planned.id)
            fresh = Standing(made=standing.made, usage=standing.usage)
            if standing.state == FAILED:
                fresh.run_id, fresh.generation = standing.run_id, standing.generation
            plan.standings[planned.id] = fresh


def _ordered(plan: Plan) -> list[PlannedRun]:
    """Each run after those that it needs."""
    ordered: list[PlannedRun] = []
    placed: set[str] = set()
    waiting = list(plan.runs)
    while waiting:
        ready = [each for each in waiting if placed.issuperset(each.needs)]
        ordered += ready
        placed.update(each.id for each in ready)
        waiting = [each for each in waiting if each.id not in placed]
    return ordered
