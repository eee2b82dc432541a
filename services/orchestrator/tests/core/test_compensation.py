"""Compensation: what completed is undone, the last first. See docs/flows.md."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core import react
from tierflow_orchestrator.core.commands import Abort, Cancel, Pause, ReportLost, StopAttempt, WakeUp
from tierflow_orchestrator.core.events import CompensationBegan, RunStateChanged
from tierflow_orchestrator.dead_letters import letter_of
from tierflow_runtime.values import Allocation, Failure

from .fakes import SECOND, Shell
from .written import shell, sound, wake

ONCE = {"retry": {"max_attempts": 1}}


def undoing(step_id: str, more: str = "") -> str:
    return f'{step_id}: {{call: h, compensate: {{call: u, with: {{id: "${{{{ output.id }}}}"}}}}{more}}}'


SAGA = f"""
  {undoing("hotel")}
  {undoing("flight", ", needs: hotel")}
  plain: {{call: h, needs: hotel}}
  pay: {{call: h, needs: [flight, plain]}}
"""


def order(it: Shell) -> list[str]:
    return [event.step_id for event in it.events(CompensationBegan)]


def booked(**keys: Any) -> Shell:
    """Hotel and flight are booked, the payment is under way."""
    it = shell(SAGA, defaults=ONCE, **keys)
    it.complete("hotel", '{"id": "H"}')
    it.complete("flight", '{"id": "F"}')
    it.complete("plain")
    return it


def test_what_completed_is_undone_the_last_first() -> None:
    """K4: one after another, each with what it returned; then the run ends by the failure that was."""
    it = booked()
    it.fail("pay", "NO_MONEY")
    assert (it.run.state, it.state("flight"), it.state("hotel")) == ("COMPENSATING", "COMPENSATING", "COMPLETED")
    assert it.run.steps["flight!compensate"].input == '{"id":"F"}'
    sound(it)
    it.complete("flight!compensate")
    assert (it.state("flight"), it.state("hotel")) == ("COMPENSATED", "COMPENSATING")
    sound(it)
    it.complete("hotel!compensate")
    assert it.run.state == "FAILED"
    assert it.run.failure is not None
    assert (it.run.failure.code, it.run.failure.step_id) == ("STEP_FAILED", "pay")
    assert order(it) == ["flight", "hotel"]
    sound(it)


def test_effects_that_come_late_do_not_stop_what_undoes() -> None:
    """K4, R16: a failure, the end of what is in flight and the first compensation may be one commit; that things were to be stopped stops no compensation."""
    it = shell(SAGA, defaults=ONCE)
    it.complete("hotel", '{"id": "H"}')
    it.complete("plain")
    it.fail("flight", "FULL")
    assert it.attempt_id("hotel!compensate") in [effect.attempt_id for effect in it.dispatched]
    late = [effect for event in it.events() for effect in react(it.run, event)]
    assert [effect for effect in late if isinstance(effect, StopAttempt)] == []
    it = booked()
    it.decide(Cancel(command_id="c"))
    stops = [effect for event in it.events() for effect in react(it.run, event) if isinstance(effect, StopAttempt)]
    assert {effect.attempt_id for effect in stops} == {it.attempt_id("pay")}


def test_a_cancelled_run_is_undone_and_ends_cancelled() -> None:
    """K4, G1: what is in flight is stopped first; if it completes all the same, it is undone as well."""
    it = shell(SAGA, defaults=ONCE)
    it.complete("hotel", '{"id": "H"}')
    reply = it.tell(Cancel(command_id="c", reason="why")).reply
    assert (reply.applied, reply.state, it.run.state) == (True, "CANCELLING", "CANCELLING")
    it.complete("flight", '{"id": "F"}')
    assert it.run.state == "CANCELLING"
    it.cancelled("plain")
    assert it.run.state == "COMPENSATING"
    it.complete("flight!compensate")
    it.complete("hotel!compensate")
    assert (it.run.state, it.run.reason) == ("CANCELLED", "why")
    assert order(it) == ["flight", "hotel"]
    sound(it)


@pytest.mark.parametrize(("when", "ends"), [("failure", "COMPENSATING"), ("cancel", "FAILED")])
def test_the_flow_says_when(when: str, ends: str) -> None:
    """K4: compensate_on."""
    it = booked(compensate_on=when)
    it.fail("pay")
    assert it.run.state == ends


def test_nothing_to_undo_is_no_compensation() -> None:
    """K4: a run that completed nothing of that kind ends at once; so does one that completes."""
    it = shell(SAGA, defaults=ONCE)
    it.fail("hotel")
    assert it.run.state == "FAILED"
    good = booked()
    good.complete("pay")
    assert good.run.state == "COMPLETED"
    assert not good.events(CompensationBegan)


def test_a_compensation_that_fails_is_told_and_the_others_follow() -> None:
    """K4: after its own attempts; the run fails, naming the step, with what went wrong first as cause."""
    it = shell(
        SAGA.replace("{call: u,", "{call: u, retry: {max_attempts: 2, initial_delay: 3s, jitter: 0},"), defaults=ONCE
    )
    it.complete("hotel", '{"id": "H"}')
    it.complete("flight", '{"id": "F"}')
    it.complete("plain")
    it.fail("pay", "NO_MONEY")
    it.fail("flight!compensate", "UNAVAILABLE", retryable=True)
    assert it.state("flight!compensate") == "BACKOFF"
    assert it.run.next_wake() is not None
    sound(it)
    wake(it, 3)
    it.fail("flight!compensate", "UNAVAILABLE", retryable=True)
    assert (it.state("flight"), it.state("hotel")) == ("FAILED", "COMPENSATING")
    it.complete("hotel!compensate")
    failure = it.run.failure
    assert failure is not None
    assert failure.cause is not None
    assert (it.run.state, failure.code, failure.cause.code) == ("FAILED", "COMPENSATION_FAILED", "STEP_FAILED")
    assert it.run.reason == "DEAD_LETTER"
    assert "flight" in failure.message
    sound(it)


def test_a_cancelled_run_that_could_not_be_undone_has_failed() -> None:
    """K4: whoever cancelled must know."""
    it = booked()
    it.tell(Cancel(command_id="c"))
    it.cancelled("pay")
    it.fail("flight!compensate")
    it.complete("hotel!compensate")
    assert it.run.failure is not None
    assert (it.run.state, it.run.failure.code) == ("FAILED", "COMPENSATION_FAILED")
    sound(it)


def test_compensation_is_not_stopped_and_has_all_it_needs() -> None:
    """K4, G3: neither by commands, nor by the run's deadline, nor by a budget that is used up."""
    it = booked(timeout="1h")
    it.run.allocation = Allocation(steps=4)
    it.fail("pay")
    for command in (Cancel(command_id="c"), Pause(command_id="p")):
        assert not it.tell(command).reply.applied
    it.now += 7_200 * SECOND
    it.decide(WakeUp())
    assert it.run.state == "COMPENSATING"
    it.complete("flight!compensate")
    assert it.state("hotel!compensate") == "SCHEDULED"
    it.complete("hotel!compensate")
    assert it.run.state == "FAILED"


def test_a_lost_compensation_is_tried_again() -> None:
    """R26, K4: undoing may be repeated; nobody is asked."""
    it = booked()
    it.fail("pay")
    it.tell(ReportLost(attempt_id=it.attempt_id("flight!compensate"), reason="gone"))
    assert (it.run.state, it.state("flight!compensate")) != ("SUSPENDED", "BACKOFF")
    sound(it)


def test_blocks_are_undone_as_one() -> None:
    """K4: what is in a group, where the group ended; a group with compensate of its own by that alone."""
    it = shell(
        f"""
  {undoing("a")}
  g: {{steps: {{{undoing("x")}, slow: {{call: h}}}}}}
  own:
    steps: {{{undoing("y")}}}
    output: {{id: 5}}
    compensate: {{call: u, with: {{id: "${{{{ output.id }}}}"}}}}
  each: {{map: [1, 2], call: h, compensate: {{call: u, with: {{id: "${{{{ output.id }}}}"}}}}}}
  last: {{call: h, needs: [a, g, own, each]}}
""",
        defaults=ONCE,
    )
    it.complete("g/x", '{"id": "x"}')
    it.complete("own/y", '{"id": "y"}')
    it.complete("a", '{"id": "a"}')
    for index in (1, 0):
        it.complete(f"each[{index}]", f'{{"id": {index}}}')
    it.complete("g/slow")
    it.fail("last")
    while it.run.live:
        it.complete(next(iter(it.run.live)))
        sound(it)
    assert order(it) == ["g/x", "each[0]", "each[1]", "a", "own"]
    assert it.run.steps["own!compensate"].input == '{"id":5}'
    assert it.run.steps["each[1]!compensate"].input == '{"id":1}'
    assert it.run.state == "FAILED"


def test_what_a_block_did_before_it_was_run_again_is_undone_too() -> None:
    """K4: every attempt's; and what was in flight where its block failed, if it completed."""
    it = shell(
        f"  g: {{retry: {{max_attempts: 2, initial_delay: 0s}}, steps: {{{undoing('a')}, {undoing('b')}, c: {{call: h}}}}}}",
        defaults=ONCE,
    )
    it.complete("g/a", '{"id": 1}')
    it.fail("g/c")
    it.complete("g/b", '{"id": 2}')
    wake(it)
    it.complete("g#2/a", '{"id": 3}')
    it.fail("g#2/c")
    it.cancelled("g#2/b")
    while it.run.live:
        it.complete(next(iter(it.run.live)))
        sound(it)
    assert order(it) == ["g#2/a", "g/b", "g/a"]


def test_what_a_handler_stood_in_for_is_not_undone() -> None:
    """K4, E11: it was never done."""
    it = shell(
        f"  {undoing('a', ', on_error: {goto: r}')}\n  r: {{call: h}}\n  z: {{call: h, needs: a}}", defaults=ONCE
    )
    it.fail("a")
    it.complete("a!/r", '{"id": 1}')
    it.fail("z")
    assert it.run.state == "FAILED"
    assert not it.events(CompensationBegan)


def test_iterations_are_undone_the_last_first() -> None:
    """K4, E13."""
    it = shell(f"  l: {{loop: {{for: 3}}, steps: {{{undoing('a')}}}}}\n  z: {{call: h, needs: l}}", defaults=ONCE)
    for index in range(3):
        it.complete(f"l[{index}]/a", '{"id": 1}')
    it.fail("z")
    while it.run.live:
        it.complete(next(iter(it.run.live)))
    assert order(it) == ["l[2]/a", "l[1]/a", "l[0]/a"]
    sound(it)


def test_a_defect_ends_a_run_that_is_being_undone() -> None:
    """F28: at once."""
    it = booked()
    it.fail("pay")
    it.tell(Abort(failure=Failure(code="INTERNAL", message="x", tier=2, component="c", operation="o")))
    assert it.run.state == "FAILED"
    assert "CANCELLING" not in [event.to for event in it.events(RunStateChanged)], "it was past that"
    assert it.states()["flight!compensate"] == "CANCELLED"
    it.check()


def test_a_failed_output_undoes_too() -> None:
    """K4: every way to fail."""
    it = Shell(parse("name: f\noutput: '${{ steps.a.output.nothing }}'\nsteps:\n  a: {call: h, compensate: {call: u}}"))
    it.complete("a", "{}")
    assert it.run.state == "COMPENSATING"
    it.complete("a!compensate")
    assert it.run.failure is not None
    assert (it.run.state, it.run.failure.code) == ("FAILED", "EXPRESSION_FAILED")
    assert json.loads(str(it.run.steps["a"].output)) == {}
    sound(it)


def test_a_flow_may_ask_that_its_failures_are_kept() -> None:
    """K4: a run that fails is marked for a dead letter, after its retries; one that completes or is cancelled is not; without the word, none is."""
    for keys, reason in (({"dead_letter": True}, "DEAD_LETTER"), ({"dead_letter": False}, ""), ({}, "")):
        it = shell(SAGA, defaults=ONCE, **keys)
        it.fail("hotel")
        assert (it.run.state, it.run.reason) == ("FAILED", reason)
    stopped = shell(SAGA, defaults=ONCE, dead_letter=True)
    stopped.tell(Cancel(command_id="c"))
    stopped.cancelled("hotel")
    assert (stopped.run.state, stopped.run.reason) != ("FAILED", "DEAD_LETTER")
    good = booked(dead_letter=True)
    good.complete("pay")
    assert (good.run.state, good.run.reason) == ("COMPLETED", "")


def test_its_letter_says_what_could_not_be_undone() -> None:
    """K4: a letter about a failed compensation is of a kind of its own, with the whole failure."""
    it = booked()
    it.fail("pay", "NO_MONEY")
    it.fail("flight!compensate")
    it.complete("hotel!compensate")
    letter = letter_of(it.run, "01890a5d-ac96-774b-bcce-b302099a8057")
    assert (letter.kind, letter.generation, letter.failure) == ("COMPENSATION", 1, it.run.failure)
    other = shell(SAGA, defaults=ONCE, dead_letter=True)
    other.fail("hotel")
    assert letter_of(other.run, letter.id).kind == "RUN"
