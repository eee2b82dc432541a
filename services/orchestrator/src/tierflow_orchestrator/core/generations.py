"""Generations of a run: what a retry executes again, how its steps are made anew, and how everything that is counted is counted from them (rule R31).

The steps of the flow itself run again as a whole, with all that they began; only of a map those items are kept that completed. A document is walked again from its
beginning; what its tasks gave stands for them where they are given the same (`evolve_serverless.forget`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from tierflow_flow.definition import Flow, Join
from tierflow_runtime.values import BlobRef, Micros

from tierflow_orchestrator.core import branches, events, evolve_serverless, joins
from tierflow_orchestrator.core.blocks import above
from tierflow_orchestrator.core.moves import make_ready
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.states import STEP
from tierflow_orchestrator.core.step import Branches, Step, item_id

KEPT = ("COMPLETED", "SKIPPED")
"""States of an item that a later generation keeps."""


def again(run: Run) -> dict[str, str]:
    """The steps that a retry executes again, each with the reason, in the flow's order: what failed, was cancelled or undone, and all that depends on it."""
    undone = {top(run, step) for step in run.steps.values() if step.state == "COMPENSATED" or step.id in run.undone}
    found = {}
    for spec in run.definition().steps:
        step = run.steps.get(spec.id)
        if step is None:
            found[spec.id] = "NOT EXECUTED"
        elif step.id in undone:
            found[spec.id] = "COMPENSATED"
        elif step.state == "CANCELLED" or (step.state == "FAILED" and not step.tolerated):
            found[spec.id] = step.state
    return with_dependants(run.definition(), found)


def top(run: Run, step: Step) -> str:
    """Id of the flow's own step that a step belongs to."""
    return [other.id for other in above(run, step)][-1]


def with_dependants(flow: Flow, found: Mapping[str, str]) -> dict[str, str]:
    """These steps and all that depend on them, with the reason, in the flow's order."""
    all_, waiting = dict(found), deque(found)
    while waiting:
        step_id = waiting.popleft()
        for other in flow.dependants.get(step_id, ()):
            if other not in all_:
                all_[other] = f"needs {step_id}"
                waiting.append(other)
    return {spec.id: all_[spec.id] for spec in flow.steps if spec.id in all_}


def in_part(run: Run, found: Mapping[str, str]) -> frozenset[str]:
    """Of these steps the maps whose items are known and stay what they are: only items that did not complete run again."""
    flow = run.definition()
    return frozenset(
        step_id
        for step_id, reason in found.items()
        if reason in ("FAILED", "CANCELLED")
        and run.steps[step_id].branches is not None
        and not any(need in found for need in flow.by_id[step_id].needs)
    )


def reopen(run: Run, event: events.RunStateChanged, time: Micros) -> None:
    """A new generation: the steps that run again are made anew. Bills, and results of steps that are not among them, are kept."""
    run.generation = event.generation
    run.outcome, run.output, run.failure, run.ended_at = "", None, None, None
    run.stopping, run.cancel_asked = "", False
    run.unconfirmed.clear()
    run.undo, run.undone = [], []
    steer = run.steered()
    steer.opened_at, steer.deadline, steer.stop, steer.stepping = time, None, None, False
    steer.floor = max(steer.floor, max((step.epoch for step in run.steps.values()), default=0))
    if run.definition().program is not None:
        evolve_serverless.forget(run)
    else:
        run.steps = _kept(run, _reset(run, event))
    for moments in (run.backoff, run.timers, run.limits):
        # Everything had ended; what is left in them is about steps that may be gone.
        moments.clear()
    run.due.clear()
    recount(run)


def _reset(run: Run, event: events.RunStateChanged) -> set[str]:
    """The steps that are made anew; maps that go on with the items that they had are opened."""
    reset = {run.steps[step_id].id for step_id in event.reset_steps if step_id in run.steps}
    for step in list(run.steps.values()):
        if (
            step.branches is not None
            and not step.above
            and step.id not in reset
            and step.state in ("FAILED", "CANCELLED")
        ):
            reset.update(_open_map(run, step))
    return reset


def _open_map(run: Run, step: Step) -> list[str]:
    """A map runs again with the items that it had; those that did not complete, and are to be made anew, are returned."""
    if step.branches is None or step.tolerated:
        return []
    items = [run.steps[item_id(step.id, index)] for index in range(step.branches.count)]
    kept = [item for item in items if item.state in KEPT]
    step.state, step.outcome, step.failure, step.ended_at, step.reason = "RUNNING", "", None, None, ""
    step.stopping = step.stop_to = ""
    step.block, step.calls = None, 0
    step.branches = Branches(
        count=len(items),
        ended=len(kept),
        kept=len(kept),
        degraded=sum(item.outcome == "DEGRADED" for item in kept),
        partial=any(item.outcome == "PARTIAL" for item in kept),
    )
    return [item.id for item in items if item.state not in KEPT]


def _kept(run: Run, reset: set[str]) -> dict[str, Step]:
    """The steps of the new generation: what is reset is made anew, and what that began is gone but for its bill; so is what handled a map that goes on."""
    steps: dict[str, Step] = {}
    for step in run.steps.values():
        holder = _goes_into(run, step, reset)
        if holder is None:
            steps[step.id] = step
        elif holder == step.id:
            steps[step.id] = anew(step, handler=step.handler)
        else:
            steps[holder].usage = steps[holder].usage.plus(step.usage)
    return steps


def _goes_into(run: Run, step: Step, reset: set[str]) -> str | None:
    """Id of the step that goes on with the bill of this one: itself where it is made anew; None where it stays as it is."""
    way = [other.id for other in above(run, step)]
    for step_id in way:
        if step_id in reset:
            return step_id
    handled = len(way) > 1 and run.steps[way[-2]].role and run.steps[way[-1]].state == "RUNNING"
    return way[-1] if handled else None


def anew(step: Step, *, handler: str) -> Step:
    """The step before its next attempt, as if nothing had been; its epochs go on, and its bill."""
    return Step(
        id=step.id, of=step.of, handler=handler, index=step.index, parent=step.parent, epoch=step.epoch, usage=step.usage,
        unbooked=step.unbooked,
    )  # fmt: skip


def start(run: Run) -> None:
    """The run of a later generation has been prepared: what may start is READY."""
    ready_all(run)
    for step in list(run.steps.values()):
        if step.branches is None or step.state != "RUNNING":
            continue
        if step.branches.ended == step.branches.count:
            run.undecided.append(step.id)
        else:
            branches.release(run, step)


def ready_all(run: Run) -> None:
    """Whatever waits for nothing any more is READY."""
    for spec in run.definition().steps:
        step = run.steps[spec.id]
        if step.state == STEP.initial and (not step.waiting or _is_decided(step, spec.join)):
            make_ready(run, step)


def _is_decided(step: Step, join: Join | None) -> bool:
    """Whether its join needs nothing more."""
    if join is None or not joins.decided(step, join):
        return False
    return step.waiting <= len(join.of) - step.arrived - step.missed


def not_begun(step: Step) -> bool:
    """Whether it is a step of the flow itself of which nothing has happened: no attempt, no error that was handled."""
    return step.state in ("PENDING", "READY") and not step.above and not step.epoch and not step.calls


def recount(run: Run) -> None:
    """Counts everything anew that is counted from the steps, and what each of them waits for."""
    run.counts_by_state = dict.fromkeys(STEP.table, 0)
    run.open_steps = run.top_ended = 0
    run.partial = run.degraded = False
    run.failed_step = ""
    for kept in (run.large, run.large_bytes, run.parsed, run.items, run.views):
        kept.clear()
    run.unloaded = None
    run.log = [step_id for step_id in run.log if step_id in run.steps and run.steps[step_id].ended]
    run.around = {run.steps[step_id].above for step_id in run.log} - {""}
    for step in run.steps.values():
        run.counts_by_state[step.state] += 1
        _recount_one(run, step)
    _clear_queues(run)
    _count_needs(run)


def _clear_queues(run: Run) -> None:
    """Takes out of the queues what is gone, or does not wait for a slot any more."""
    for queue in run.ready.values():
        for step_id in [other for other in queue if other not in run.steps or run.steps[other].state == STEP.initial]:
            queue.remove(step_id)


def _recount_one(run: Run, step: Step) -> None:
    if step.ended:
        _recount_ended(run, step)
    elif not step.above:
        run.open_steps += 1


def _recount_ended(run: Run, step: Step) -> None:
    if isinstance(step.output, BlobRef):
        run.note_large(step.of, step.output)
    run.partial = run.partial or step.tolerated or step.outcome == "PARTIAL"
    run.degraded = run.degraded or step.outcome == "DEGRADED"
    if step.above:
        return
    run.top_ended += 1
    if step.state == "FAILED" and not step.tolerated and not run.failed_step:
        run.failed_step = step.id


def _count_needs(run: Run) -> None:
    """What each step needs, counted from nothing, as `moves` counts it step by step; tasks of a document need nothing."""
    flow = run.definition()
    if flow.program is not None:
        return
    for spec in flow.steps:
        step = run.steps[spec.id]
        step.waiting, step.arrived, step.missed, step.passed = len(spec.needs), 0, 0, False
        if not step.ended:
            step.blocked_by, step.failing = "", False
    for spec in flow.steps:
        need = run.steps[spec.id]
        for other_id in flow.dependants.get(need.id, ()) if need.ended else ():
            _count_need(run, run.steps[other_id], need)


def _count_need(run: Run, step: Step, need: Step) -> None:
    good = need.state == "COMPLETED" or need.tolerated
    step.waiting -= 1
    if step.id in run.definition().joins:
        joins.count_in(run, step, need, good)
        return
    if need.unchosen_by:
        step.passed = True
    elif not good and not step.blocked_by:
        step.blocked_by = need.id
    step.failing = step.failing or joins.failing(need)
