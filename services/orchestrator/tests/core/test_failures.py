"""What failures do to a run, and what they say."""

from __future__ import annotations

import json

from tierflow_orchestrator.core.commands import Cancel, Pause, ReportLost, ReportResult, Resume, WakeUp
from tierflow_orchestrator.core.events import (
    LateResult,
    RunEnded,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepScheduled,
)
from tierflow_runtime.values import Failure, Options, RetryPolicy, Usage

from .fakes import Computed, Ref, Shell, Value, call, flow, map_
from .invariants import check_invariants

SPECS = (call("good"), call("bad"), call("other"), call("after", "bad"), call("free", "other"))


def test_fail_fast() -> None:
    """E6, F1, G5: what is in flight is stopped, nothing new starts, finished results are kept, the run fails when nothing is alive."""
    shell = Shell(flow(*SPECS))
    shell.complete("good", '"kept"')
    shell.fail("bad")
    assert shell.run.state == "CANCELLING"
    assert [stop.attempt_id for stop in shell.stops] == [shell.attempt_id("other")]
    assert shell.state("after") == shell.state("free") == "CANCELLED"
    shell.cancelled("other")
    assert (shell.run.state, shell.run.outcome) == ("FAILED", "FAILURE")
    assert shell.run.steps["good"].output == '"kept"'
    check_invariants(shell.run)
    shell.check()


def test_continue() -> None:
    """E6, E10, F27: independent steps go on, dependants are skipped, the run fails at the end."""
    shell = Shell(flow(*SPECS, failure_policy="CONTINUE"))
    shell.fail("bad")
    assert shell.run.state == "RUNNING"
    assert shell.state("after") == "SKIPPED"
    assert shell.run.steps["after"].reason == "needs bad, which is FAILED"
    for step in ("good", "other", "free"):
        shell.complete(step)
    assert (shell.run.state, shell.run.outcome) == ("FAILED", "FAILURE")
    assert not shell.stops
    shell.check()


def test_pause_policy() -> None:
    """E6: the run waits for an operator; resumed, it goes on with what does not depend on the failure."""
    shell = Shell(flow(*SPECS, failure_policy="PAUSE"))
    shell.fail("bad")
    assert shell.run.state == "PAUSING"
    shell.complete("good")
    shell.complete("other")
    assert (shell.run.state, shell.run.reason) == ("PAUSED", "STEP_FAILED")
    assert shell.state("free") == "READY"
    shell.tell(Resume(command_id="r"))
    shell.complete("free")
    assert shell.run.state == "FAILED"
    shell.check()


def test_pause_policy_at_the_last_step() -> None:
    """E6: also where nothing is left to do, the operator is asked."""
    shell = Shell(flow(call("a"), failure_policy="PAUSE"))
    shell.fail("a")
    assert shell.run.state == "PAUSED"
    assert shell.tell(Resume(command_id="r")).reply.state == "FAILED"


def test_options_over_flow() -> None:
    """F8: what a run was asked to do on failure goes before what its flow says."""
    shell = Shell(flow(*SPECS), options=Options(failure_policy="CONTINUE"))
    shell.fail("bad")
    assert shell.run.state == "RUNNING"


def test_tolerated() -> None:
    """E6, F18, Lesson 12: on_error continue: dependants run, and the run says that it is PARTIAL, not a success."""
    shell = Shell(flow(call("bad", on_error="continue"), call("after", "bad", with_=Ref("steps.bad.failure.code"))))
    shell.fail("bad", "TIMEOUT")
    assert shell.dispatched[-1].input == '"TIMEOUT"'
    shell.complete("after")
    assert (shell.run.state, shell.run.outcome, shell.run.failure) == ("COMPLETED", "PARTIAL", None)
    assert shell.run.output == '{"after":1}'
    shell.check()


def test_degraded() -> None:
    """F18, Lesson 12: a fallback is never a success."""
    shell = Shell(flow(call("a")))
    shell.complete("a", outcome="DEGRADED")
    assert (shell.run.state, shell.run.outcome) == ("COMPLETED", "DEGRADED")
    mapped = Shell(flow(map_("m", 2)))
    mapped.complete("m[0]")
    mapped.complete("m[1]", outcome="DEGRADED")
    assert mapped.events(StepCompleted)[-1].outcome == "DEGRADED"


def test_map_within_its_tolerance() -> None:
    """E6, Q8: some items may fail; the output has null in their places, the map and the run are PARTIAL."""
    shell = Shell(flow(map_("m", 3, tolerate=1), call("j", "m", with_=Ref("steps.m.output"))))
    shell.fail("m[1]")
    shell.complete("m[0]", "10")
    shell.complete("m[2]", "12")
    assert shell.dispatched[-1].input == "[10,null,12]"
    shell.complete("j")
    assert (shell.run.state, shell.run.outcome) == ("COMPLETED", "PARTIAL")
    shell.check()


def test_map_beyond_its_tolerance() -> None:
    """E6, F23: one failure too many stops the run, and the chain of causes leads to the item."""
    shell = Shell(flow(map_("m", 4, tolerate=1, concurrency=3)))
    shell.fail("m[0]")
    assert shell.run.state == "RUNNING"
    shell.fail("m[2]", "TIMEOUT")
    assert shell.run.state == "CANCELLING"
    assert {stop.attempt_id for stop in shell.stops} == {shell.attempt_id("m[1]"), shell.attempt_id("m[3]")}
    assert [event.tolerated for event in shell.events(StepFailed)] == [True, False]
    shell.cancelled("m[1]")
    shell.cancelled("m[3]")
    failure = shell.run.failure
    chain = []
    while failure is not None:
        chain.append((failure.code, failure.step_id))
        failure = failure.cause
    assert chain == [("STEP_FAILED", "m"), ("STEP_FAILED", "m"), ("TIMEOUT", "m[2]")]
    check_invariants(shell.run)
    shell.check()


def test_failed_map_that_is_tolerated() -> None:
    """E6, Lesson 5: the siblings of the item that was one too many are stopped, the run goes on."""
    shell = Shell(flow(map_("m", 4, concurrency=2, on_error="continue"), call("after", "m")))
    shell.fail("m[0]")
    assert shell.run.state == "RUNNING"
    assert [stop.attempt_id for stop in shell.stops] == [shell.attempt_id("m[1]")]
    assert shell.states() == {
        "m": "RUNNING",
        "after": "PENDING",
        "m[0]": "FAILED",
        "m[1]": "SCHEDULED",
        "m[2]": "CANCELLED",
        "m[3]": "CANCELLED",
    }
    shell.cancelled("m[1]")
    assert shell.state("m") == "FAILED"
    shell.complete("after")
    assert (shell.run.state, shell.run.outcome) == ("COMPLETED", "PARTIAL")
    shell.check()


def test_failed_map_under_continue() -> None:
    """E6: items do not depend on each other: all are tried, then the map fails."""
    shell = Shell(flow(map_("m", 3, concurrency=1), failure_policy="CONTINUE"))
    shell.fail("m[0]")
    shell.complete("m[1]", '"kept"')
    shell.complete("m[2]")
    assert shell.state("m") == "FAILED"
    assert shell.run.state == "FAILED"
    assert shell.run.steps["m[1]"].output == '"kept"'
    assert not shell.stops


def test_failures_are_completed_not_relabelled() -> None:
    """F22, F23: what an executor leaves open is filled in; what it says stays."""
    shell = Shell(flow(call("a", handler="billing.charge")))
    shell.fail("a", "CARD_DECLINED", tier=3, component="stripe", detail="internals")
    cause = shell.run.failure.cause  # type: ignore[union-attr]
    assert cause == Failure(
        code="CARD_DECLINED",
        message="it broke",
        tier=3,
        component="stripe",
        operation="attempt",
        attempt=1,
        step_id="a",
        detail="internals",
    )
    nothing = Shell(flow(call("a")))
    nothing.tell(ReportResult(attempt_id=nothing.attempt_id("a"), state="FAILED"))
    assert nothing.run.failure.cause.code == "INTERNAL"  # type: ignore[union-attr]


def test_stopped_by_its_executor() -> None:
    """F6: an attempt that its executor stopped of its own accord (a drain) is a failure that may be retried."""
    shell = Shell(flow(call("a", retry=RetryPolicy(initial_delay=1, jitter=0))))
    shell.cancelled("a")
    (retrying,) = shell.events(StepRetrying)
    assert (retrying.failure.code, retrying.failure.tier) == ("CANCELLED", 3)
    shell.now += 10
    shell.tell(WakeUp())
    shell.complete("a")
    assert shell.run.state == "COMPLETED"
    shell.check()


def lose(shell: Shell, step: str = "a") -> str:
    attempt_id = shell.attempt_id(step)
    shell.tell(ReportLost(attempt_id=attempt_id, reason="no answer for 30 s"))
    return attempt_id


def test_lost_is_retried_at_once() -> None:
    """Lesson 26, Q1: another attempt without delay, with a higher epoch; the late result of the first is booked and refused."""
    shell = Shell(flow(call("a", retry=RetryPolicy())))
    first = lose(shell)
    assert shell.state("a") == "SCHEDULED"
    assert shell.attempt_id("a") != first
    shell.tell(ReportResult(attempt_id=first, state="COMPLETED", output='"old"', usage=Usage(credits=100, attempts=1)))
    assert shell.run.usage.credits == 100
    assert shell.events(LateResult)[0].state == "COMPLETED"
    shell.complete("a", '"new"')
    assert shell.run.output == '{"a":"new"}'
    assert (shell.run.usage.credits, shell.run.usage.attempts, shell.run.usage.steps) == (105, 2, 1)
    shell.check()


def test_results_of_others_attempts() -> None:
    """R23, O7: an executor that was not given the attempt is refused, typed, and leaves no trace; also for one that was given up."""
    shell = Shell(flow(call("a", retry=RetryPolicy())))
    attempt_id, before = shell.attempt_id("a"), len(shell.events())
    lie = ReportResult(
        attempt_id=attempt_id,
        state="COMPLETED",
        output='"lie"',
        usage=Usage(credits=100, attempts=1),
        executor_id="x/1",
    )
    reply = shell.tell(lie).reply
    assert reply.failure is not None
    assert (reply.applied, reply.failure.code) == (False, "PERMISSION_DENIED")
    assert len(shell.events()) == before
    assert shell.run.usage.credits == 0
    mine = shell.run.steps["a"].executor_id
    shell.tell(ReportResult(attempt_id=attempt_id, state="COMPLETED", output='"truth"', executor_id=mine))
    assert shell.run.output == '{"a":"truth"}'
    shell.check()


def test_lost_too_often() -> None:
    """F7: losses count against the policy."""
    shell = Shell(flow(call("a", retry=RetryPolicy(max_attempts=2))))
    lose(shell)
    lose(shell)
    failure = shell.run.steps["a"].failure
    assert failure is not None
    assert (failure.code, failure.cause.code) == ("MAX_RETRIES_EXCEEDED", "EXECUTOR_LOST")  # type: ignore[union-attr]
    shell.check()


def test_lost_at_most_once() -> None:
    """V14: on_lost fail: the step fails with EXECUTOR_LOST, whatever its policy."""
    shell = Shell(flow(call("a", on_lost="FAIL", retry=RetryPolicy())))
    lose(shell)
    assert shell.run.steps["a"].failure.code == "EXECUTOR_LOST"  # type: ignore[union-attr]
    assert len(shell.dispatched) == 1


def test_lost_with_a_side_effect() -> None:
    """V9: where doing it twice would hurt, an operator is asked: SUSPENDED with the reason; resume tries again, cancel does not."""
    spec = call("a", side_effecting=True)
    shell = Shell(flow(spec, call("b"), call("c", "b")))
    lose(shell)
    assert (shell.run.state, shell.run.reason) == ("SUSPENDED", "EXECUTOR_LOST: a")
    shell.complete("b")
    assert (shell.state("a"), shell.state("c")) == ("BACKOFF", "READY")
    shell.run = shell.folded()
    shell.tell(WakeUp())
    assert not list(shell.run.ready_handlers())
    shell.tell(Resume(command_id="yes"))
    assert (shell.state("a"), shell.state("c"), shell.run.steps["a"].attempt) == ("SCHEDULED", "SCHEDULED", 2)
    shell.check()
    other = Shell(flow(spec))
    lose(other)
    other.tell(Cancel(command_id="no"))
    assert (other.run.state, other.state("a")) == ("CANCELLED", "CANCELLED")


def test_asked_while_paused() -> None:
    """G6, V9: resuming a pause does not answer the question as well."""
    shell = Shell(flow(call("a", on_lost="ASK")))
    shell.tell(Pause(command_id="p"))
    lose(shell)
    assert shell.run.state == "PAUSED"
    assert shell.tell(Resume(command_id="1")).reply.state == "SUSPENDED"
    assert len(shell.dispatched) == 1
    assert shell.tell(Resume(command_id="2")).reply.state == "RUNNING"
    assert len(shell.dispatched) == 2
    shell.check()


def test_lost_while_cancelled() -> None:
    """G4: a lost attempt does not hold a cancel up; the receipt says that it is not confirmed."""
    shell = Shell(flow(call("a", retry=RetryPolicy())))
    shell.tell(Cancel(command_id="c"))
    attempt_id = lose(shell)
    assert shell.run.state == "CANCELLED"
    assert shell.events(StepCancelled)[-1].confirmed is False
    assert shell.events(RunEnded)[0].unconfirmed_attempts == (attempt_id,)
    shell.check()


def test_expression_of_an_input_fails() -> None:
    """E15: a reference that leads nowhere fails the step, once, with the reason; no attempt is made of it."""
    shell = Shell(
        flow(call("a", with_=Value(1)), call("b", "a", with_=Ref("steps.a.output.nothing"), retry=RetryPolicy()))
    )
    shell.complete("a", '{"x":1}')
    failure = shell.run.steps["b"].failure
    assert failure is not None
    assert (failure.code, failure.retryable) == ("EXPRESSION_FAILED", False)
    assert "steps.a.output.nothing" in failure.message
    assert len(shell.events(StepScheduled)) == 1
    assert shell.run.state == "FAILED"


def test_input_schema() -> None:
    """A5, C3: an input that does not match fails the run before any step, with every violation."""
    schema = {"type": "object", "required": ["a", "b"], "properties": {"n": {"type": "integer"}}}
    its = flow(call("s"), input_schema=schema)
    shell = Shell(its, input='{"n": "x"}')
    assert shell.run.state == "FAILED"
    failure = shell.run.failure
    assert failure is not None
    assert failure.code == "INPUT_INVALID"
    assert len(failure.violations) == 3
    assert "input.n" in {violation.field for violation in failure.violations}
    assert not shell.run.steps
    assert Shell(its, input='{"a": 1, "b": 2}').run.state == "RUNNING"
    assert Shell(its, input=None).run.failure.code == "INPUT_INVALID"  # type: ignore[union-attr]


def test_output_schema() -> None:
    """F20: an output that does not match is a failure that is retried with delay; the violations are kept."""
    schema = {"type": "object", "required": ["total"]}
    shell = Shell(flow(call("a", output_schema=schema, retry=RetryPolicy(max_attempts=2, jitter=0))))
    shell.complete("a", '{"sum": 1}')
    (retrying,) = shell.events(StepRetrying)
    assert (retrying.failure.code, retrying.failure.retryable) == ("OUTPUT_INVALID", True)
    assert retrying.failure.violations
    assert retrying.next_attempt_at == shell.now + 1_000_000
    shell.now = retrying.next_attempt_at
    shell.tell(WakeUp())
    shell.complete("a", '{"total": 1}')
    assert shell.run.state == "COMPLETED"
    shell.check()


def test_output_of_the_run() -> None:
    """F20, E15: the flow's own output is resolved and checked; where that fails, so does the run."""
    steps = (call("a"),)
    shell = Shell(flow(*steps, output=Ref("steps.a.output.x")))
    shell.complete("a", '{"x": [1, 2]}')
    assert json.loads(str(shell.run.output)) == [1, 2]
    wrong = Shell(flow(*steps, output=Ref("steps.a.output.y")))
    wrong.complete("a", '{"x": 1}')
    assert (wrong.run.state, wrong.run.failure.code) == ("FAILED", "EXPRESSION_FAILED")  # type: ignore[union-attr]
    unfit = Shell(flow(*steps, output_schema={"type": "array"}))
    unfit.complete("a", "1")
    assert (unfit.run.state, unfit.run.failure.code) == ("FAILED", "OUTPUT_INVALID")  # type: ignore[union-attr]


def test_failure_reaches_every_dependant() -> None:
    """E10: failure() is true where any of the needs failed, whichever ended last."""
    alarm = call(
        "alarm", "bad", "good", condition=Computed(lambda scope: scope.lookup("status", ("failure",))), always=True
    )
    for order in (("bad", "good"), ("good", "bad")):
        shell = Shell(flow(call("bad"), call("good"), alarm, failure_policy="CONTINUE"))
        for step in order:
            shell.fail(step) if step == "bad" else shell.complete(step)
        assert shell.state("alarm") == "SCHEDULED"


def test_failure_while_an_operator_is_asked() -> None:
    """E6, V9: under PAUSE a failure pauses a suspended run too; both questions are answered one by one."""
    shell = Shell(flow(call("a", on_lost="ASK"), call("b"), failure_policy="PAUSE"))
    lose(shell)
    shell.fail("b")
    assert (shell.run.state, shell.run.reason) == ("PAUSED", "STEP_FAILED")
    assert shell.tell(Resume(command_id="1")).reply.state == "SUSPENDED"
    assert shell.tell(Resume(command_id="2")).reply.state == "RUNNING"
    shell.complete("a")
    assert shell.run.state == "FAILED"
    shell.check()
