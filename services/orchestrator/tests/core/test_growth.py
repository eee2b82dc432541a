"""Steps that return further steps. See docs/flows.md."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow_flow import parse
from tierflow_flow.definition import FlowError
from tierflow_orchestrator.core import dump, load
from tierflow_orchestrator.core.commands import Cancel, Retry
from tierflow_orchestrator.core.events import StepGrown
from tierflow_orchestrator.core.growth import whole
from tierflow_orchestrator.wire import encode_event
from tierflow_testing.history import check_history, shape_of

from .fakes import START, Shell, create
from .written import output, shell, sound

ONCE = {"retry": {"max_attempts": 1}}
PLANNED = """
  ask: {call: h}
  plan: {call: p, needs: ask, grows: true}
  tell: {call: h, with: {all: "${{ steps.plan.output }}"}}
"""
GROWN: dict[str, Any] = {
    "steps": {
        "look": {"call": "h", "with": {"for": "${{ steps.ask.output.what }}"}, "compensate": {"call": "h"}},
        "each": {"map": "${{ steps.look.output }}", "steps": {"read": {"call": "h", "with": {"it": "${{ item }}"}}}},
    },
    "output": {"read": "${{ steps.each.output }}"},
}


def planning(grown: Any, steps: str = PLANNED, **keys: Any) -> Shell:
    """A run in which the plan has come."""
    it = shell(steps, defaults=ONCE, **keys)
    it.complete("ask", '{"what": "cats"}')
    it.complete("plan", json.dumps(grown))
    return it


def test_what_a_step_returns_begins_below_it() -> None:
    """E8, E9: the plan is made while the run is under way; what waits for the step waits for all of it, and sees what it yields."""
    it = planning(GROWN)
    assert (it.state("plan"), it.state("plan/look"), it.state("plan/each")) == ("RUNNING", "SCHEDULED", "PENDING")
    assert it.run.steps["plan/look"].input == '{"for":"cats"}'
    sound(it)
    it.complete("plan/look", "[1, 2]")
    it.complete("plan/each[0]/read", '"a"')
    it.complete("plan/each[1]/read", '"b"')
    assert it.run.steps["tell"].input == '{"all":{"read":[{"read":"a"},{"read":"b"}]}}'
    it.complete("tell")
    assert it.run.state == "COMPLETED"
    sound(it)
    assert not check_history(it.journal, **shape_of(parse_again(PLANNED)), complete=True)


def parse_again(steps: str) -> Any:
    """The flow as it was before anything grew."""
    return shell(steps).flow


def test_a_restart_knows_what_has_grown() -> None:
    """K7, R16: from the snapshot, and from the journal; the flow that other runs share is what it was."""
    it = planning(GROWN)
    assert "plan/look" not in it.flow.by_id
    again = load(dump(it.run))
    again.flow = whole(again, it.flow)
    assert again.spec(again.steps["plan/look"]).handler == "h"
    assert dump(again) == dump(it.run)
    it.check()
    event = it.events(StepGrown)[0]
    assert encode_event(event, 1, START)


def test_what_is_no_plan_is_an_output() -> None:
    """E9: a step that may return steps need not."""
    it = planning({"nothing": "to do"})
    assert output(it, "plan") == {"nothing": "to do"}
    assert it.state("tell") == "SCHEDULED"


@pytest.mark.parametrize(
    ("grown", "words"),
    [
        ({"steps": {}}, "at least one step"),
        ({"steps": {"a": {"call": "other"}}}, "other may not be called by what grows here"),
        ({"steps": {"a": {"call": "h", "needs": "b"}, "b": {"call": "h", "needs": "a"}}}, "cycle: a -> b -> a"),
        ({"steps": {"a": {"call": "h", "with": {"x": "${{ steps.tell.output }}"}}}}, "unknown step 'tell'"),
        ({"steps": {"a": {"call": "p", "grows": True}}}, "not within a block"),
        ({"steps": {"a": {"cal": "h"}}}, "unknown key"),
        ({"steps": {f"s{n}": {"call": "h"} for n in range(1_001)}}, "at most 1000 may grow"),
    ],
)
def test_a_plan_is_checked_as_a_flow_is(grown: Any, words: str) -> None:
    """E5, E9, F20: what is wrong with it fails the attempt, with path and words; nothing of it begins."""
    it = planning(grown)
    failure = it.run.steps["plan"].failure
    assert failure is not None
    assert failure.code == "OUTPUT_INVALID"
    assert words in failure.message
    assert failure.violations
    assert not [step_id for step_id in it.run.steps if step_id.startswith("plan/")]
    assert it.run.state == "FAILED"
    sound(it)


def test_a_bad_plan_is_asked_for_again() -> None:
    """F20, F6: a retry can help, as with every output that does not match."""
    it = shell(PLANNED, defaults={"retry": {"max_attempts": 2, "initial_delay": "0s"}})
    it.complete("ask", '{"what": 1}')
    it.complete("plan", '{"steps": {}}')
    assert it.state("plan") == "SCHEDULED" or it.state("plan") == "BACKOFF"


def test_a_list_says_which_handlers_a_plan_may_call() -> None:
    """E9, L12: others than those of the flow, and only those; they are among what must be there."""
    steps = PLANNED.replace("grows: true", "grows: [search, read]")
    assert parse_again(steps).handlers == ("h", "p", "read", "search")
    assert planning({"steps": {"a": {"call": "search"}}}, steps).state("plan/a") == "SCHEDULED"
    assert planning({"steps": {"a": {"call": "h"}}}, steps).run.state == "FAILED"


def test_what_has_grown_fails_is_handled_and_is_undone_as_a_block_is() -> None:
    """E11, K4: with the step as the block's."""
    steps = PLANNED.replace("grows: true", "grows: true, on_error: {goto: rescue}") + "  rescue: {call: h}\n"
    it = planning({"steps": {"a": {"call": "h", "compensate": {"call": "h"}}, "b": {"call": "h", "needs": "a"}}}, steps)
    it.complete("plan/a")
    it.fail("plan/b")
    assert it.state("plan!/rescue") == "SCHEDULED"
    it.complete("plan!/rescue", '"instead"')
    it.fail("tell")
    assert (it.run.state, it.state("plan/a")) == ("COMPENSATING", "COMPENSATING")
    it.complete("plan/a!compensate")
    assert it.run.state == "FAILED"
    sound(it)


def test_a_cancel_reaches_what_has_grown() -> None:
    """G4."""
    it = planning(GROWN)
    it.tell(Cancel(command_id="c"))
    it.cancelled("plan/look")
    assert (it.run.state, it.state("plan")) == ("CANCELLED", "CANCELLED")
    sound(it)


def test_where_steps_may_not_grow() -> None:
    """E5: within blocks, and where a handler would have the step begin anew."""
    for steps, words in (
        ("{g: {steps: {p: {call: x, grows: true}}}}", "not within a block"),
        ("{p: {call: x, grows: true, on_error: {goto: r, then: retry}}, r: {call: y}}", "does not begin again"),
    ):
        with pytest.raises(FlowError, match=words):
            parse(f"name: f\nsteps: {steps}")
    assert create(parse("name: f\nsteps: {p: {call: x, grows: false}}")).flow_name == "f"


def test_a_retry_asks_for_another_plan() -> None:
    """R31, K2: in another generation; nothing of the first one is left below the step but its bill."""
    it = planning({"steps": {"a": {"call": "h"}}})
    it.fail("plan/a")
    assert it.run.state == "FAILED"
    it.tell(Retry(command_id="r", generation=2))
    assert "plan/a" not in it.run.steps
    it.complete("plan", '{"steps": {"a": {"call": "h", "if": true}, "b": {"call": "h", "needs": "a"}}}')
    it.complete("plan/a")
    it.complete("plan/b")
    it.complete("tell")
    assert it.run.state == "COMPLETED"
    sound(it)
    assert not check_history(it.journal, **shape_of(parse_again(PLANNED)), complete=True)
    assert len({effect.attempt_id for effect in it.dispatched}) == len(it.dispatched), "R23"
