"""Retries: when, how often, and what is left when they are used up."""

from __future__ import annotations

import pytest
from tierflow_orchestrator.core.commands import AssignSlot, WakeUp
from tierflow_orchestrator.core.events import StepFailed, StepRetrying, StepScheduled
from tierflow_orchestrator.core.retry import delay, may_retry, next_attempt_at, policy_for
from tierflow_runtime.values import Failure, Options, RetryPolicy

from .fakes import SECOND, Shell, call, flow

STEADY = RetryPolicy(jitter=0.0)
FAILURE = Failure(code="TIMEOUT", message="slow", retryable=True)


def test_delays_grow_to_their_cap() -> None:
    """F6, F9, O10: 1 s, 2 s, 4 s, … and never more than 60 s, whatever the attempt's number."""
    delays = [delay(STEADY, attempt, "x") for attempt in (1, 2, 3, 6, 7, 8, 5_000)]
    assert delays == [SECOND * n for n in (1, 2, 4, 32, 60, 60, 60)]


def test_jitter() -> None:
    """F9: within 20 % either way, spread evenly, never above the cap; the same for the same attempt, wherever it is computed."""
    policy = RetryPolicy()
    found = [delay(policy, 1, f"run/step/{n}") for n in range(2_000)]
    assert all(0.8 * SECOND <= each <= 1.2 * SECOND for each in found)
    tenths = [sum(0.8 + 0.04 * n <= each / SECOND < 0.84 + 0.04 * n for each in found) for n in range(10)]
    assert min(tenths) > 140
    assert max(tenths) < 260
    assert found == [delay(policy, 1, f"run/step/{n}") for n in range(2_000)]
    assert max(delay(policy, 9, str(n)) for n in range(200)) == 60 * SECOND


def test_server_chosen_delay() -> None:
    """F12: the other side's hint counts where it is longer."""
    hinted = Failure(code="RATE_LIMITED", message="", retryable=True, retry_after=2 * SECOND)
    assert next_attempt_at(STEADY, hinted, 1, "x", 100) == 100 + 2 * SECOND
    assert next_attempt_at(STEADY, hinted, 3, "x", 100) == 100 + 4 * SECOND


@pytest.mark.parametrize(
    ("policy", "code", "retryable", "retried"),
    [
        (STEADY, "TIMEOUT", True, True),
        (STEADY, "TIMEOUT", False, False),
        (RetryPolicy(retry_on=("TIMEOUT",)), "TIMEOUT", True, True),
        (RetryPolicy(retry_on=("TIMEOUT",)), "RATE_LIMITED", True, False),
        (RetryPolicy(retry_on=("TIMEOUT",)), "TIMEOUT", False, False),
        (RetryPolicy(never_retry_on=("TIMEOUT",)), "TIMEOUT", True, False),
        (RetryPolicy(never_retry_on=("CARD_DECLINED",)), "CARD_DECLINED", True, False),
        (RetryPolicy(retry_on=("TIMEOUT",), never_retry_on=("TIMEOUT",)), "TIMEOUT", True, False),
    ],
)
def test_codes(policy: RetryPolicy, code: str, retryable: bool, retried: bool) -> None:
    """F6, Q4, Lesson 13: the code and the flag decide, never the words."""
    assert may_retry(policy, Failure(code=code, message="", retryable=retryable)) == retried


def test_precedence() -> None:
    """F8: the step's policy over the run's, over the flow's."""
    mine, asked = RetryPolicy(max_attempts=7), RetryPolicy(max_attempts=8)
    its = flow(call("a", retry=mine), call("b"), retry=STEADY)
    assert policy_for(its.by_id["a"], its, Options(retry=asked)) is mine
    assert policy_for(its.by_id["b"], its, Options(retry=asked)) is asked
    assert policy_for(its.by_id["b"], its, Options()) is STEADY


def test_retried_until_it_works() -> None:
    """F6, F10, F11, Lesson 11, Lesson 12: attempts at the times of the policy, one at a time; a retried attempt is no failed step."""
    shell = Shell(flow(call("a", retry=STEADY)))
    for number in (1, 2):
        shell.fail("a", "TIMEOUT", retryable=True)
        assert shell.state("a") == "BACKOFF"
        due = shell.events(StepRetrying)[-1].next_attempt_at
        assert due == shell.now + number * SECOND
        assert shell.run.next_wake() == due
        shell.run = shell.folded()
        shell.now = due - 10
        shell.tell(WakeUp())
        assert shell.run.next_ready("h") is None
        assert not shell.decide(AssignSlot(step_id="a", executor_id="e")).events
        shell.now = due
        shell.tell(WakeUp())
        assert shell.state("a") == "SCHEDULED"
    shell.complete("a")
    step = shell.run.steps["a"]
    assert (shell.run.state, shell.run.outcome, step.attempt, step.epoch) == ("COMPLETED", "SUCCESS", 3, 3)
    assert [e.attempt for e in shell.events(StepScheduled)] == [1, 2, 3]
    assert not shell.events(StepFailed)
    assert shell.run.usage.attempts == 3
    assert shell.run.usage.steps == 1
    assert shell.run.usage.credits == 7 + 7 + 5
    shell.check()


def test_used_up() -> None:
    """F7, F22, F23, Lesson 11: exactly three attempts, then MAX_RETRIES_EXCEEDED for good, with the last failure as its cause."""
    shell = Shell(flow(call("a", retry=STEADY)))
    for _ in range(3):
        shell.fail("a", "TIMEOUT", retryable=True, tier=3, component="h", operation="call")
        shell.now += 100 * SECOND
        shell.tell(WakeUp())
    assert len(shell.dispatched) == 3
    failure = shell.run.failure
    assert failure is not None
    assert (failure.code, failure.tier, failure.step_id) == ("STEP_FAILED", 2, "a")
    exceeded = failure.cause
    assert exceeded is not None
    assert (exceeded.code, exceeded.retryable, exceeded.attempt) == ("MAX_RETRIES_EXCEEDED", False, 3)
    last = exceeded.cause
    assert last is not None
    assert (last.code, last.tier, last.component, last.operation, last.attempt) == ("TIMEOUT", 3, "h", "call", 3)
    assert shell.run.usage.credits == 21
    shell.check()


def test_not_recoverable_is_final() -> None:
    """F6: what trying again cannot help is tried once, and keeps its own code."""
    shell = Shell(flow(call("a", retry=STEADY)))
    shell.fail("a", "HANDLER_REJECTED")
    assert len(shell.dispatched) == 1
    (failed,) = shell.events(StepFailed)
    assert failed.failure.code == "HANDLER_REJECTED"
    assert shell.run.state == "FAILED"


def test_one_attempt_is_not_exhaustion() -> None:
    """F7: where the policy has one attempt, its failure is the step's."""
    shell = Shell(flow(call("a")))
    shell.fail("a", "TIMEOUT", retryable=True)
    assert shell.events(StepFailed)[0].failure.code == "TIMEOUT"


def test_delays_do_not_hold_others_up() -> None:
    """F10, Lesson 15: while one waits, others go on; each is due at its own time."""
    shell = Shell(flow(call("a", retry=STEADY), call("b", retry=STEADY), call("c")))
    shell.fail("a", "TIMEOUT", retryable=True)
    shell.now += SECOND // 2
    shell.fail("b", "TIMEOUT", retryable=True)
    shell.complete("c")
    first = shell.run.next_wake()
    assert first == shell.run.steps["a"].next_attempt_at
    shell.now = first
    shell.tell(WakeUp())
    assert (shell.state("a"), shell.state("b")) == ("SCHEDULED", "BACKOFF")
    assert shell.run.next_wake() == shell.run.steps["b"].next_attempt_at
