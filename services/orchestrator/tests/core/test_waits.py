"""Waits: durable timers. See E13, R15 and docs/flows.md."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core import Run, decide, dump, load
from tierflow_orchestrator.core.commands import AssignSlot, Cancel, Pause, ReportResult, Resume, WakeUp
from tierflow_orchestrator.core.events import StepCompleted, StepWaiting
from tierflow_orchestrator.machine import is_waiting
from tierflow_runtime.values import Payload

from .fakes import RUN_ID, SECOND, START, call, create, flow, fold, wait


def begun(*specs: Any, **more: Any) -> Run:
    """A run of these steps, created at START."""
    made = flow(*specs, **more)
    run = Run.fresh(RUN_ID)
    run.flow = made
    decide(run, create(made), START)
    return run


def written(text: str, given: Payload = "{}") -> Run:
    """A run of a flow in the language."""
    made = parse(f"name: f\nsteps: {{w: {{wait: {text}}}}}")
    run = Run.fresh(RUN_ID)
    run.flow = made
    decide(run, create(made, input=given), START)
    return run


def test_a_run_that_only_waits_is_suspended_and_parked() -> None:
    """E13, R15: with the reason and the moment at which it goes on; its step says what it waits for."""
    run = begun(wait("w", "5s"), call("next", "w"))
    assert (run.state, run.reason) == ("SUSPENDED", "TIMER: w")
    assert (run.steps["w"].state, run.steps["w"].reason) == ("RUNNING", "TIMER")
    assert run.next_wake() == START + 5 * SECOND
    assert is_waiting(run)
    decide(run, WakeUp(), START + 5 * SECOND)
    assert run.state == "RUNNING"
    assert run.next_ready("h") == "next"


def test_a_timer_fires_once_at_its_moment_over_restarts() -> None:
    """E13, K7: not before, not twice, and the moment is the one that was journaled."""
    run = begun(wait("w", "5s"))
    early = decide(run, WakeUp(), START + 5 * SECOND - 1)
    assert not early.events
    again = load(dump(run))
    again.flow = run.flow
    assert again.next_wake() == START + 5 * SECOND
    fired = decide(again, WakeUp(), START + 9 * SECOND)
    assert [type(event) for event in fired.events].count(StepCompleted) == 1
    assert again.state == "COMPLETED"
    assert not decide(again, WakeUp(), START + 10 * SECOND).events


def test_the_journal_alone_gives_the_same_wait() -> None:
    """K7, Lesson 26: without a snapshot."""
    made = flow(wait("w", "5s"))
    run = Run.fresh(RUN_ID)
    run.flow = made
    journal = [(event, START) for event in decide(run, create(made), START).events]
    assert dump(fold(made, journal)) == dump(run)
    assert [event.until for event, _ in journal if isinstance(event, StepWaiting)] == [START + 5 * SECOND]


def test_other_work_goes_on_while_a_step_waits() -> None:
    """E4, E13: the run is SUSPENDED only once nothing else is to be done."""
    run = begun(wait("w", "5s"), call("a"))
    assert run.state == "RUNNING"
    decide(run, AssignSlot(step_id="a", executor_id="e"), START + 1)
    decide(run, ReportResult(attempt_id=run.steps["a"].attempt_id, state="COMPLETED", output="1"), START + 2)
    assert run.state == "SUSPENDED"
    decide(run, WakeUp(), START + 5 * SECOND)
    assert run.state == "COMPLETED"


def test_a_paused_run_keeps_its_timers_for_later() -> None:
    """G6, E13: nothing moves while it is paused; what came due meanwhile fires when it is resumed."""
    run = begun(wait("w", "5s"))
    assert decide(run, Pause(command_id="p"), START + 1).reply.state == "PAUSED"
    assert not decide(run, WakeUp(), START + 6 * SECOND).events
    resumed = decide(run, Resume(command_id="r"), START + 7 * SECOND)
    assert resumed.reply.applied
    assert run.next_wake() == START + 5 * SECOND
    decide(run, WakeUp(), START + 7 * SECOND)
    assert run.state == "COMPLETED"


def test_who_only_waits_cannot_be_resumed_but_cancelled() -> None:
    """G9, E13: there is no operator's question to answer."""
    run = begun(wait("w", "5s"))
    assert not decide(run, Resume(command_id="r"), START + 1).reply.applied
    decide(run, Cancel(command_id="c"), START + 2)
    assert (run.state, run.steps["w"].state) == ("CANCELLED", "CANCELLED")


@pytest.mark.parametrize(
    ("text", "given", "micros"),
    [
        ("2s", "{}", 2 * SECOND),
        ("{for: 1m30s}", "{}", 90 * SECOND),
        ('"${{ input.for }}"', '{"for": "250ms"}', SECOND // 4),
        ('{until: "2023-11-14T22:13:25Z"}', "{}", 5 * SECOND),
        ('{until: "2023-11-15T00:13:25+02:00"}', "{}", 5 * SECOND),
        ('{until: "${{ run.created_at + 7000000 }}"}', "{}", 7 * SECOND),
    ],
)
def test_moments(text: str, given: str, micros: int) -> None:
    """E13: durations, moments with a zone, microseconds; written or computed."""
    assert written(text, given).next_wake() == START + micros


@pytest.mark.parametrize("text", ["0s", '{until: "2000-01-01T00:00:00Z"}', '{until: "${{ 5 }}"}'])
def test_what_has_passed_is_no_wait(text: str) -> None:
    """E13: decided at once."""
    assert written(text).state == "COMPLETED"


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ('"${{ input.for }}"', '{"for": 3}'),
        ('"${{ input.for }}"', '{"for": "soon"}'),
        ('"${{ input.for }}"', '{"for": "367d"}'),
        ('"${{ input.nothing }}"', "{}"),
        ('{until: "${{ input.at }}"}', '{"at": "2030-01-01"}'),
        ('{until: "${{ true }}"}', "{}"),
    ],
)
def test_a_wait_that_cannot_be_computed_fails(text: str, given: str) -> None:
    """E15: typed, and for good."""
    run = written(text, given)
    failure = run.steps["w"].failure
    assert run.state == "FAILED"
    assert failure is not None
    assert failure.code == "EXPRESSION_FAILED"
