"""The invariants of docs/invariants.md that can be seen in a run in memory. Everything is counted anew here; the core counts as it goes."""

from __future__ import annotations

from collections import Counter

from tierflow_orchestrator.core import Run, Step, dump, load, open_effects
from tierflow_orchestrator.core.commands import DispatchAttempt, ReportEnd, StopAttempt
from tierflow_orchestrator.core.states import RUN, STEP
from tierflow_runtime.values import Failure, Usage


def check_invariants(run: Run) -> None:
    """Raises AssertionError that names the invariant."""
    assert run.state in RUN.table or not run.state, "I2"
    _in_flight(run)
    _counters(run)
    _bill(run)
    _limits(run)
    _effects(run)
    _not_stuck(run)
    _navigation(run)
    _verdict(run)
    _snapshot(run)


def _in_flight(run: Run) -> None:
    live = [s.id for s in run.steps.values() if s.handler and s.state in ("SCHEDULED", "RUNNING")]
    assert sorted(live) == sorted(run.live), "I8"
    assert run.in_flight == len(live), "I8"
    for step in run.steps.values():
        assert step.in_flight == (step.id in run.live), "I8"


def _counters(run: Run) -> None:
    flow = run.flow
    assert flow is not None
    states = Counter(step.state for step in run.steps.values())
    assert {k: v for k, v in run.counts_by_state.items() if v} == dict(states), "I13"
    top = [step for step in run.steps.values() if not step.is_item]
    assert run.open_steps == sum(not step.ended for step in top), "I13"
    assert run.top_ended == sum(step.ended for step in top), "I13"
    for step in top:
        needs = flow.by_id[step.id].needs
        assert step.waiting == sum(not run.steps[need].ended for need in needs), "I13"
        assert step.state != "PENDING" or step.waiting or run.state == "CANCELLING", "I18"
        if step.branches is not None:
            items = [run.steps[f"{step.id}[{i}]"] for i in range(step.branches.count)]
            assert step.branches.ended == sum(item.ended for item in items), "I13"
            assert step.branches.failed == sum(item.state == "FAILED" for item in items), "I13"
            assert step.branches.cancelled == sum(item.state == "CANCELLED" for item in items), "I13"
            assert step.ended == (step.branches.ended == step.branches.count), "I18"


def _bill(run: Run) -> None:
    total = Usage()
    for step in run.steps.values():
        total = total.plus(step.usage)
    assert run.usage == total, "I10"


def _limits(run: Run) -> None:
    flow = run.flow
    assert flow is not None
    for limit in (flow.concurrency, run.allocation.concurrent_steps):
        assert limit is None or len(run.live) <= limit, "I14"
    assert run.allocation.steps is None or run.attempts <= run.allocation.steps, "I14"
    for spec in flow.steps:
        if spec.kind == "map" and spec.concurrency is not None:
            begun = [
                s
                for s in run.steps.values()
                if s.of == spec.id and s.is_item and s.state in ("READY", "SCHEDULED", "RUNNING", "BACKOFF")
            ]
            assert len(begun) <= spec.concurrency, "I14"


def _effects(run: Run) -> None:
    effects = list(open_effects(run))
    named = [e.attempt_id for e in effects if isinstance(e, DispatchAttempt | StopAttempt)]
    assert sorted(named) == sorted(run.steps[step_id].attempt_id for step_id in run.live), "I17"
    assert sum(isinstance(e, ReportEnd) for e in effects) == int(run.ended), "I17"
    if run.state == "CANCELLING":
        assert not any(isinstance(e, DispatchAttempt) for e in effects), "I17"


def _not_stuck(run: Run) -> None:
    if run.state == "RUNNING":
        startable = list(run.ready_handlers())
        assert run.live or startable or run.next_wake() is not None, "I18"
    elif run.state in ("CANCELLING", "PAUSING"):
        assert run.live, "I18"
    elif run.state == "PAUSED":
        assert not run.live, "I8"
    elif run.ended:
        assert not run.live, "I11"
        assert all(step.ended for step in run.steps.values()), "I11"
    for step in run.steps.values():
        if step.state == "READY" and step.handler:
            assert step.id in run.ready[step.handler], "I18"


def _good(step: Step) -> bool:
    return step.state == "COMPLETED" or step.tolerated


def _navigation(run: Run) -> None:
    """What is decided about each step, told again in the plainest way."""
    flow = run.flow
    assert flow is not None
    for step in run.steps.values():
        spec = flow.by_id[step.of]
        needs = [run.steps[need] for need in spec.needs]
        if step.epoch or step.branches is not None:
            assert spec.always or all(_good(need) for need in needs), "I4"
        if step.state == "SKIPPED":
            assert spec.condition is not None or not all(_good(need) for need in needs), "I4"
        if step.branches is not None and step.ended:
            assert (step.state == "FAILED") == (step.branches.failed > spec.tolerate), "I19"
            assert step.state != "COMPLETED" or not step.branches.cancelled, "I19"
        if not step.is_item and step.state == "FAILED":
            assert step.tolerated == (spec.on_error == "continue"), "I19"
            if not step.tolerated and run.failure_policy == "FAIL_FAST":
                assert run.ended or run.state == "CANCELLING", "I9"
        assert step.asked == (step.id in run.asked), "I13"
        assert not step.asked or step.state == "BACKOFF", "I13"
    for due, step_id, epoch in run.backoff:
        step = run.steps[step_id]
        if step.state == "BACKOFF" and step.epoch == epoch:
            assert not step.asked, "I9: it waits for an operator"
            assert due == step.next_attempt_at, "I7"
    for step_id in run.due:
        assert run.steps[step_id].state == "BACKOFF", "I7"
        assert not run.steps[step_id].asked, "I9"


def _verdict(run: Run) -> None:
    for step in run.steps.values():
        _failure(step.failure)
        assert step.state in STEP.table, "I2"
    if not run.ended:
        assert not run.outcome, "I19"
        return
    _failure(run.failure)
    top = [step for step in run.steps.values() if not step.is_item]
    bad = [step for step in top if step.state == "FAILED" and not step.tolerated]
    if run.state == "COMPLETED":
        assert not bad, "I19"
        assert run.failure is None, "I19"
        assert run.percent() == 100, "I21"
        tolerated = any(step.tolerated for step in run.steps.values())
        degraded = any(step.outcome == "DEGRADED" for step in run.steps.values())
        assert run.outcome == ("PARTIAL" if tolerated else "DEGRADED" if degraded else "SUCCESS"), "I19"
    else:
        assert run.percent() < 100, "I21"
    if run.state == "FAILED":
        assert run.failure is not None, "I19"
        assert run.outcome == "FAILURE", "I19"
        if run.failure.code == "STEP_FAILED":
            assert run.failure.cause == run.steps[run.failure.step_id].failure, "I19"
    if run.state == "CANCELLED":
        assert run.outcome == "CANCELLED", "I19"


def _failure(failure: Failure | None) -> None:
    while failure is not None:
        assert failure.code, "I20"
        assert failure.tier, "I20"
        assert failure.component, "I20"
        assert failure.operation, "I20"
        failure = failure.cause


def _snapshot(run: Run) -> None:
    data = dump(run)
    copy = load(data)
    copy.flow = run.flow
    assert dump(copy) == data, "I12"
