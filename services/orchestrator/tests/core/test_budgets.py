"""What steps hold of their run's budget: waiting, failing, losing, correcting. See docs/budgets.md."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_contracts.events.v1.event_pb2 import EventBatch
from tierflow_orchestrator.core import dump, load
from tierflow_orchestrator.core.budget import GRACE
from tierflow_orchestrator.core.commands import AssignSlot, Cancel, ReportLost, ReportResult, ReportUnconfirmed, WakeUp
from tierflow_orchestrator.core.events import HoldCharged, LateResult, StepFailed, StepScheduled
from tierflow_orchestrator.core.explaining import explain
from tierflow_orchestrator.machine import RunMachine
from tierflow_runtime.values import Allocation, RetryPolicy, Usage
from tierflow_testing.history import check_history, shape_of

from .fakes import SECOND, Shell, call, flow, fold, map_, subflow
from .invariants import check_invariants

FIFTY = {"credits": 50}


def balance(shell: Shell, name: str = "credits") -> tuple[int | None, int, int, int | None]:
    """Total, reserved, consumed, available."""
    b = shell.run.ledger.balance(name)
    return b.total, b.reserved, b.consumed, b.available


def whole(shell: Shell, *, complete: bool = True) -> None:
    """Memory is the journal, also over the wire and from a snapshot; no invariant is broken."""
    shell.check()
    check_invariants(shell.run)
    machine, batch = RunMachine(), EventBatch()
    for seq, (event, time) in enumerate(shell.journal, 1):
        batch.events.add().ParseFromString(machine.encode(event, seq, time))
    read = [(event, time) for _, time, event in machine.decode(batch.SerializeToString())]
    assert read == shell.journal
    assert dump(fold(shell.flow, read)) == dump(shell.run)
    again = load(dump(shell.run))
    assert (again.ledger.held, again.ledger.holds) == (shell.run.ledger.held, shell.run.ledger.holds)
    breaches = check_history(shell.journal, **shape_of(shell.flow), complete=complete)
    assert not breaches, "; ".join(map(str, breaches))


def fan(**more: Any) -> Shell:
    return Shell(flow(*(call(name, allocation=FIFTY) for name in "abcde"), **more), allocation=Allocation(credits=100))


def test_as_many_start_as_there_is_budget() -> None:
    """D7, D2, S5: with a budget for two of five branches two run and three wait, which is explained; they go on as it comes back."""
    shell = fan()
    assert [shell.state(name) for name in "abcde"] == ["SCHEDULED", "SCHEDULED", "READY", "READY", "READY"]
    assert balance(shell) == (100, 100, 0, 0)
    explained = explain(shell.run, "c")
    assert explained is not None
    (blocker,) = (one for one in explained.blockers if one.kind == "QUOTA")
    assert "50 micro-credits (0 left)" in blocker.description
    assert blocker.held_by == (shell.attempt_id("a"), shell.attempt_id("b"))
    shell.complete("a", usage=Usage(credits=10))
    assert [shell.state(name) for name in "cde"] == ["READY"] * 3, "90 are left, 50 of them held"
    shell.complete("b", usage=Usage(credits=10))
    assert [shell.state(name) for name in "cde"] == ["SCHEDULED", "READY", "READY"]
    for name in "cde":
        shell.complete(name, usage=Usage(credits=10))
    assert (shell.run.state, balance(shell)) == ("COMPLETED", (100, 0, 50, 50))
    assert sum(step.usage.credits for step in shell.run.steps.values()) == shell.run.usage.credits == 50
    whole(shell)


def test_what_never_comes_back_fails_with_all_that_is_short() -> None:
    """D7, D2, F22, Lesson 31: once so much is spent that waiting cannot help, the step fails, typed, with every dimension, what it asked and what is left."""
    wants = {"credits": 50, "tokens": 7, "tool_calls": 1}
    shell = Shell(
        flow(call("a", allocation=FIFTY), call("b", allocation=wants)),
        allocation=Allocation(credits=60, tokens=6, tool_calls=1),
    )
    assert (shell.state("a"), shell.state("b")) == ("SCHEDULED", "FAILED"), "7 tokens never were there"
    failure = shell.run.steps["b"].failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("BUDGET_EXHAUSTED", False)
    assert [(v.field, v.description) for v in failure.violations] == [
        ("allocation.credits", "50 asked, 10 left"),
        ("allocation.tokens", "7 asked, 0 left"),
        ("allocation.tool_calls", "1 asked, 0 left"),
    ]


def test_waiting_ends_when_it_is_spent() -> None:
    """D7: who waited for what another held, and has spent, fails then."""
    shell = Shell(
        flow(call("a", allocation=FIFTY), call("b", allocation=FIFTY), failure_policy="CONTINUE"),
        allocation=Allocation(credits=60),
    )
    assert shell.state("b") == "READY"
    shell.complete("a", usage=Usage(credits=11))
    (failed,) = shell.events(StepFailed)
    assert (failed.step_id, [v.description for v in failed.failure.violations]) == ("b", ["50 asked, 49 left"])
    whole(shell)


def test_who_declares_nothing_holds_all() -> None:
    """D2, Lesson 31: a step that does not say what it may spend has all that is left, alone, so that no two spend the same; without a limit it holds nothing."""
    shell = Shell(flow(call("a"), call("b")), allocation=Allocation(tokens=10))
    assert (shell.state("a"), shell.state("b")) == ("SCHEDULED", "READY")
    (scheduled,) = shell.events(StepScheduled)
    assert scheduled.grant == Allocation(tokens=10)
    shell.complete("a", usage=Usage(input_tokens=3, output_tokens=1))
    assert shell.events(StepScheduled)[1].grant == Allocation(tokens=6)
    shell.complete("b", usage=Usage())
    assert balance(shell, "tokens") == (10, 0, 4, 6)
    whole(shell)
    free = Shell(flow(call("a"), call("b")), allocation=Allocation(memory_bytes=5, steps=2))
    assert [event.grant for event in free.events(StepScheduled)] == [None, None]
    assert free.run.ledger.holds == {}


def test_what_costs_nothing_runs_without_a_budget() -> None:
    """D2: nothing was granted from the start, and nothing is spent."""
    shell = Shell(flow(call("a"), call("b", "a")), allocation=Allocation(credits=0))
    shell.complete("a", usage=Usage())
    assert shell.state("b") == "SCHEDULED"
    assert shell.events(StepScheduled)[1].grant == Allocation(credits=0)


def test_a_limit_of_its_own_holds_without_a_budget() -> None:
    """D5: the executor is told it, in a run that is not limited too."""
    shell = Shell(flow(call("a", allocation={"tool_calls": 3})))
    assert shell.events(StepScheduled)[0].grant == Allocation(tool_calls=3)
    shell.complete("a", usage=Usage(tool_calls=2))
    assert balance(shell, "tool_calls") == (None, 0, 2, None)
    whole(shell)


def test_each_attempt_holds_anew() -> None:
    """D3, D8: a failed attempt pays what it used, and what it held is free again for the next one."""
    policy = RetryPolicy(max_attempts=3, initial_delay=1, jitter=0)
    shell = Shell(flow(call("a", allocation=FIFTY, retry=policy)), allocation=Allocation(credits=60))
    for _ in range(2):
        shell.fail("a", retryable=True)
        shell.now += SECOND
        shell.tell(WakeUp())
    assert balance(shell) == (60, 0, 14, 46), "7 for each; 50 are not left for a third"
    failure = shell.run.steps["a"].failure
    assert failure is not None
    assert failure.code == "BUDGET_EXHAUSTED"
    whole(shell)


def lose(shell: Shell, step_id: str) -> str:
    attempt_id = shell.attempt_id(step_id)
    shell.tell(ReportLost(attempt_id=attempt_id, reason="gone"))
    return attempt_id


def test_a_lost_attempt_holds_until_its_time_is_over() -> None:
    """D8, R30: then all that it held counts as spent; what waited for it fails then, not before."""
    policy = RetryPolicy(max_attempts=2, initial_delay=1, jitter=0)
    shell = Shell(flow(call("a", allocation=FIFTY, retry=policy)), allocation=Allocation(credits=90))
    attempt_id = lose(shell, "a")
    assert (shell.state("a"), balance(shell)) == ("BACKOFF", (90, 50, 0, 40))
    shell.now += SECOND
    shell.tell(WakeUp())
    assert shell.state("a") == "BACKOFF", "it waits: 40 are left, 50 may come back"
    moment = shell.run.next_wake()
    assert moment is not None
    assert moment >= shell.now + GRACE
    whole(shell, complete=False)
    shell.now = moment
    shell.tell(WakeUp())
    (charged,) = shell.events(HoldCharged)
    assert (charged.attempt_id, charged.usage.credits) == (attempt_id, 50)
    assert (shell.state("a"), balance(shell)) == ("FAILED", (90, 0, 50, 40))
    whole(shell)


def test_late_truth_before_it_is_charged() -> None:
    """D8, R30, R23: what it used is spent, the rest is free, and who waited goes on."""
    policy = RetryPolicy(max_attempts=2, initial_delay=1, jitter=0)
    shell = Shell(flow(call("a", allocation=FIFTY, retry=policy)), allocation=Allocation(credits=90))
    attempt_id = lose(shell, "a")
    shell.now += SECOND
    shell.tell(WakeUp())
    shell.tell(ReportResult(attempt_id=attempt_id, state="COMPLETED", output="1", usage=Usage(credits=30)))
    assert (shell.state("a"), balance(shell)) == ("SCHEDULED", (90, 50, 30, 10))
    shell.complete("a", usage=Usage(credits=1))
    assert balance(shell) == (90, 0, 31, 59)
    whole(shell)


@pytest.mark.parametrize("again", [1, 2])
def test_late_truth_after_it_was_charged(again: int) -> None:
    """D8, R30, D3: it takes the place of what was charged, once, also when the run has ended."""
    shell = Shell(flow(call("a", allocation=FIFTY, on_lost="FAIL")), allocation=Allocation(credits=90))
    attempt_id = lose(shell, "a")
    assert (shell.run.state, balance(shell)) == ("FAILED", (90, 0, 50, 40)), "nothing is held of a run that has ended"
    for _ in range(again):
        shell.tell(ReportResult(attempt_id=attempt_id, state="COMPLETED", output="1", usage=Usage(credits=20)))
    (late,) = shell.events(LateResult)
    assert late.charged is not None
    assert (late.charged.credits, late.usage.credits) == (50, 20)
    assert (balance(shell), shell.run.steps["a"].usage.credits) == ((90, 0, 20, 70), 20)
    whole(shell)


def test_a_stop_without_a_receipt_pays_in_full() -> None:
    """D8, G11: every end settles: cancelled with and without a receipt."""
    shell = fan()
    first, second = shell.attempt_id("a"), shell.attempt_id("b")
    shell.tell(Cancel(command_id="x"))
    shell.cancelled("a")
    assert balance(shell) == (100, 50, 3, 47)
    shell.tell(ReportUnconfirmed(attempt_id=second))
    assert (shell.run.state, balance(shell)) == ("CANCELLED", (100, 0, 53, 47))
    assert [event.attempt_id for event in shell.events(HoldCharged)] == [second] != [first]
    whole(shell)


def test_runs_of_steps_hold_their_share() -> None:
    """D2, D3, E12: a run of another flow and attempts beside it draw on the same budget; what it did not use is free again when it ends."""
    made = flow(
        subflow("c", "other", settings={"allocation": {"credits": 70, "steps": 3}}), call("a", allocation=FIFTY)
    )
    shell = Shell(made, allocation=Allocation(credits=100, steps=10))
    assert (shell.state("c"), shell.state("a")) == ("SCHEDULED", "READY")
    assert (balance(shell), balance(shell, "steps")) == ((100, 70, 0, 30), (10, 3, 1, 6))
    shell.tell(
        ReportResult(
            attempt_id=shell.attempt_id("c"), state="COMPLETED", output="1", usage=Usage(credits=7, attempts=2)
        )
    )
    assert (shell.state("a"), balance(shell)) == ("SCHEDULED", (100, 50, 7, 43))
    shell.complete("a", usage=Usage(credits=1))
    assert balance(shell, "steps") == (10, 0, 4, 6)
    assert shell.run.usage.attempts == shell.run.attempts == 4
    whole(shell)


def test_a_slot_that_comes_too_soon_is_given_back() -> None:
    """D7: whoever assigns a slot to a step that waits for budget is refused, and nothing is stored."""
    shell = fan()
    before = len(shell.journal)
    decision = shell.decide(AssignSlot(step_id="c", executor_id="e"))
    assert (decision.reply.applied, len(shell.journal)) == (False, before)


def test_items_wait_in_their_order() -> None:
    """D7, Q8: items of a map share a budget; all are done in the end."""
    shell = Shell(flow(map_("m", 7, allocation={"tool_calls": 2})), allocation=Allocation(tool_calls=5))
    done = 0
    while not shell.run.ended:
        live = list(shell.run.live)
        assert len(live) == min(2, 7 - done)
        shell.complete(live[0], usage=Usage())
        done += 1
    assert (shell.run.state, balance(shell, "tool_calls")) == ("COMPLETED", (5, 0, 0, 5))
    whole(shell)


def test_a_run_without_limits_costs_nothing_more() -> None:
    """P15, D1: no grant in its events, nothing held, no event that was not there before."""
    shell = Shell(flow(call("a"), map_("m", 3, "a")))
    while shell.run.live:
        shell.complete(next(iter(shell.run.live)))
    assert {type(event).__name__ for event in shell.events()} == {
        "RunCreated",
        "RunStateChanged",
        "StepScheduled",
        "StepStarted",
        "StepCompleted",
        "ItemsExpanded",
        "RunEnded",
    }
    assert all(event.grant is None for event in shell.events(StepScheduled))
