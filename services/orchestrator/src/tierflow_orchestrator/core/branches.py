"""The items of map steps: expansion, bounded concurrency, counting them in again.

A map's items are steps of their own, `<map>[i]`. The map counts them: nothing is ever scanned, so that a map of any width costs the same per item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from tierflow_flow.definition import StepSpec

from tierflow_orchestrator.core import limits
from tierflow_orchestrator.core.blocks import above
from tierflow_orchestrator.core.blocks import count_in as count_in_block
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.states import STEP
from tierflow_orchestrator.core.step import Branches, Step, item_id


def expand(run: Run, step: Step, count: int) -> None:
    """Makes the items of a map and readies as many as may run at once."""
    spec = run.spec(step)
    at_once = count if spec.concurrency is None else min(count, spec.concurrency)
    step.branches = Branches(count=count, released=at_once)
    children = [item_id(step.id, index) for index in range(count)]
    steps, of, handler = run.steps, step.of, spec.handler
    # Of a map of the flow's own the items know by `of` whose they are.
    parent = step.id if step.parent else ""
    for index, child in enumerate(children):
        state = "READY" if index < at_once else STEP.initial
        steps[child] = Step(id=child, of=of, handler=handler, index=index, state=state, parent=parent)
    run.counts_by_state["READY"] += at_once
    run.counts_by_state[STEP.initial] += count - at_once
    if count:
        _let_go(run, spec, children[:at_once])
    else:
        run.undecided.append(step.id)


def _let_go(run: Run, spec: StepSpec, items: list[str]) -> None:
    """READY items wait for slots, first for what the cache says, or are looked at."""
    if spec.limited:
        for item in items:
            limits.begin(run, run.steps[item], spec)
    if spec.cache is not None:
        run.lookups.update(dict.fromkeys(items))
    elif spec.handler:
        queue = run.ready.get(spec.handler)
        if queue is None:
            queue = run.ready[spec.handler] = deque()
        queue.extend(items)
    else:
        run.undecided.extend(items)


def release(run: Run, step: Step) -> None:
    """Readies further items of a map, as far as its concurrency allows and nothing stops it."""
    branches = step.branches
    if branches is None or branches.released == branches.count or stopped(run, step):
        return
    if branches.kept:
        _release_others(run, step, branches)
        return
    spec = run.spec(step)
    most = spec.concurrency
    last = branches.count if most is None else min(branches.count, branches.ended + most)
    if branches.released >= last:
        return
    first, branches.released = branches.released, last
    # Nearly always one: an item has ended, so the next may begin.
    items = (
        [item_id(step.id, first)] if last == first + 1 else [item_id(step.id, index) for index in range(first, last)]
    )
    for item in items:
        run.steps[item].state = "READY"
    _let_go(run, spec, items)
    run.counts_by_state["PENDING"] -= last - first
    run.counts_by_state["READY"] += last - first


def _release_others(run: Run, step: Step, branches: Branches) -> None:
    """The same where items further on have kept their results from an earlier generation."""
    spec = run.spec(step)
    most = spec.concurrency
    queue = run.ready.setdefault(spec.handler, deque()) if spec.handler else run.undecided
    while branches.released < branches.count:
        begun = branches.released - branches.ended + branches.kept
        if most is not None and begun >= most:
            return
        child = run.steps[item_id(step.id, branches.released)]
        branches.released += 1
        if child.ended:
            branches.kept -= 1
            continue
        child.state = "READY"
        if spec.cache is None:
            queue.append(child.id)
        else:
            run.lookups[child.id] = None
        if spec.limited:
            limits.begin(run, child, spec)
        run.counts_by_state["PENDING"] -= 1
        run.counts_by_state["READY"] += 1


def count_in(run: Run, item: Step) -> None:
    """Counts an item that has ended; the map is looked at when it was the last one."""
    parent = run.steps[item.parent or item.of]
    branches = parent.branches
    if branches is None:
        # An iteration of a loop.
        count_in_block(run, item)
        return
    branches.ended += 1
    if item.state == "FAILED":
        branches.failed += 1
        if not branches.sealed_by and branches.failed > run.spec(parent).tolerate:
            branches.sealed_by = item.id
    elif item.state == "CANCELLED":
        branches.cancelled += 1
    elif item.outcome == "DEGRADED":
        branches.degraded += 1
    elif item.outcome == "PARTIAL":
        branches.partial = True
    if branches.ended == branches.count:
        run.undecided.append(parent.id)
    else:
        release(run, parent)


def stopped(run: Run, step: Step) -> bool:
    """Whether nothing of this map may start any more: its run or it is being stopped, or more failed than is tolerated.

    Under CONTINUE the other items of a map that has failed go on: they do not depend on each other.
    """
    if run.state == "CANCELLING" or step.stop_to:
        return True
    if _is_sealed(run, step):
        return True
    return bool(step.parent) and _any_stopped(run, step)


def being_stopped(run: Run, step: Step) -> bool:
    """Whether attempts of this step are being stopped: a result CANCELLED is then what was wanted."""
    if run.state == "CANCELLING" or step.stop_to:
        return True
    if step.is_item and not step.parent:
        return stopped(run, run.steps[step.of])
    return bool(step.parent) and _any_stopped(run, step)


def _any_stopped(run: Run, step: Step) -> bool:
    """Whether the step, or one that it belongs to, is being stopped."""
    return any(other.stop_to or _is_sealed(run, other) for other in _that_take_along(run, step))


def _that_take_along(run: Run, step: Step) -> Iterator[Step]:
    """The step and those whose stopping stops it too. What helps a step goes on where that one was itself stopped; what compensates one goes on in any case."""
    helped: Step | None = None
    for other in above(run, step):
        if other is not helped:
            yield other
        if other.role == "compensation":
            return
        helped = run.steps[other.parent] if other.role else None


def _is_sealed(run: Run, step: Step) -> bool:
    return step.branches is not None and bool(step.branches.sealed_by) and run.failure_policy != "CONTINUE"


def interrupted(run: Run, step: Step) -> bool:
    """Whether its attempt is stopped by a pause: then it is going to start again."""
    if step.stop_to != "READY" or run.state == "CANCELLING":
        return False
    return not step.above or not being_stopped(run, run.steps[step.above])


def is_cut_off(step: Step, by: Step) -> bool:
    """Whether what an attempt brings is refused, as its step is stopped by `by`.

    What goes on in a block that has failed may still complete: what it did counts, and can be undone. So may what is interrupted, or skipped.
    """
    if by.stop_to == "READY":
        return False
    return by.stop_to != "SKIPPED" if by is step else by.stop_to in ("CANCELLED", "SKIPPED")


def stopped_by(run: Run, step: Step) -> Step | None:
    """The step that is being stopped and takes this one along: itself or one that it belongs to; None where none is."""
    if step.stop_to:
        return step
    if not step.above:
        return None
    return next((other for other in _that_take_along(run, step) if other.stop_to), None)


def live_below(run: Run, step: Step) -> Iterator[Step]:
    """The steps below a step that have an attempt in flight."""
    for step_id in run.live:
        other = run.steps[step_id]
        if other.above and any(each is step for each in above(run, other)):
            yield other
