"""Steps that handle the errors of others. See docs/flows.md."""

from __future__ import annotations

import json

import pytest
from tierflow_orchestrator.core.commands import Cancel
from tierflow_orchestrator.core.events import HandlerCalled, StepReset

from .written import output, shell, sound, wake

ONCE = {"retry": {"max_attempts": 1}}
CHARGE = """
  charge: {call: h, on_error: {goto: rescue, then: THEN, calls: 2}}
  rescue: {call: r, with: {code: "${{ last_error.code }}", at: "${{ last_error.attempt }}", of: "${{ last_error.step }}"}}
  thank: {call: h, with: {got: "${{ steps.charge.output }}"}}
"""


def test_a_handler_runs_only_when_it_is_called_for() -> None:
    """E11: otherwise nobody hears of it; nothing waits for it."""
    it = shell(CHARGE.replace("THEN", "continue"))
    assert it.states() == {"charge": "SCHEDULED", "thank": "PENDING"}
    it.complete("charge", "1")
    it.complete("thank")
    assert (it.run.state, it.run.outcome, output(it)) == ("COMPLETED", "SUCCESS", {"thank": 1})
    sound(it)


def test_what_a_handler_returns_stands_for_the_output() -> None:
    """E11, F18: the step has completed, by a fallback: DEGRADED, never a success."""
    it = shell(CHARGE.replace("THEN", "continue"), defaults=ONCE)
    it.fail("charge", "NO_BANK")
    assert it.state("charge") == "RUNNING"
    assert it.run.steps["charge!/rescue"].input == '{"at":1,"code":"NO_BANK","of":"charge"}'
    assert it.run.state == "RUNNING"
    sound(it)
    it.complete("charge!/rescue", '"instead"')
    assert it.run.steps["thank"].input == '{"got":"instead"}'
    it.complete("thank")
    assert (it.run.state, it.run.outcome) == ("COMPLETED", "DEGRADED")
    assert it.run.steps["charge"].failure is not None, "what went wrong is kept"
    sound(it)


def test_a_handler_may_have_the_step_begin_anew() -> None:
    """E11, F7: with all its attempts; so often and no more, then the failure stands."""
    it = shell(CHARGE.replace("THEN", "retry"), defaults={"retry": {"max_attempts": 2, "initial_delay": "0s"}})
    for call, name in ((1, "charge!/rescue"), (2, "charge!2/rescue")):
        for _ in range(2):
            it.fail("charge", "UNAVAILABLE", retryable=True)
            wake(it)
        assert len(it.events(HandlerCalled)) == call
        it.complete(name)
        sound(it)
    assert len(it.events(StepReset)) == 2
    assert it.run.steps["charge"].epoch == 5
    for _ in range(2):
        it.fail("charge", "UNAVAILABLE", retryable=True)
        wake(it)
    assert (it.state("charge"), it.run.state) == ("FAILED", "FAILED")
    sound(it)


@pytest.mark.parametrize(("then", "ends"), [("stop", "FAILED"), ("${{ steps.rescue.output.word }}", "COMPLETED")])
def test_what_follows_may_be_said_by_the_handler(then: str, ends: str) -> None:
    """E11: then is a word, or an expression that sees what the handler returned."""
    it = shell(CHARGE.replace("THEN", f'"{then}"'), defaults=ONCE)
    it.fail("charge", "NO_BANK")
    it.complete("charge!/rescue", '{"word": "continue"}')
    assert it.state("charge") == ends
    sound(it)


def test_a_word_that_is_none_is_a_failure() -> None:
    """E15: nothing is guessed."""
    it = shell(CHARGE.replace("THEN", '"${{ steps.rescue.output }}"'), defaults=ONCE)
    it.fail("charge", "NO_BANK")
    it.complete("charge!/rescue", '"perhaps"')
    assert it.run.steps["charge"].failure is not None
    assert it.run.steps["charge"].failure.code == "EXPRESSION_FAILED"
    sound(it)


def test_the_failure_stands_where_the_handler_fails_or_declines() -> None:
    """E11, F22: both are told."""
    it = shell(CHARGE.replace("THEN", "continue"), defaults=ONCE)
    it.fail("charge", "NO_BANK")
    it.fail("charge!/rescue", "NO_IDEA")
    failure = it.run.steps["charge"].failure
    assert failure is not None
    assert (failure.code, "failed too" in failure.message) == ("NO_BANK", True)
    declining = CHARGE.replace("THEN", "continue").replace("{call: r,", "{if: last_error.code == 'X', call: r,")
    other = shell(declining, defaults=ONCE)
    other.fail("charge", "NO_BANK")
    assert (other.state("charge!/rescue"), other.run.state) == ("SKIPPED", "FAILED")
    sound(it)
    sound(other)


def test_a_group_has_a_handler_and_a_handler_may_be_a_group() -> None:
    """E11: the whole is given up first, then handled; within the handler last_error is there for all steps."""
    it = shell(
        """
  g:
    steps: {a: {call: h}, b: {call: h}}
    on_error: {goto: tidy}
  tidy:
    steps: {x: {call: h, with: {code: "${{ last_error.failure.cause.code }}"}}, y: {call: h, needs: x}}
    output: ${{ steps.y.output }}
""",
        defaults=ONCE,
    )
    it.fail("g/a", "NO_ROOM")
    it.cancelled("g/b")
    assert it.run.steps["g!/tidy/x"].input == '{"code":"NO_ROOM"}'
    sound(it)
    it.complete("g!/tidy/x")
    it.complete("g!/tidy/y", "9")
    assert (it.run.state, output(it, "g")) == ("COMPLETED", 9)
    sound(it)


def test_a_handler_of_a_block_is_one_of_the_block() -> None:
    """E11, E15: it sees what stands beside the failed step; item is the item."""
    it = shell(
        """
  each:
    map: [7]
    steps:
      first: {call: h}
      risky: {call: h, on_error: {goto: rescue}}
      rescue: {call: h, with: {item: "${{ item }}", first: "${{ steps.first.output }}"}}
""",
        defaults=ONCE,
    )
    assert it.state("each[0]/risky") == "PENDING", "what the handler reads, the step waits for"
    it.complete("each[0]/first", "1")
    it.fail("each[0]/risky")
    assert json.loads(str(it.run.steps["each[0]/risky!/rescue"].input)) == {"item": 7, "first": 1}
    it.complete("each[0]/risky!/rescue", "2")
    assert (it.run.state, output(it)) == ("COMPLETED", {"each": [{"risky": 2}]}) or it.run.state == "COMPLETED"
    sound(it)


def test_on_error_retry_tries_again_whatever_it_was() -> None:
    """E11, F2: also where the failure says that a retry cannot help; never_retry_on holds."""
    it = shell("  a: {call: h, on_error: retry, retry: {max_attempts: 2, initial_delay: 0s, never_retry_on: [NEVER]}}")
    it.fail("a", "STRANGE", retryable=False)
    wake(it)
    assert it.state("a") == "SCHEDULED"
    it.complete("a")
    assert it.run.state == "COMPLETED"
    other = shell("  a: {call: h, on_error: retry, retry: {max_attempts: 2, never_retry_on: [NEVER]}}")
    other.fail("a", "NEVER")
    assert other.run.state == "FAILED"
    sound(it)


def test_a_cancel_stops_a_handler_too() -> None:
    """G1, G4: and calls for none."""
    it = shell(CHARGE.replace("THEN", "continue"), defaults=ONCE)
    it.fail("charge")
    it.tell(Cancel(command_id="c"))
    assert it.run.state == "CANCELLING"
    it.fail("charge!/rescue")
    assert (it.state("charge"), it.run.state) == ("CANCELLED", "CANCELLED")
    sound(it)


def test_a_wait_for_a_signal_that_times_out_may_be_handled() -> None:
    """E11, F5: every kind of step may have a handler; a run that only waits in one is parked as ever."""
    it = shell(
        """
  paid: {signal: paid, timeout: 10s, on_error: {goto: remind, then: retry, calls: 1}}
  remind: {wait: 5s}
"""
    )
    assert it.run.state == "SUSPENDED"
    wake(it, 10)
    assert (it.state("paid!/remind"), it.run.state) == ("RUNNING", "SUSPENDED")
    sound(it)
    wake(it, 5)
    assert it.state("paid") == "RUNNING"
    wake(it, 10)
    assert it.run.state == "FAILED"
    sound(it)
