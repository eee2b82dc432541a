"""Limits in time that span attempts: waiting for a slot, all attempts together (Q2). Those of one attempt are the executor's."""

from __future__ import annotations

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core import dump, load
from tierflow_orchestrator.core.commands import Pause, ReportLost, ReportUnconfirmed, Resume, WakeUp
from tierflow_orchestrator.core.events import StepStopping
from tierflow_testing.history import check_history, shape_of

from .fakes import SECOND, Shell
from .invariants import check_invariants


def shell_of(step: str, *, auto: bool = True) -> Shell:
    return Shell(parse(f"name: t\nsteps:\n  a: {{call: h, {step}}}\n", "yaml"), auto=auto)


def at(shell: Shell, seconds: float) -> None:
    """Lets time pass, and the run wake, as often as it wants to."""
    end = shell.now + round(seconds * SECOND)
    while (moment := shell.run.next_wake()) is not None and moment <= end and not shell.run.ended:
        shell.now = max(shell.now, moment)
        shell.tell(WakeUp())
        check_invariants(shell.run)
    shell.now = max(shell.now, end)


def cause(shell: Shell) -> tuple[str, str, str]:
    failure = shell.run.steps["a"].failure
    assert failure is not None
    return failure.code, failure.operation, failure.cause.code if failure.cause else ""


def ended_well(shell: Shell) -> None:
    assert shell.run.ended
    shell.check()
    assert not check_history(shell.journal, **shape_of(shell.flow), complete=True)


@pytest.mark.parametrize("stored", [False, True])
def test_who_gets_no_slot_in_time_fails(stored: bool) -> None:
    """Q2 schedule-to-start: not before, then at once; also after a restart."""
    shell = shell_of("start_timeout: 10s", auto=False)
    at(shell, 9.9)
    if stored:
        shell.run = load(dump(shell.run))
        shell.run.flow = shell.flow
    assert shell.state("a") == "READY"
    at(shell, 0.2)
    assert cause(shell) == ("TIMEOUT", "start_timeout", "")
    assert shell.run.attempts == 0
    ended_well(shell)


def test_a_slot_in_time_is_enough() -> None:
    """Q2: the attempt may then take as long as it may; the next one waits for its slot anew."""
    shell = shell_of("start_timeout: 10s, retry: {initial_delay: 5s, jitter: 0}")
    at(shell, 100)
    shell.auto = False
    shell.fail("a", retryable=True)
    assert shell.state("a") == "BACKOFF"
    at(shell, 14)
    assert shell.state("a") == "BACKOFF"
    at(shell, 2)
    assert cause(shell) == ("TIMEOUT", "start_timeout", "HANDLER_FAILED")
    ended_well(shell)


@pytest.mark.parametrize("answer", ["completed", "cancelled", "lost", "unconfirmed"])
def test_an_attempt_is_stopped_when_the_time_of_its_step_is_up(answer: str) -> None:
    """Q2 schedule-to-close, F32: the executor is told; the step fails with the receipt, whatever comes; a late result is booked."""
    shell = shell_of("total_timeout: 10s")
    at(shell, 9.9)
    assert not shell.stops
    at(shell, 0.2)
    assert [stop.reason for stop in shell.stops] == ["TIMEOUT"]
    assert [event.then for event in shell.events(StepStopping)] == ["FAILED"]
    attempt_id = shell.attempt_id("a")
    if answer == "completed":
        shell.complete("a")
    elif answer == "cancelled":
        shell.cancelled("a")
    else:
        lost = ReportLost(attempt_id=attempt_id, reason="gone")
        shell.tell(lost if answer == "lost" else ReportUnconfirmed(attempt_id=attempt_id))
    assert cause(shell) == ("TIMEOUT", "total_timeout", "EXECUTOR_LOST" if answer in ("lost", "unconfirmed") else "")
    assert shell.run.steps["a"].unbooked == ((1,) if answer in ("lost", "unconfirmed") else ())
    ended_well(shell)


def test_all_attempts_share_it() -> None:
    """Q2 schedule-to-close, F6: delays count; an attempt that could only begin afterwards is not made."""
    shell = shell_of("total_timeout: 10s, retry: {max_attempts: 50, initial_delay: 4s, factor: 1, jitter: 0}")
    for _ in range(2):
        shell.fail("a", retryable=True)
        assert shell.state("a") == "BACKOFF"
        at(shell, 4)
        shell.assign()
    shell.fail("a", "RATE_LIMITED", retryable=True)
    assert cause(shell) == ("TIMEOUT", "total_timeout", "RATE_LIMITED")
    assert shell.run.attempts == 3
    ended_well(shell)


def test_a_delay_that_is_cut_off() -> None:
    """Q2: in BACKOFF it fails at the moment, without a slot."""
    shell = shell_of("total_timeout: 10s, retry: {initial_delay: 9s, jitter: 0}")
    shell.fail("a", retryable=True)
    shell.auto = False
    at(shell, 11)
    assert cause(shell) == ("TIMEOUT", "total_timeout", "HANDLER_FAILED")
    ended_well(shell)


def test_items_have_their_own() -> None:
    """Q2, Q8: an item's time begins when its turn comes."""
    shell = Shell(parse("name: t\nsteps: {m: {map: [1, 2], call: h, concurrency: 1, total_timeout: 10s, tolerate: 1}}"))
    at(shell, 6)
    shell.complete("m[0]")
    at(shell, 6)
    assert shell.state("m[1]") == "SCHEDULED"
    at(shell, 5)
    shell.cancelled("m[1]")
    assert (shell.state("m"), shell.state("m[1]"), shell.run.outcome) == ("COMPLETED", "FAILED", "PARTIAL")
    ended_well(shell)


def test_nothing_fails_while_paused() -> None:
    """Q2, G6: time goes on; what came due fails when the run is resumed."""
    shell = shell_of("start_timeout: 10s", auto=False)
    shell.tell(Pause(command_id="p"))
    at(shell, 60)
    assert (shell.run.state, shell.state("a")) == ("PAUSED", "READY")
    shell.tell(Resume(command_id="r"))
    at(shell, 1)
    assert cause(shell) == ("TIMEOUT", "start_timeout", "")


def test_a_question_to_an_operator_does_not_stop_the_clock() -> None:
    """Q2, R26: a lost step that waits for an answer fails in time, and the run goes on."""
    shell = Shell(parse("name: t\nsteps:\n  a: {call: h, total_timeout: 10s, on_lost: ask, on_error: continue}\n  b: {call: h, needs: a}\n"))  # fmt: skip
    shell.tell(ReportLost(attempt_id=shell.attempt_id("a"), reason="gone"))
    assert shell.run.state == "SUSPENDED"
    at(shell, 11)
    assert cause(shell) == ("TIMEOUT", "total_timeout", "EXECUTOR_LOST")
    assert (shell.run.state, shell.state("b")) == ("RUNNING", "SCHEDULED")
    shell.complete("b")
    assert (shell.run.state, shell.run.outcome) == ("COMPLETED", "PARTIAL")
    shell.check()


def test_what_is_over_stays_over() -> None:
    """Q2, E7: a step whose time is up fails, also where a join no longer waits for it."""
    shell = Shell(
        parse("""
name: t
on_failure: continue
steps:
  a: {call: h, total_timeout: 10s, on_error: continue}
  b: {call: h}
  j: {needs: [a, b], join: any, call: h}
""")
    )
    at(shell, 11)
    shell.complete("b")
    assert [event.then for event in shell.events(StepStopping)] == ["FAILED"]
    shell.cancelled("a")
    assert shell.state("a") == "FAILED"
    shell.complete("j")
    ended_well(shell)
