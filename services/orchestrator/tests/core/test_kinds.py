"""Kinds of steps that are decided at once: switch, emit, fail. See docs/flows.md."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow_flow import parse
from tierflow_flow.kinds import KINDS as LANGUAGE
from tierflow_orchestrator.core import Run, decide
from tierflow_orchestrator.core.events import EventEmitted, RunEvent, StepCompleted
from tierflow_orchestrator.core.kinds import KINDS
from tierflow_orchestrator.wire import encode_event

from .fakes import RUN_ID, START, create

REFUNDS = """
name: refunds
steps:
  route:
    switch:
      - {if: input.amount < 20, then: pay}
      - {if: input.amount < 500, then: [check, pay]}
    default: refuse
  pay: {emit: paid}
  check: {emit: checked}
  refuse: {fail: {code: TOO_MUCH, message: "${{ input.amount }} is too much.", retryable: true}, on_error: continue}
  report: {emit: reported, needs: [pay, check, refuse], if: always()}
"""


def lived(text: str, given: Any) -> tuple[Run, list[RunEvent]]:
    """A run of a flow that needs no executor, and its events."""
    made = parse(text)
    run = Run.fresh(RUN_ID)
    run.flow = made
    return run, list(decide(run, create(made, input=json.dumps(given)), START).events)


def states(run: Run) -> dict[str, str]:
    return {step.id: step.state for step in run.steps.values()}


def test_the_core_knows_every_kind_of_the_language() -> None:
    """E2: a kind is an entry in both registries."""
    assert set(KINDS) == set(LANGUAGE)


@pytest.mark.parametrize(
    ("amount", "output", "ran"),
    [
        (5, {"case": 0, "chosen": ["pay"]}, {"pay"}),
        (50, {"case": 1, "chosen": ["check", "pay"]}, {"pay", "check"}),
        (5000, {"case": None, "chosen": ["refuse"]}, {"refuse"}),
    ],
)
def test_a_switch_chooses_the_first_case_that_is_true(amount: int, output: Any, ran: set[str]) -> None:
    """E10, E13: the others are skipped, with the reason; what comes after goes on."""
    run, _ = lived(REFUNDS, {"amount": amount})
    assert json.loads(str(run.steps["route"].output)) == output
    assert {name for name in ("pay", "check", "refuse") if run.steps[name].state != "SKIPPED"} == ran
    assert all(step.reason == "route has not chosen it" for step in run.steps.values() if step.state == "SKIPPED")
    assert (run.state, run.steps["report"].state) == ("COMPLETED", "COMPLETED")


def test_a_switch_that_cannot_decide_chooses_nothing() -> None:
    """E15: it fails, and nobody runs by default."""
    run, _ = lived(REFUNDS, {})
    assert run.state == "FAILED"
    assert run.steps["route"].state == "FAILED"
    assert "COMPLETED" not in states(run).values()


def test_not_even_always_runs_what_is_not_chosen() -> None:
    """E10: a switch has the last word."""
    text = "name: f\nsteps: {s: {switch: [{if: false, then: a}]}, a: {emit: x, if: always()}}"
    assert states(lived(text, {})[0]) == {"s": "COMPLETED", "a": "SKIPPED"}


def test_one_switch_decides_about_a_step() -> None:
    """E5: two are refused."""
    text = "name: f\nsteps: {a: {emit: x}, s: {switch: [{if: true, then: a}]}, t: {switch: [{if: true, then: a}]}}"
    with pytest.raises(Exception, match="switch s decides about a already"):
        parse(text)


def test_emit_publishes_an_event_and_completes() -> None:
    """C5: the event is in the journal before the step's end, with name and payload."""
    text = 'name: f\nsteps: {tell: {emit: order.charged, with: {id: "${{ input.id }}"}}}'
    run, found = lived(text, {"id": "7"})
    emitted, completed = (event for event in found if isinstance(event, EventEmitted | StepCompleted))
    assert emitted == EventEmitted(step_id="tell", name="order.charged", payload='{"id":"7"}')
    assert isinstance(completed, StepCompleted)
    assert encode_event(emitted, 1, START)
    assert run.state == "COMPLETED"


def test_fail_ends_by_the_failure_that_the_flow_words() -> None:
    """F22, F23: code, message and retryable are the flow's; where it came from is told as always."""
    text = 'name: f\nsteps: {no: {fail: {code: TOO_MUCH, message: "${{ input.n }} is too much.", retryable: true}}}'
    run, _ = lived(text, {"n": 3})
    assert run.state == "FAILED"
    assert run.failure is not None
    cause = run.failure.cause
    assert cause is not None
    assert (cause.code, cause.message, cause.retryable, cause.step_id) == ("TOO_MUCH", "3 is too much.", True, "no")


def test_fail_may_be_tolerated() -> None:
    """E6: like every failure."""
    run, _ = lived("name: f\nsteps: {no: {fail: {code: NO}, on_error: continue}, a: {emit: x, needs: no}}", {})
    assert (run.state, run.outcome) == ("COMPLETED", "PARTIAL")
