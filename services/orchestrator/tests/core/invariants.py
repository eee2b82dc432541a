"""The invariants of docs/invariants.md that can be seen in a run in memory. Everything is counted anew here; the core counts as it goes."""

from __future__ import annotations

from collections import Counter

from tierflow_flow.definition import StepSpec
from tierflow_orchestrator.core import Run, Step, dump, load, open_effects
from tierflow_orchestrator.core.blocks import below, sibling
from tierflow_orchestrator.core.branches import being_stopped
from tierflow_orchestrator.core.commands import DispatchAttempt, ReportEnd, StopAttempt
from tierflow_orchestrator.core.states import RUN, STEP
from tierflow_orchestrator.core.step import BlockState, Branches
from tierflow_runtime.ledger import DIMENSIONS, NOTHING, amounts_of
from tierflow_runtime.values import Failure, Usage


def check_invariants(run: Run) -> None:
    """Raises AssertionError that names the invariant."""
    assert run.state in RUN.table or not run.state, "V2"
    _in_flight(run)
    _counters(run)
    _bill(run)
    _limits(run)
    _balance(run)
    _effects(run)
    _not_stuck(run)
    _waits(run)
    _lookups(run)
    _limits_in_time(run)
    _navigation(run)
    _verdict(run)
    _snapshot(run)


def _in_flight(run: Run) -> None:
    live = [s.id for s in run.steps.values() if s.handler and s.block is None and s.state in ("SCHEDULED", "RUNNING")]
    assert sorted(live) == sorted(run.live), "V8"
    assert run.in_flight == len(live), "V8"
    for step in run.steps.values():
        assert step.in_flight == (step.id in run.live), "V8"


def _counters(run: Run) -> None:
    flow = run.flow
    assert flow is not None
    states = Counter(step.state for step in run.steps.values())
    assert {k: v for k, v in run.counts_by_state.items() if v} == dict(states), "V13"
    top = [step for step in run.steps.values() if not step.is_item and not step.parent]
    assert run.open_steps == sum(not step.ended for step in top), "V13"
    assert run.top_ended == sum(step.ended for step in top), "V13"
    for step in run.steps.values():
        if not step.is_item and not step.role:
            needs = flow.by_id[step.of].needs
            assert step.waiting == sum(not sibling(run, step, need).ended for need in needs), "V13"
            assert step.state != "PENDING" or step.waiting or run.state == "CANCELLING", "V18"
        if (join := flow.by_id[step.of].join) is not None and not step.is_item and not step.role:
            counted = [sibling(run, step, name) for name in join.of]
            assert step.arrived == sum(need.state in DONE for need in counted), "V13"
            assert step.missed == sum(need.ended and need.state not in DONE for need in counted), "V13"
        if step.branches is not None:
            _items(run, step, step.branches)
        if step.block is not None:
            _block(run, step, step.block)


def _items(run: Run, step: Step, branches: Branches) -> None:
    items = [run.steps[f"{step.id}[{i}]"] for i in range(branches.count)]
    assert branches.ended == sum(item.ended for item in items), "V13"
    assert branches.failed == sum(item.state == "FAILED" and item.id not in run.undone for item in items), "V13"
    assert branches.cancelled == sum(item.state == "CANCELLED" for item in items), "V13"
    if step.block is None:
        assert step.ended == (branches.ended == branches.count), "V18"


def _block(run: Run, step: Step, state: BlockState) -> None:
    """What a step has begun below it, counted anew; it ends when that has, and only then."""
    inner = list(below(run, step))
    assert state.open == sum(not other.ended for other in inner), "V13"
    assert all(other.above == step.id for other in inner), "V13"
    if step.state in ("RUNNING", "COMPENSATING"):
        assert state.open or state.delayed, "V18"
    else:
        assert not state.open, "V18"


def _bill(run: Run) -> None:
    total = Usage()
    for step in run.steps.values():
        total = total.plus(step.usage)
    assert run.usage == total, "V10"


def _limits(run: Run) -> None:
    flow = run.flow
    assert flow is not None
    if run.steer is not None and run.steer.version:
        return  # Limits that were lowered hold from the next decision on.
    for limit in (flow.concurrency, run.allocation.concurrent_steps):
        assert limit is None or len(run.live) <= limit, "V14"
    assert run.allocation.steps is None or run.attempts <= run.allocation.steps, "V14"
    for spec in flow.by_id.values():
        if spec.items is not None and spec.concurrency is not None:
            begun = Counter(
                s.above
                for s in run.steps.values()
                if s.of == spec.id and s.is_item and s.state in ("READY", "SCHEDULED", "RUNNING", "BACKOFF")
            )
            assert max(begun.values(), default=0) <= spec.concurrency, "V14"


def _balance(run: Run) -> None:
    """What is granted is held, spent or free; who is in flight holds what it was granted, and nobody else holds anything."""
    ledger = run.ledger
    for name in DIMENSIONS:
        b = ledger.balance(name)
        assert min(b.reserved, b.consumed, b.overdrawn, b.available or 0) >= 0, f"V57: {name}"
        whole = b.total is None or b.total + b.overdrawn == b.reserved + b.consumed + (b.available or 0)
        assert whole, f"V57: {name}"
    granted = {s.attempt_id: amounts_of(s.grant) for s in run.steps.values() if s.grant is not None}
    assert granted == ledger.holds, "V54"
    assert set(granted) <= {run.steps[step_id].attempt_id for step_id in run.live}, "V54"
    assert not run.ended or ledger.held == NOTHING, "V55"


def _effects(run: Run) -> None:
    effects = list(open_effects(run))
    named = [e.attempt_id for e in effects if isinstance(e, DispatchAttempt | StopAttempt)]
    assert sorted(named) == sorted(run.steps[step_id].attempt_id for step_id in run.live), "V17"
    assert sum(isinstance(e, ReportEnd) for e in effects) == int(run.ended), "V17"
    if run.state == "CANCELLING":
        assert not any(isinstance(e, DispatchAttempt) for e in effects), "V17"


def _not_stuck(run: Run) -> None:
    if run.state == "RUNNING":
        startable = list(run.ready_handlers())
        assert run.live or startable or run.lookups or run.next_wake() is not None, "V18"
    elif run.state == "COMPENSATING":
        assert run.live or list(run.ready_handlers()) or run.lookups or run.next_wake() is not None, "V18"
        assert sum(step.state == "COMPENSATING" for step in run.steps.values()) == 1, "V18: one after another"
    elif run.state in ("CANCELLING", "PAUSING"):
        assert run.live, "V18"
    elif run.state == "SUSPENDED" and not run.asked:
        assert not run.live, "V18"
        assert any(step.is_waiting for step in run.steps.values()), "V18"
        open_ = [s for s in run.steps.values() if s.state in ("READY", "BACKOFF") and not s.held]
        assert not open_, "V18"
    elif run.state == "PAUSED":
        assert all(run.steps[step_id].child for step_id in run.live), "V8"
    elif run.ended:
        assert not run.live, "V11"
        assert all(step.ended for step in run.steps.values()), "V11"
    for step in run.steps.values():
        if step.state == "READY" and step.handler:
            if step.id in run.lookups:
                assert run.spec(step).cache is not None, "V18"
            elif run.definition().prioritised:
                ranked = {entry[2] for entry in run.ranked.get(step.handler, ())}
                assert step.held or step.id in run.ready.get(step.handler, ()) or step.id in ranked, "V18"
            else:
                assert (step.id in run.ready.get(step.handler, ())) == (not step.held), "V18"
        assert step.held == (run.steer is not None and step.id in run.steer.held), "V13"
        assert not step.held or step.state == "READY", "V18"


def _lookups(run: Run) -> None:
    """Q15: what is looked up may start as soon as that is known."""
    assert all(run.steps[name].state == "READY" and run.steps[name].handler for name in run.lookups), "V18"


def _waits(run: Run) -> None:
    """Who waits is known, and wakes when it said."""
    waiting = sorted(step.id for step in run.steps.values() if step.is_waiting)
    assert waiting == sorted(run.waits), "V13"
    moments = [step.wakes_at for step in run.steps.values() if step.is_waiting and step.wakes_at is not None]
    moments += [step.deadline for step in run.steps.values() if not step.ended and step.deadline is not None]
    moments += [
        step.next_attempt_at
        for step in run.steps.values()
        if step.state == "BACKOFF" and not step.handler and step.next_attempt_at is not None
    ]
    assert run.next_timer() == min(moments, default=None), "V18"


def _limits_in_time(run: Run) -> None:
    """Q2: who is limited in time is known, and is woken when it is over."""
    moments = {moment for step in run.steps.values() if not step.stop_to for moment in (step.start_by, step.end_by)}
    moments.discard(None)
    assert run.next_limit() == min(moments, default=None), "V18"
    for step in run.steps.values():
        assert not step.ended or step.start_by is step.end_by is None, "V18"
        assert step.start_by is None or step.state in ("READY", "BACKOFF"), "V18"


def _good(step: Step) -> bool:
    undone = step.failure is not None and step.failure.code == "COMPENSATION_FAILED"
    return step.state in ("COMPLETED", "COMPENSATING", "COMPENSATED") or step.tolerated or undone


DONE = ("COMPLETED", "COMPENSATING", "COMPENSATED")


def _met(run: Run, step: Step, spec: StepSpec, needs: list[Step]) -> bool:
    """Whether what a step needs has ended as it must; a need on a branch that its switch did not choose is none where the chosen one arrived."""
    of = () if spec.join is None else spec.join.of
    if spec.join is not None and sum(sibling(run, step, name).state in DONE for name in of) < spec.join.at_least:
        return False
    arrived = [_switches(run, need.of) for need in needs if _good(need)]
    return all(
        _good(need) or (need.unchosen_by and any(run.steps[need.unchosen_by].of in found for found in arrived))
        for need in needs
        if need.of not in of
    )


def _switches(run: Run, step_id: str) -> set[str]:
    """The switches on whose branches a step is, or after them."""
    assert run.flow is not None
    spec = run.flow.by_id[step_id]
    return {spec.chosen_by}.union(*(_switches(run, name) for name in spec.needs))


def _navigation(run: Run) -> None:
    """What is decided about each step, told again in the plainest way."""
    flow = run.flow
    assert flow is not None
    for step in run.steps.values():
        spec = flow.by_id[step.of]
        if not step.is_item and not step.role:
            _needs(run, step, spec)
        if step.branches is not None and step.ended and not step.stop_to and not step.calls:
            assert (step.state == "FAILED") == (step.branches.failed > spec.tolerate), "V19"
            assert step.state != "COMPLETED" or not step.branches.cancelled, "V19"
        if not step.is_item and step.state == "FAILED" and step.id not in run.undone:
            assert step.tolerated == (spec.on_error == "continue"), "V19"
            updated = run.steer is not None and run.steer.version  # The policy was another one when it failed.
            if not step.tolerated and not step.role and run.failure_policy == "FAIL_FAST" and not updated:
                _failed_fast(run, step)
        assert step.asked == (step.id in run.asked), "V13"
        assert not step.asked or step.state == "BACKOFF", "V13"
    for due, step_id, epoch in run.backoff:
        step = run.steps[step_id]
        if step.state == "BACKOFF" and step.epoch == epoch:
            assert not step.asked, "V9: it waits for an operator"
            assert due == step.next_attempt_at, "V7"
    for step_id in run.due:
        assert run.steps[step_id].state == "BACKOFF", "V7"
        assert not run.steps[step_id].asked, "V9"


def _needs(run: Run, step: Step, spec: StepSpec) -> None:
    needs = [sibling(run, step, need) for need in spec.needs]
    met = _met(run, step, spec, needs)
    if step.attempt_id or step.branches is not None or step.block is not None:
        assert spec.always or met, "V4"
    if spec.chosen_by and step.state not in ("PENDING", "SKIPPED", "CANCELLED"):
        assert spec.local in (sibling(run, step, spec.chosen_by).output or ""), "V4"
    if step.state == "SKIPPED":
        optional = spec.condition is not None or spec.chosen_by or step.tolerated
        assert optional or not met, "V4"


def _failed_fast(run: Run, step: Step) -> None:
    """Whoever a step belongs to is over with it, or being stopped."""
    if not step.parent:
        # What is paused stays so, also where an operator's word has ended its last step: it ends when it is resumed.
        over = run.state == "PAUSED" and not run.open_steps
        assert run.ended or over or run.state in ("CANCELLING", "COMPENSATING"), "V9"
    else:
        holder = run.steps[step.parent]
        is_past = holder.block is None or bool(holder.block.what) or step not in below(run, holder)
        assert is_past or not holder.holds or being_stopped(run, step), "V9"


def _verdict(run: Run) -> None:
    for step in run.steps.values():
        _failure(step.failure)
        assert step.state in STEP.table, "V2"
    if not run.ended:
        assert not run.outcome, "V19"
        return
    _failure(run.failure)
    top = [step for step in run.steps.values() if not step.is_item and not step.parent]
    bad = [step for step in top if step.state == "FAILED" and not step.tolerated]
    if run.state == "COMPLETED":
        assert not bad, "V19"
        assert run.failure is None, "V19"
        assert run.percent() == 100, "V21"
        tolerated = any(step.tolerated for step in run.steps.values())
        degraded = any(step.outcome == "DEGRADED" for step in run.steps.values())
        assert not any(step.state in ("COMPENSATING", "COMPENSATED") for step in run.steps.values()), "V19"
        assert run.outcome == ("PARTIAL" if tolerated else "DEGRADED" if degraded else "SUCCESS"), "V19"
    else:
        assert run.percent() < 100, "V21"
    if run.state == "FAILED":
        assert run.failure is not None, "V19"
        assert run.outcome == "FAILURE", "V19"
        if run.failure.code == "STEP_FAILED":
            assert run.steps[run.failure.step_id] in bad, "V19"
            assert run.failure.cause == run.steps[run.failure.step_id].failure, "V19"
    if run.state == "CANCELLED":
        assert run.outcome == "CANCELLED", "V19"


def _failure(failure: Failure | None) -> None:
    while failure is not None:
        assert failure.code, "V20"
        assert failure.tier, "V20"
        assert failure.component, "V20"
        assert failure.operation, "V20"
        failure = failure.cause


def _snapshot(run: Run) -> None:
    data = dump(run)
    copy = load(data)
    copy.flow = run.flow
    assert dump(copy) == data, "V12"
