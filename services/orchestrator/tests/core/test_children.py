"""Steps that run another flow, as the parent sees it. See E12, Q7 and docs/flows.md."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_contracts.events.v1.event_pb2 import EventBatch
from tierflow_orchestrator.core import dump, load, open_effects
from tierflow_orchestrator.core.commands import (
    Cancel,
    DispatchAttempt,
    Pause,
    ReportResult,
    ReportStarted,
    ReportTold,
    Resume,
    StopAttempt,
    TellChild,
)
from tierflow_orchestrator.core.events import StepScheduled
from tierflow_orchestrator.machine import RunMachine, is_waiting
from tierflow_runtime.values import Allocation, Failure, Usage

from .fakes import Shell, Value, call, flow, fold, subflow


def taken(shell: Shell, step_id: str = "c") -> None:
    """The run of the step is stored."""
    shell.tell(ReportStarted(attempt_id=shell.attempt_id(step_id), started_at=shell.now))


def ended(shell: Shell, state: str = "COMPLETED", step_id: str = "c", **more: Any) -> None:
    """The run of the step has ended."""
    more.setdefault("usage", Usage(credits=7, attempts=3, steps=2, input_tokens=5))
    shell.tell(ReportResult(attempt_id=shell.attempt_id(step_id), state=state, **more))


def test_its_output_is_the_steps_output() -> None:
    """E12, D4: and what it used is on the parent's bill, the attempt that it is itself included."""
    shell = Shell(flow(subflow("c", "other", with_=Value({"n": 1})), call("d", "c")))
    (scheduled,) = shell.events(StepScheduled)
    assert (scheduled.handler, scheduled.input, bool(scheduled.child_run_id)) == ("flow:other", '{"n": 1}', True)
    taken(shell)
    ended(shell, output='{"a": 1}')
    step = shell.run.steps["c"]
    assert (step.state, step.output) == ("COMPLETED", '{"a": 1}')
    assert (step.usage.credits, step.usage.attempts, step.usage.steps) == (7, 4, 3)
    assert shell.run.attempts == 5
    shell.check()


def test_its_failure_is_the_cause() -> None:
    """E12, F23: told in full, and tolerated where on_error says so."""
    inner = Failure(code="TIMEOUT", message="too slow", tier=3, component="h", operation="attempt")
    failure = Failure(code="STEP_FAILED", message="it failed", tier=2, component="run", operation="x", cause=inner)
    shell = Shell(flow(subflow("c", "other")))
    taken(shell)
    ended(shell, "FAILED", failure=failure)
    assert shell.run.failure is not None
    assert shell.run.failure.cause is not None
    assert shell.run.failure.cause.cause == inner
    other = Shell(flow(subflow("c", "other", on_error="continue")))
    taken(other)
    ended(other, "FAILED", failure=failure)
    assert (other.run.state, other.run.outcome) == ("COMPLETED", "PARTIAL")


def test_its_parent_need_not_stay_in_memory() -> None:
    """R15, R16: once it is stored; until then whoever owns the parent asks for it again, under the same id."""
    shell = Shell(flow(subflow("c", "other")))
    assert not is_waiting(shell.run)
    (effect,) = open_effects(shell.run)
    assert isinstance(effect, DispatchAttempt)
    again = load(dump(shell.run))
    again.flow = shell.flow
    assert again.steps["c"].child == shell.events(StepScheduled)[0].child_run_id
    taken(shell)
    assert is_waiting(shell.run)
    assert shell.run.state == "RUNNING"


def test_a_pause_goes_down_and_up_again() -> None:
    """Q7, G6: it need not end first; nobody forgets what it has not heard yet, and it may end meanwhile."""
    shell = Shell(flow(subflow("c", "other"), call("d", "c")))
    taken(shell)
    decision = shell.tell(Pause(command_id="p"))
    assert (decision.reply.state, shell.run.state) == ("PAUSED", "PAUSED")
    (untold,) = open_effects_of(shell, TellChild)
    assert untold.paused
    assert not is_waiting(shell.run)
    shell.tell(ReportTold(attempt_id=untold.attempt_id, paused=True))
    assert is_waiting(shell.run)
    shell.tell(Resume(command_id="r"))
    assert shell.run.state == "RUNNING"
    (untold,) = open_effects_of(shell, TellChild)
    assert not untold.paused
    shell.tell(Pause(command_id="p2"))
    assert not open_effects_of(shell, TellChild)
    ended(shell)
    assert (shell.run.state, shell.state("c"), shell.state("d")) == ("PAUSED", "COMPLETED", "READY")
    shell.check()


def open_effects_of(shell: Shell, kind: type) -> list[Any]:
    return [effect for effect in open_effects(shell.run) if isinstance(effect, kind)]


def test_a_cancel_waits_for_it() -> None:
    """G11, Q7: the parent has not ended before its run has; what that used is still booked."""
    shell = Shell(flow(subflow("c", "other")))
    taken(shell)
    shell.tell(Cancel(command_id="x"))
    assert shell.run.state == "CANCELLING"
    assert [stop.attempt_id for stop in open_effects_of(shell, StopAttempt)] == [shell.attempt_id("c")]
    assert not is_waiting(shell.run)
    ended(shell, "CANCELLED")
    assert (shell.run.state, shell.run.usage.credits) == ("CANCELLED", 7)


@pytest.mark.parametrize(
    ("given", "share", "wanted"),
    [
        ({}, {}, {"steps": None, "credits": None}),
        ({"steps": 10, "credits": 100}, {}, {"steps": 8, "credits": 95}),
        ({"steps": 10, "credits": 100}, {"steps": 3, "credits": 1}, {"steps": 3, "credits": 1}),
        ({}, {"tokens": 4}, {"tokens": 4}),
        ({"steps": 10}, {"steps": 9}, None),
        ({"credits": 100}, {"credits": 96}, None),
        ({"steps": 2}, {}, None),
        ({"depth": 1}, {}, {"depth": 0}),
        ({"depth": 0}, {}, None),
    ],
)
def test_it_spends_out_of_what_its_parent_has_left(
    given: dict[str, int], share: dict[str, int], wanted: dict[str, int | None] | None
) -> None:
    """E12, B2, Lesson 31: never more than is left after what was spent, and what a step before it used is spent."""
    more = {"settings": {"allocation": share}} if share else {}
    shell = Shell(flow(call("a"), subflow("c", "other", "a", **more)), allocation=Allocation(**given))
    shell.complete("a")
    if wanted is None:
        failure = shell.run.steps["c"].failure
        assert failure is not None
        assert failure.code == "BUDGET_EXHAUSTED"
    else:
        grant = shell.run.steps["c"].grant
        assert grant is not None
        assert {name: getattr(grant, name) for name in wanted} == wanted


def test_what_one_holds_no_other_gets() -> None:
    """Lesson 31, D3: two at once do not each get all; what is not used comes back when one ends."""
    share = {"settings": {"allocation": {"steps": 4}}}
    made = flow(subflow("c", "x", **share), subflow("d", "y", on_error="continue"), call("e", "c"))
    shell = Shell(made, allocation=Allocation(steps=10))
    one, other = shell.run.steps["c"].grant, shell.run.steps["d"].grant
    assert one is not None
    assert other is not None
    assert (one.steps, other.steps) == (4, 4)
    taken(shell)
    ended(shell, usage=Usage(attempts=1))
    assert shell.state("e") == "SCHEDULED"
    shell.check()


def test_its_events_say_all() -> None:
    """V12, A11: what is stored gives the same state, and old journals without children are read as ever."""
    shell = Shell(flow(subflow("c", "other", settings={"allocation": {"steps": 3}})), allocation=Allocation(steps=9))
    taken(shell)
    shell.tell(Pause(command_id="p"))
    shell.tell(ReportTold(attempt_id=shell.attempt_id("c"), paused=True))
    machine, batch = RunMachine(), EventBatch()
    for seq, (event, time) in enumerate(shell.journal, 1):
        batch.events.add().ParseFromString(machine.encode(event, seq, time))
    read = [(event, time) for _, time, event in machine.decode(batch.SerializeToString())]
    assert read == shell.journal
    assert dump(fold(shell.flow, read)) == dump(shell.run)
