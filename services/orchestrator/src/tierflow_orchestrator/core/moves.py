"""The moves of steps: what every event that moves one has in common. Only `evolve` and what belongs to it uses them."""

from __future__ import annotations

from collections import deque

from tierflow_flow.definition import StepSpec
from tierflow_runtime.values import NO_USAGE, Micros, Usage

from tierflow_orchestrator.core import blocks, branches, budget, compensation, evolve_serverless, joins, limits
from tierflow_orchestrator.core.run import REMEMBERED_COMMANDS, Run
from tierflow_orchestrator.core.states import STEP, IllegalTransition
from tierflow_orchestrator.core.step import Step


def move(run: Run, step: Step, to: str) -> None:
    """A step goes to another state. Raises `IllegalTransition` where the table does not have the move."""
    from_ = step.state
    if to not in STEP.table[from_]:
        raise IllegalTransition(STEP.name, step.id, from_, to)
    run.counts_by_state[from_] -= 1
    run.counts_by_state[to] += 1
    step.state = to


def make_ready(run: Run, step: Step) -> None:
    """Everything the step needs has ended. Whether it is needed itself is looked at before the decision is over."""
    move(run, step, "READY")
    spec = run.spec(step)
    if step.handler:
        queue(run, step, spec)
    if step.blocked_by or spec.condition is not None or not step.handler or is_looked_at(run, step, spec):
        run.undecided.append(step.id)


def queue(run: Run, step: Step, spec: StepSpec) -> None:
    """A step that calls a handler waits for a slot, or first for what the cache says."""
    if spec.limited:
        limits.begin(run, step, spec)
    if spec.cache is not None:
        run.lookups[step.id] = None
    else:
        run.ready.setdefault(step.handler, deque()).append(step.id)


def is_looked_at(run: Run, step: Step, spec: StepSpec) -> bool:
    """Whether it must be looked at for a reason that few steps have."""
    if step.passed or spec.join is not None or spec.chosen_by or run.gated:
        return True
    return len(spec.needs) > 1 and bool(run.definition().setters)


def begin(run: Run, step: Step, time: Micros) -> None:
    """A step without an attempt of its own begins."""
    move(run, step, "RUNNING")
    step.started_at = time
    if step.scheduled_at is None:
        step.scheduled_at = time
    if run.started_at is None:
        run.started_at = time


def end_step(run: Run, step: Step, state: str, time: Micros) -> None:
    """A step ends: whatever waits for it counts it in."""
    move(run, step, state)
    step.ended_at = time
    step.next_attempt_at = step.start_by = step.end_by = None
    run.live.pop(step.id, None)
    run.waits.pop(step.id, None)
    run.decided.pop(step.id, None)
    if step.asked:
        step.asked = False
        del run.asked[step.id]
    run.due.discard(step.id)
    if run.lookups:
        run.lookups.pop(step.id, None)
    if step.held:
        step.held = False
        run.steered().held.remove(step.id)
    if run.definition().compensate_on:
        compensation.note(run, step)
    if step.frame is not None:
        evolve_serverless.count_in(run, step, step.frame)
        return
    if step.index >= 0:
        branches.count_in(run, step)
        return
    if step.parent:
        blocks.count_in(run, step)
        if step.role:
            return
    else:
        run.open_steps -= 1
        run.top_ended += 1
    if step.blocked_by:
        _pass_failure_on(run, step)
    _count_in(run, step)


def _pass_failure_on(run: Run, step: Step) -> None:
    """A step that is skipped because a need of it was not good hands on whether a failure was the cause."""
    if step.state == "SKIPPED":
        step.failing = joins.sees_failure(run, step)


def _count_in(run: Run, step: Step) -> None:
    """What needs an ended step has one need less; where none is left, it is READY."""
    flow = run.definition()
    good, failing = step.state == "COMPLETED" or step.tolerated, joins.failing(step)
    for other_id in flow.dependants.get(step.of, ()):
        other = run.steps[other_id] if not step.parent else blocks.sibling(run, step, other_id)
        other.waiting -= 1
        if other_id in flow.joins:
            if joins.count_in(run, other, step, good):
                make_ready(run, other)
            continue
        if not good:
            _not_good(other, step, failing)
        if not other.waiting and other.state == "PENDING":
            make_ready(run, other)


def _not_good(other: Step, need: Step, failing: bool) -> None:
    """A need has ended otherwise than it must."""
    if need.unchosen_by:
        other.passed = True
    elif not other.blocked_by:
        other.blocked_by = need.id
    other.failing = other.failing or failing


def book(run: Run, step: Step, usage: Usage) -> None:
    """What an attempt used goes onto the bill of its step and its run."""
    if step.grant is not None:
        step.grant = None
        run.ledger.settle(step.attempt_id, usage)
    elif usage is NO_USAGE or usage == NO_USAGE:
        return
    else:
        run.ledger.book(usage)
    step.usage = usage if step.usage is NO_USAGE else step.usage.plus(usage)


def lose(run: Run, step: Step, time: Micros) -> None:
    """The present attempt is over without a result: a late one is booked, once, and what the attempt holds stays held until then (rule R30)."""
    step.unbooked = (*step.unbooked, step.epoch)
    if step.grant is not None:
        run.ledger.lose(step.attempt_id, step.id, budget.until(run, step, time))
        step.grant = None


def remember(run: Run, command_id: str, applied: bool, state: str) -> None:
    """What was answered to a command, so that it is answered alike when it comes again (rule R14)."""
    run.commands[command_id] = (applied, state)
    if len(run.commands) > REMEMBERED_COMMANDS:
        del run.commands[next(iter(run.commands))]
