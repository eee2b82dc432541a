"""Deadlines, concurrency, the number of attempts; progress; identities."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core import dump, load, open_effects
from tierflow_orchestrator.core.commands import (
    AssignSlot,
    Cancel,
    DispatchAttempt,
    ReportEnd,
    ReportLost,
    StopAttempt,
    WakeUp,
)
from tierflow_orchestrator.core.events import StepFailed, StepScheduled
from tierflow_runtime.values import NO_USAGE, Allocation, Context, Options, RetryPolicy, Usage

from .fakes import RUN_ID, SECOND, START, Ref, Shell, call, flow, map_
from .invariants import check_invariants

MOMENT = START + 1 + 10 * SECOND
CREATED = 1
CONTEXT = Context(tenant="t", user_id="u", run_id=RUN_ID, deadline=MOMENT)


@pytest.mark.parametrize(
    ("of_flow", "more"),
    [
        ({}, {"context": CONTEXT}),
        ({}, {"options": Options(timeout=10 * SECOND)}),
        ({}, {"allocation": Allocation(wall_time=10 * SECOND)}),
        ({"run_timeout": 10 * SECOND}, {}),
        ({"run_timeout": 90 * SECOND}, {"context": CONTEXT, "options": Options(timeout=20 * SECOND)}),
        ({}, {"options": Options(timeout=9 * SECOND, not_before=START + CREATED + SECOND)}),
    ],
)
def test_deadline(of_flow: dict[str, Any], more: dict[str, Any]) -> None:
    """F22, V22, Lesson 14: the earliest of all bounds; when it passes everything is stopped and the run fails."""
    shell = Shell(flow(call("a"), call("b", "a"), **of_flow), **more)
    if shell.run.state == "QUEUED":
        shell.now = START + 2 * SECOND
        shell.tell(WakeUp())
    assert shell.run.next_wake() == MOMENT
    shell.now = MOMENT - 10
    shell.tell(WakeUp())
    assert shell.run.state == "RUNNING"
    shell.now = MOMENT
    shell.tell(WakeUp())
    assert (shell.run.state, shell.run.reason) == ("CANCELLING", "DEADLINE_EXCEEDED")
    assert len(shell.stops) == 1
    assert shell.run.next_wake() is None
    shell.cancelled("a")
    assert shell.run.state == "FAILED"
    assert shell.run.failure.code == "DEADLINE_EXCEEDED"  # type: ignore[union-attr]
    check_invariants(shell.run)
    shell.check()


def test_deadline_without_a_wake_up() -> None:
    """V9: a slot that comes after the deadline starts nothing."""
    shell = Shell(flow(call("a")), auto=False, context=CONTEXT)
    shell.now = MOMENT
    decision = shell.decide(AssignSlot(step_id="a", executor_id="e"))
    assert not decision.reply.applied
    assert not shell.dispatched
    assert shell.run.state == "FAILED"


@pytest.mark.parametrize(
    ("of_flow", "allocation", "most"),
    [({"concurrency": 2}, None, 2), ({}, 3, 3), ({"concurrency": 2}, 3, 2), ({"concurrency": 4}, 1, 1)],
)
def test_concurrency(of_flow: dict[str, Any], allocation: int | None, most: int) -> None:
    """V14, Q8: never more at once than flow and allocation allow, and never fewer without need."""
    shell = Shell(flow(map_("m", 7), **of_flow), allocation=Allocation(concurrent_steps=allocation))
    done = 0
    while not shell.run.ended:
        assert shell.run.in_flight == min(most, 7 - done)
        shell.complete(next(iter(shell.run.live)))
        done += 1
    assert done == 7


def test_fifo_and_handlers() -> None:
    """E4: the step that became ready first is first, for each handler by itself."""
    shell = Shell(flow(call("a", handler="x"), map_("m", 3, handler="y"), call("b", handler="x")), auto=False)
    assert sorted(shell.run.ready_handlers()) == ["x", "y"]
    assert (shell.run.next_ready("x"), shell.run.next_ready("y"), shell.run.next_ready("z")) == ("a", "m[0]", None)
    shell.decide(AssignSlot(step_id="a", executor_id="e"))
    assert shell.run.next_ready("x") == "b"
    shell.decide(AssignSlot(step_id="m[1]", executor_id="e"))
    assert [shell.run.next_ready("y"), shell.run.in_flight] == ["m[0]", 2]
    shell.decide(AssignSlot(step_id="m[0]", executor_id="e"))
    assert shell.run.next_ready("y") == "m[2]"


def test_attempts_are_budgeted() -> None:
    """F7, Lesson 31: the allocation's steps bound the attempts, retries included; what is beyond fails as exhausted, not as success."""
    policy = RetryPolicy(initial_delay=1, jitter=0)
    shell = Shell(flow(call("a", retry=policy), call("b", "a")), allocation=Allocation(steps=2))
    shell.fail("a", "TIMEOUT", retryable=True)
    shell.now += 10
    shell.tell(WakeUp())
    shell.complete("a")
    (failed,) = shell.events(StepFailed)
    assert (failed.step_id, failed.failure.code, failed.failure.retryable) == ("b", "BUDGET_EXHAUSTED", False)
    assert len(shell.dispatched) == 2
    assert shell.run.failure.cause.code == "BUDGET_EXHAUSTED"  # type: ignore[union-attr]
    shell.check()


def test_budget_in_backoff() -> None:
    """F23: what was left untried keeps the failure that made it wait."""
    policy = RetryPolicy(initial_delay=1, jitter=0)
    shell = Shell(flow(call("a", retry=policy)), allocation=Allocation(steps=1))
    shell.fail("a", "TIMEOUT", retryable=True)
    shell.now += 10
    shell.tell(WakeUp())
    failure = shell.run.steps["a"].failure
    assert failure is not None
    assert (failure.code, failure.cause.code) == ("BUDGET_EXHAUSTED", "TIMEOUT")  # type: ignore[union-attr]
    shell.check()


def test_progress() -> None:
    """H20: 0 at the start, never falling, also not when a map turns out to be wide, 100 only when COMPLETED."""
    shell = Shell(flow(call("a"), map_("m", Ref("steps.a.output"), "a"), call("b", "m")))
    seen = [shell.run.percent()]
    shell.complete("a", "[1,2,3,4]")
    seen.append(shell.run.percent())
    for index in range(4):
        shell.complete(f"m[{index}]")
        seen.append(shell.run.percent())
    shell.complete("b")
    seen.append(shell.run.percent())
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert [round(each) for each in seen] == [0, 33, 42, 50, 58, 67, 100]
    assert shell.run.counts()["total"] == 7
    assert shell.run.counts()["COMPLETED"] == 7
    failing = Shell(flow(call("a")))
    failing.fail("a")
    assert failing.run.percent() < 100


def test_records() -> None:
    """I1, I2: what a run and a step are is there to be shown: times, inputs, outputs, usage, attempts, executor."""
    shell = Shell(flow(call("a")), input='{"q": 1}')
    shell.complete("a", '"out"')
    run, step = shell.run, shell.run.steps["a"]
    assert (run.flow_name, run.context.user_id, run.input, run.output) == ("test", "u", '{"q": 1}', '{"a":"out"}')
    assert run.created_at < run.started_at < run.ended_at  # type: ignore[operator]
    assert (step.handler, step.input, step.output, step.executor_id, step.attempt) == ("h", "{}", '"out"', "e1", 1)
    assert step.scheduled_at <= step.started_at <= step.ended_at  # type: ignore[operator]
    assert step.usage.credits == run.usage.credits == 5


def test_identities() -> None:
    """V6, R23: an attempt's id names run, step and epoch; no two are the same; a new owner changes none."""
    shell = Shell(flow(call("a", retry=RetryPolicy(initial_delay=0, jitter=0))))
    ids = [shell.attempt_id("a")]
    shell.fail("a", "TIMEOUT", retryable=True)
    shell.tell(WakeUp())
    ids.append(shell.attempt_id("a"))
    assert ids == [f"{RUN_ID}/a/1", f"{RUN_ID}/a/2"]
    other = load(dump(shell.run))
    other.flow = shell.flow
    (effect,) = open_effects(other)
    assert isinstance(effect, DispatchAttempt)
    assert (effect.attempt_id, effect.epoch, effect.attempt) == (ids[1], 2, 2)
    assert effect == shell.dispatched[-1]


def test_effects_after_a_restart() -> None:
    """K7, R16, V17: what was in flight is dispatched or stopped again, the end is reported again."""
    shell = Shell(flow(call("a"), call("b")))
    assert {type(effect) for effect in open_effects(shell.folded())} == {DispatchAttempt}
    shell.tell(Cancel(command_id="c"))
    effects = list(open_effects(shell.folded()))
    assert effects == [stop for stop in shell.stops if isinstance(stop, StopAttempt)]
    assert len(effects) == 2
    shell.cancelled("a")
    shell.cancelled("b")
    assert [type(effect) for effect in open_effects(shell.folded())] == [ReportEnd]
    assert len(shell.events(StepScheduled)) == 2


def test_what_is_lost_holds_nothing() -> None:
    """Lesson 26, B5: the place of a lost attempt is free for the next step at once."""
    shell = Shell(
        flow(call("a", on_lost="FAIL", on_error="continue"), call("b")), allocation=Allocation(concurrent_steps=1)
    )
    assert list(shell.run.live) == ["a"]
    shell.tell(ReportLost(attempt_id=shell.attempt_id("a"), reason="gone"))
    assert list(shell.run.live) == ["b"]


def test_steps_of_a_higher_priority_start_first() -> None:
    """J6: among the steps of a run that wait for the same handler; also after a restart; equal ones in the order in which they came."""
    made = parse("""
name: t
steps:
  a: {call: h}
  b: {call: h, priority: 5, cost_estimate: 250}
  m: {map: [1, 2], call: h, priority: 9}
  c: {call: h}
  d: {call: h, priority: -1}
""")
    shell = Shell(made, auto=False)
    order = []
    for restart in range(6):
        step_id = shell.run.next_ready("h")
        assert step_id is not None
        order.append(step_id)
        shell.decide(AssignSlot(step_id=step_id, executor_id="e"))
        check_invariants(shell.run)
        shell.check()
        if restart % 2:
            shell.run = load(dump(shell.run))
            shell.run.flow = shell.flow
    assert order == ["m[0]", "m[1]", "b", "a", "c", "d"]
    assert made.by_id["b"].cost_estimate == 250


@pytest.mark.parametrize(
    ("granted", "spent"),
    [
        (Allocation(credits=2**60), Usage(credits=2**60)),
        (Allocation(credits=0), Usage(credits=1)),
        (Allocation(tokens=100), Usage(input_tokens=60, output_tokens=41)),
        (Allocation(tool_calls=2), Usage(tool_calls=2)),
    ],
)
def test_what_is_spent_starts_nothing_more(granted: Allocation, spent: Usage) -> None:
    """D5, A9, Lesson 31: once credits, tokens or tool calls are spent no further attempt starts; that is a failure of its own, never a success."""
    shell = Shell(flow(call("a"), call("b", "a")), allocation=granted)
    shell.complete("a", usage=spent)
    step = shell.run.steps["b"]
    assert (step.state, step.failure.code if step.failure else "") == ("FAILED", "BUDGET_EXHAUSTED")
    assert (shell.run.state, shell.run.outcome) == ("FAILED", "FAILURE")


def test_what_costs_nothing_needs_no_credits() -> None:
    """D5: with nothing to spend, steps that spend nothing run to the end."""
    shell = Shell(flow(call("a"), call("b", "a")), allocation=Allocation(credits=0, tokens=0, tool_calls=0))
    for name in "ab":
        shell.complete(name, usage=NO_USAGE)
    assert shell.run.state == "COMPLETED"
