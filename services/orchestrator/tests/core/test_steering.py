"""Steering a run: interrupting, skipping, retrying, going step by step, changing its limits."""

from __future__ import annotations

import pytest
from tierflow_orchestrator.core.commands import (
    Cancel,
    Pause,
    ReportLost,
    ReportResult,
    ReportUnconfirmed,
    Resume,
    SetBreakpoints,
    Signal,
    Skip,
    StepOnce,
    Update,
    WakeUp,
)
from tierflow_orchestrator.core.events import CommandReceived, RunUpdated, StepInterrupted
from tierflow_runtime.values import Allocation, Options, RetryPolicy, Usage

from .fakes import SECOND, Shell, Value, call, emit, flow, map_, signal, wait
from .steered import sound

# --- interrupting ---


def test_a_command_that_was_overtaken_changes_nothing() -> None:
    """R14, V16: paused and resumed over two ways: the resume comes first and says what it supersedes; the pause comes later, and the run goes on."""
    shell = Shell(flow(call("a"), call("b", "a")))
    shell.tell(Pause(command_id="p0"))
    assert shell.tell(Resume(command_id="r", supersedes=("p0", "p1"))).reply.applied
    late = shell.tell(Pause(command_id="p1"))
    assert not late.events
    assert not late.reply.applied
    assert shell.run.state == "RUNNING"
    shell.run = shell.folded()
    assert not shell.tell(Pause(command_id="p1")).events
    assert shell.tell(Pause(command_id="p2", supersedes=("r", "r2"))).reply.applied
    assert not shell.tell(Resume(command_id="r2")).reply.applied
    assert shell.run.state == "PAUSING"
    shell.tell(Resume(command_id="r3"))
    shell.complete("a")
    shell.complete("b")
    sound(shell, complete=True)


def test_interrupt_stops_attempts_and_gives_them_back() -> None:
    """G6, G5, Lesson 18: a pause that interrupts stops what is in flight; its steps are READY again and no attempt is counted, its cost is."""
    shell = Shell(flow(call("a", retry=RetryPolicy(max_attempts=1)), map_("m", 2)))
    shell.tell(Pause(command_id="p", interrupt=True, actor="ann"))
    assert shell.run.state == "PAUSING"
    assert {stop.attempt_id for stop in shell.stops} == {shell.attempt_id(s) for s in ("a", "m[0]", "m[1]")}
    assert {stop.reason for stop in shell.stops} == {"PAUSED"}
    sound(shell)
    shell.run = shell.folded()
    for step_id in ("a", "m[0]", "m[1]"):
        shell.cancelled(step_id)
        sound(shell)
    assert shell.run.state == "PAUSED"
    assert [shell.state(s) for s in ("a", "m[0]", "m[1]")] == ["READY"] * 3
    assert shell.run.usage.credits == 9
    assert len(shell.events(StepInterrupted)) == 3
    shell.tell(Resume(command_id="r"))
    assert (shell.run.steps["a"].attempt, shell.run.steps["a"].epoch) == (1, 2)
    for step_id in ("a", "m[0]", "m[1]"):
        shell.complete(step_id)
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


def test_work_that_finishes_while_it_is_interrupted_counts() -> None:
    """G6: what completes before it can be stopped keeps its result; what fails by itself is tried again as ever."""
    policy = RetryPolicy(max_attempts=2, jitter=0.0)
    shell = Shell(flow(call("a"), call("b", retry=policy), call("c")))
    shell.tell(Pause(command_id="p"))
    shell.tell(Pause(command_id="i", interrupt=True))
    assert len(shell.stops) == 3
    shell.complete("a")
    shell.fail("b", retryable=True)
    shell.tell(ReportLost(attempt_id=shell.attempt_id("c"), reason="gone"))
    assert shell.run.state == "FAILED" or shell.states() == {"a": "COMPLETED", "b": "BACKOFF", "c": "FAILED"}
    sound(shell)


def test_unconfirmed_interrupt_is_a_loss() -> None:
    """G6, S6, R26: nobody knows whether an attempt that does not confirm goes on: what `on_lost` says is done, its late cost is booked."""
    shell = Shell(flow(call("a", on_lost="ASK")))
    late = shell.attempt_id("a")
    shell.tell(Pause(command_id="p", interrupt=True))
    shell.tell(ReportUnconfirmed(attempt_id=late))
    assert (shell.run.state, shell.state("a")) == ("PAUSED", "BACKOFF")
    assert shell.run.steps["a"].asked
    shell.tell(ReportResult(attempt_id=late, state="COMPLETED", output="1", usage=Usage(credits=4)))
    assert shell.run.usage.credits == 4
    sound(shell)


def test_resumed_while_attempts_are_being_stopped() -> None:
    """G6: a resume before the receipts starts them again as they come."""
    shell = Shell(flow(call("a"), call("b")))
    shell.tell(Pause(command_id="p", interrupt=True))
    shell.tell(Resume(command_id="r"))
    assert shell.run.state == "RUNNING"
    first = shell.attempt_id("a")
    shell.cancelled("a")
    assert shell.state("a") == "SCHEDULED"
    assert shell.attempt_id("a") != first
    sound(shell)
    shell.tell(Cancel(command_id="c"))
    shell.cancelled("a")
    shell.cancelled("b")
    assert shell.run.state == "CANCELLED"
    sound(shell, complete=True)


# --- receipts ---


def test_receipts_of_a_cancel() -> None:
    """S6, G11: each attempt that was in flight has a receipt, and what was spent since is known, over a restart too."""
    shell = Shell(flow(call("a"), call("b"), call("c"), call("d")))
    shell.complete("d")
    shell.tell(Cancel(command_id="c", actor="ann", reason="enough"))
    assert shell.run.steer is not None
    stop = shell.run.steer.stop
    assert stop is not None
    assert {receipt.state for receipt in stop.attempts.values()} == {"OPEN"}
    ids = {step: shell.attempt_id(step) for step in "abc"}
    shell.cancelled("a")
    shell.complete("b")
    shell.tell(ReportUnconfirmed(attempt_id=ids["c"]))
    shell.tell(ReportResult(attempt_id=ids["c"], state="FAILED", usage=Usage(credits=11)))
    shell.run = shell.folded()
    assert shell.run.steer is not None
    stop = shell.run.steer.stop
    assert stop is not None
    assert {r.step_id: r.state for r in stop.attempts.values()} == {"a": "CONFIRMED", "b": "ENDED", "c": "ENDED"}
    assert shell.run.usage.credits - stop.before.credits == 3 + 5 + 11
    assert (stop.actor, stop.reason) == ("ann", "enough")
    sound(shell, complete=True)


# --- skipping ---


def test_skip_a_step_in_every_state() -> None:
    """G6, N8: whatever a step is doing, it ends SKIPPED with what was given, and what needs it goes on; the run is PARTIAL."""
    shell = Shell(flow(call("a"), call("b", "a"), call("c", "b", with_=Value({})), wait("w", "1h"), concurrency=1))
    shell.tell(Skip(command_id="1", step_id="b", output='{"x":1}', actor="ann", reason="by hand"))
    assert shell.state("b") == "SKIPPED"
    shell.tell(Skip(command_id="2", step_id="w"))
    attempt = shell.attempt_id("a")
    shell.tell(Skip(command_id="3", step_id="a"))
    assert [stop.attempt_id for stop in shell.stops] == [attempt]
    assert shell.state("a") == "SCHEDULED"
    sound(shell)
    shell.run = shell.folded()
    shell.cancelled("a")
    assert shell.states() == {"a": "SKIPPED", "b": "SKIPPED", "c": "SCHEDULED", "w": "SKIPPED"}
    shell.complete("c")
    assert (shell.run.state, shell.run.outcome) == ("COMPLETED", "PARTIAL")
    assert shell.run.steps["b"].output == '{"x":1}'
    assert [e.detail for e in shell.events(CommandReceived)] == ["b", "w", "a"]
    again = shell.tell(Skip(command_id="1", step_id="b"))
    assert again.reply.applied
    assert not again.events
    sound(shell, complete=True)


def test_skip_a_map_and_single_items() -> None:
    """G6: a map that is skipped stops its items; an item that is skipped is one that need not be done."""
    shell = Shell(flow(map_("m", 5, concurrency=2), call("z", "m")))
    shell.tell(Skip(command_id="1", step_id="m[3]", output='"x"'))
    shell.complete("m[0]")
    shell.complete("m[1]")
    sound(shell)
    assert shell.run.live.keys() == {"m[2]", "m[4]"}
    shell.tell(Skip(command_id="2", step_id="m", output="[]"))
    for step_id in ("m[2]", "m[4]"):
        shell.cancelled(step_id)
    assert shell.state("m") == "SKIPPED"
    assert shell.state("z") == "SCHEDULED"
    sound(shell)


def test_skip_what_was_lost() -> None:
    """G6, R26: a step that waits for an operator can be skipped: the run goes on by itself."""
    shell = Shell(flow(call("a", on_lost="ASK"), call("b", "a")))
    shell.tell(ReportLost(attempt_id=shell.attempt_id("a"), reason="gone"))
    assert shell.run.state == "SUSPENDED"
    shell.tell(Skip(command_id="1", step_id="a"))
    assert (shell.run.state, shell.state("b")) == ("RUNNING", "SCHEDULED")
    sound(shell)


@pytest.mark.parametrize(("step_id", "code"), [("a", "STATE_CONFLICT"), ("nope", "INVALID_REQUEST")])
def test_what_cannot_be_skipped(step_id: str, code: str) -> None:
    """C2: a step that has ended, or does not exist, is refused, and leaves nothing behind."""
    shell = Shell(flow(call("a"), call("b", "a")))
    shell.complete("a")
    decision = shell.tell(Skip(command_id="1", step_id=step_id))
    assert not decision.events
    assert decision.reply.failure is not None
    assert decision.reply.failure.code == code


# --- step by step ---


def test_breakpoints() -> None:
    """N8: the run pauses before a step, says which, lets what runs finish, and goes on when it is told to."""
    shell = Shell(flow(call("a"), emit("b", "a"), call("c", "b"), call("x")), options=Options(breakpoints=("b", "c")))
    shell.complete("a")
    assert (shell.run.state, shell.run.reason) == ("PAUSING", "BREAKPOINT: b")
    shell.complete("x")
    assert (shell.run.state, shell.run.reason) == ("PAUSED", "BREAKPOINT: b")
    assert shell.state("b") == "READY"
    sound(shell)
    shell.run = shell.folded()
    shell.tell(Resume(command_id="1"))
    assert (shell.run.state, shell.run.reason, shell.state("b")) == ("PAUSED", "BREAKPOINT: c", "COMPLETED")
    shell.tell(SetBreakpoints(command_id="2"))
    shell.tell(Resume(command_id="3"))
    assert shell.state("c") == "SCHEDULED"
    shell.complete("c")
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


def test_step_by_step() -> None:
    """N8: `*` holds everything; each step command runs what is ready, or one named step, and pauses again."""
    shell = Shell(flow(call("a"), call("b"), call("c", "a"), emit("d", "c")), options=Options(breakpoints=("*",)))
    assert (shell.run.state, shell.run.live) == ("PAUSED", {})
    shell.tell(StepOnce(command_id="1", step_id="a", actor="ann"))
    assert list(shell.run.live) == ["a"]
    shell.complete("a")
    assert shell.run.state == "PAUSED"
    assert shell.states() == {"a": "COMPLETED", "b": "READY", "c": "READY", "d": "PENDING"}
    sound(shell)
    shell.run = shell.folded()
    shell.tell(StepOnce(command_id="2"))
    assert sorted(shell.run.live) == ["b", "c"]
    shell.complete("c")
    assert shell.state("d") == "READY"
    shell.complete("b")
    assert shell.run.state == "PAUSED"
    shell.tell(StepOnce(command_id="3"))
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


def test_steps_from_a_plain_pause_and_through_waits() -> None:
    """N8: stepping needs no breakpoints; a step that waits is waited for; a failed attempt is tried again within its step."""
    policy = RetryPolicy(max_attempts=2, jitter=0.0)
    shell = Shell(flow(call("a", retry=policy), signal("s", "go", "a"), call("z", "s")))
    shell.tell(Pause(command_id="p", interrupt=True))
    shell.cancelled("a")
    shell.tell(StepOnce(command_id="1"))
    shell.fail("a", retryable=True)
    assert shell.run.state == "RUNNING"
    shell.now += 2 * SECOND
    shell.tell(WakeUp())
    shell.complete("a")
    assert (shell.run.state, shell.state("s")) == ("PAUSED", "READY")
    shell.tell(StepOnce(command_id="2"))
    assert (shell.run.state, shell.state("s")) == ("SUSPENDED", "RUNNING")
    sound(shell)
    shell.tell(Signal(command_id="sig", name="go"))
    assert (shell.run.state, shell.state("z")) == ("PAUSED", "READY")
    shell.tell(Resume(command_id="r"))
    shell.complete("z")
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


def test_a_breakpoint_on_what_waits_for_a_slot() -> None:
    """N8: a breakpoint that is set holds also what is READY already."""
    shell = Shell(flow(call("a"), call("b"), concurrency=1))
    shell.tell(SetBreakpoints(command_id="1", breakpoints=("b",)))
    assert (shell.run.state, shell.state("b")) == ("PAUSING", "READY")
    shell.complete("a")
    assert shell.run.state == "PAUSED"
    shell.tell(Skip(command_id="2", step_id="b"))
    assert shell.run.state == "PAUSED"
    shell.tell(Resume(command_id="3"))
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


# --- limits and policies ---


def test_limits_change_at_the_next_decision() -> None:
    """C12: other limits and policies hold at once, are versioned and say who; a wrong version is refused."""
    shell = Shell(flow(*(call(f"s{i}") for i in range(6)), concurrency=2), allocation=Allocation(concurrent_steps=3))
    assert len(shell.run.live) == 2
    reply = shell.tell(Update(command_id="1", concurrency=3, actor="ann", reason="more")).reply
    assert (reply.version, len(shell.run.live)) == (1, 3)
    reply = shell.tell(Update(command_id="2", concurrent_steps=0, concurrency=0, expected_version=1)).reply
    assert (reply.version, len(shell.run.live)) == (2, 6)
    stale = shell.tell(Update(command_id="3", concurrency=1, expected_version=1)).reply
    assert stale.failure is not None
    assert stale.failure.code == "STATE_CONFLICT"
    nothing = shell.tell(Update(command_id="4")).reply
    assert nothing.failure is not None
    assert nothing.failure.code == "INVALID_REQUEST"
    assert [e.changed for e in shell.events(RunUpdated)] == [("concurrency",), ("concurrency", "concurrent_steps")]
    shell.run = shell.folded()
    shell.tell(Update(command_id="5", failure_policy="CONTINUE", retry=RetryPolicy(max_attempts=5, jitter=0.0)))
    shell.fail("s0", retryable=True)
    assert shell.state("s0") == "BACKOFF"
    shell.fail("s1")
    assert shell.run.state == "RUNNING"
    shell.tell(Update(command_id="6", deadline=shell.now + SECOND))
    assert shell.run.next_wake() is not None
    shell.now += 2 * SECOND
    shell.tell(WakeUp())
    assert (shell.run.state, shell.run.stopping) == ("CANCELLING", "DEADLINE_EXCEEDED")
    sound(shell)
