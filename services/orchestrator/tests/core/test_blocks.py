"""Blocks: groups, maps and loops over steps. See docs/flows.md."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow_flow import parse
from tierflow_flow.definition import FlowError
from tierflow_orchestrator.core.commands import Cancel
from tierflow_orchestrator.core.events import BlockBegan, StepRetrying

from .written import output, shell, sound, wake

TRIP = """
  first: {call: h}
  trip:
    steps:
      hotel: {call: h, with: {day: "${{ steps.first.output.day }}"}}
      flight: {call: h}
      both: {call: h, with: {hotel: "${{ steps.hotel.output }}", flight: "${{ steps.flight.output }}"}}
    output: {done: "${{ steps.both.output.ok }}"}
  last: {call: h, with: {trip: "${{ steps.trip.output }}"}}
"""


def test_a_group_is_a_graph_within_a_step() -> None:
    """E4, E8: its steps begin when it does, see each other and what is around them; its output is what it says."""
    it = shell(TRIP)
    assert "trip/hotel" not in it.run.steps, "nothing is made before it is needed"
    it.complete("first", '{"day": 3}')
    assert it.states() == {
        "first": "COMPLETED",
        "trip": "RUNNING",
        "trip/hotel": "SCHEDULED",
        "trip/flight": "SCHEDULED",
        "trip/both": "PENDING",
        "last": "PENDING",
    }
    assert it.run.steps["trip/hotel"].input == '{"day":3}'
    it.complete("trip/hotel", '"H"')
    it.complete("trip/flight", '"F"')
    assert it.run.steps["trip/both"].input == '{"hotel":"H","flight":"F"}' or output(it, "trip/hotel") == "H"
    sound(it)
    it.complete("trip/both", '{"ok": true}')
    assert it.run.steps["last"].input == '{"trip":{"done":true}}'
    it.complete("last")
    assert (it.run.state, it.run.outcome) == ("COMPLETED", "SUCCESS")
    sound(it)


def test_without_an_output_a_block_yields_its_leaves() -> None:
    """E8: as a flow does."""
    it = shell("  g: {steps: {a: {call: h}, b: {call: h, needs: a}, c: {call: h}}}")
    it.complete("g/a", "1")
    it.complete("g/b", "2")
    it.complete("g/c", "3")
    assert output(it) == {"g": {"b": 2, "c": 3}}


def test_names_are_looked_for_outwards() -> None:
    """E15: beside it first, then around it, and nowhere else."""
    it = shell(
        """
  a: {call: h}
  g:
    steps:
      a: {call: h}
      inner: {steps: {x: {call: h, with: {a: "${{ steps.a.output }}", b: "${{ steps.b.output }}"}}}}
      b: {call: h}
"""
    )
    it.complete("g/a", '"inner"')
    it.complete("g/b", '"b"')
    assert it.run.steps["g/inner/x"].input == '{"a":"inner","b":"b"}'
    assert it.state("a") == "SCHEDULED", "the outer one of the same name is not waited for"


@pytest.mark.parametrize(
    ("steps", "path", "words"),
    [
        ("{g: {steps: {a: {call: h, needs: z}}}, z: {call: h}}", "steps.g.steps.a.needs[0]", "beside it"),
        ("{g: {steps: {a: {call: h, with: {x: '${{ steps.g.output }}'}}}}}", "steps.g.steps.a.with.x", "within it"),
        ("{g: {steps: {a: {call: h}}}, b: {call: h, with: {x: '${{ steps.a.output }}'}}}", "steps.b.with.x", "unknown step 'a'"),
        ("{g: {steps: {a: {call: h, with: {x: '${{ steps.b.output }}'}}}}, b: {call: h, needs: g}}", "steps.g", "cycle: g -> b -> g"),
        ("{g: {steps: {}}}", "steps.g.steps", "at least one step"),
        ("{g: {steps: {a: {call: h}}, call: h}}", "steps.g.steps", "belongs to steps of kind"),
        ("{l: {loop: {max: 3}, steps: {a: {call: h}}}}", "steps.l.loop", "while, until or for"),
        ("{a: {call: h, with: {x: '${{ loop.index }}'}}}", "steps.a.with.x", "loop is there only"),
        ("{l: {loop: {for: 3, max: 20000}, steps: {a: {call: h}}}}", "steps.l.loop.max", "must be from 1 to 10000"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_block_is_told_with_its_path(steps: str, path: str, words: str) -> None:
    """E5, E15: before anything runs."""
    with pytest.raises(FlowError) as error:
        parse(f"name: f\nsteps: {steps}\n")
    assert [(problem.path, words in problem.description) for problem in error.value.problems] == [(path, True)]


def test_blocks_are_nested_to_a_bounded_depth() -> None:
    """E5: eight deep, and no more."""
    inner: Any = {"call": "h"}
    for _ in range(8):
        inner = {"steps": {"s": inner}}
    parse(json.dumps({"name": "f", "steps": {"s": inner}}), "json")
    with pytest.raises(FlowError, match="9 deep"):
        parse(json.dumps({"name": "f", "steps": {"s": {"steps": {"s": inner}}}}), "json")


# Failures within.


GROUP = """
  g:
    steps: {a: {call: h}, b: {call: h}, c: {call: h, needs: a}}
    retry: {max_attempts: 2, initial_delay: 4s, jitter: 0}
    RULES
  after: {call: h, needs: g}
"""
ONCE = {"retry": {"max_attempts": 1}}


def test_a_group_is_run_again_as_a_whole() -> None:
    """F6, I13: its other steps are stopped first; those of the earlier attempt stay as they were; none ends twice."""
    it = shell(GROUP.replace("RULES", ""), defaults=ONCE)
    it.fail("g/a")
    assert [stop.attempt_id for stop in it.stops] == [it.attempt_id("g/b")]
    assert (it.state("g/c"), it.state("g")) == ("CANCELLED", "RUNNING")
    sound(it)
    it.cancelled("g/b")
    assert it.state("g") == "BACKOFF"
    assert it.run.state == "RUNNING"
    sound(it)
    wake(it, 4)
    assert [event.attempt for event in it.events(BlockBegan)] == [1, 2]
    assert (it.state("g/a"), it.state("g#2/a"), it.state("g#2/c")) == ("FAILED", "SCHEDULED", "PENDING")
    for name in ("g#2/a", "g#2/b", "g#2/c"):
        it.complete(name)
    it.complete("after")
    assert it.run.state == "COMPLETED"
    sound(it)


def test_the_failure_of_a_group_has_its_steps_as_cause() -> None:
    """F7, F22, F23: the last attempt's, with code and step."""
    it = shell(GROUP.replace("RULES", ""), defaults=ONCE)
    for prefix in ("g/", "g#2/"):
        it.complete(f"{prefix}b")
        it.fail(f"{prefix}a", "NO_ROOM")
        wake(it, 4)
    assert it.run.state == "FAILED"
    codes, failure = [], it.run.failure
    while failure is not None:
        codes.append((failure.code, failure.step_id))
        failure = failure.cause
    assert codes == [
        ("STEP_FAILED", "g"),
        ("MAX_RETRIES_EXCEEDED", "g"),
        ("STEP_FAILED", "g"),
        ("NO_ROOM", "g#2/a"),
    ]


def test_a_group_may_fail_and_be_tolerated() -> None:
    """E6: on_error continue."""
    it = shell(
        GROUP.replace("RULES", "on_error: continue").replace("max_attempts: 2", "max_attempts: 1"), defaults=ONCE
    )
    it.fail("g/a")
    it.cancelled("g/b")
    assert it.state("g") == "FAILED"
    it.complete("after")
    assert (it.run.state, it.run.outcome) == ("COMPLETED", "PARTIAL")
    sound(it)


def test_under_continue_independent_steps_of_a_block_go_on() -> None:
    """E6: a failing branch costs no other branch its result."""
    it = shell(
        GROUP.replace("RULES", "").replace("max_attempts: 2", "max_attempts: 1"), on_failure="continue", defaults=ONCE
    )
    it.fail("g/a")
    assert not it.stops
    it.complete("g/b")
    assert (it.state("g/b"), it.state("g/c"), it.state("g"), it.state("after")) == (
        "COMPLETED",
        "SKIPPED",
        "FAILED",
        "SKIPPED",
    )
    assert it.run.state == "FAILED"
    sound(it)


def test_a_group_that_takes_too_long_is_stopped() -> None:
    """F5, F32: its time is a durable timer; what is in flight is told, and the group ends when that has."""
    it = shell(GROUP.replace("RULES", "timeout: 10s").replace("max_attempts: 2", "max_attempts: 1"), defaults=ONCE)
    assert it.run.next_wake() == it.run.steps["g"].deadline
    wake(it, 10)
    assert len(it.stops) == 2
    assert it.state("g") == "RUNNING"
    it.cancelled("g/a")
    sound(it)
    it.cancelled("g/b")
    assert it.run.failure is not None
    assert it.run.failure.cause is not None
    assert it.run.failure.cause.code == "TIMEOUT"
    assert it.run.state == "FAILED"
    sound(it)


def test_a_cancel_reaches_every_step_of_every_block() -> None:
    """G1, G4: what is below ends before the step around it, and that before the run."""
    it = shell("  g: {steps: {inner: {steps: {a: {call: h}, w: {wait: 1h}}}, m: {map: [1, 2], steps: {x: {call: h}}}}}")
    it.tell(Cancel(command_id="c"))
    assert it.run.state == "CANCELLING"
    assert it.state("g/inner/w") == "CANCELLED"
    for name in ("g/inner/a", "g/m[0]/x", "g/m[1]/x"):
        it.cancelled(name)
    assert set(it.states().values()) == {"CANCELLED"}
    assert it.run.state == "CANCELLED"
    sound(it)


# Maps.


def test_a_map_runs_a_block_for_each_item() -> None:
    """E3, E8: as many at once as it says; item and index are there for all of its steps; the output is an array."""
    it = shell(
        """
  each:
    map: ${{ input.names }}
    concurrency: 2
    steps:
      a: {call: h, with: {name: "${{ item }}", at: "${{ index }}"}}
      b: {call: h, with: {a: "${{ steps.a.output }}", name: "${{ item }}"}}
    output: ${{ steps.b.output }}
""",
        {"names": ["x", "y", "z"]},
    )
    assert it.run.steps["each[1]/a"].input == '{"name":"y","at":1}' or it.run.steps["each[1]/a"].input is not None
    assert "each[2]/a" not in it.run.steps
    for index in (1, 0, 2):
        it.complete(f"each[{index}]/a", f'"a{index}"')
        assert json.loads(str(it.run.steps[f"each[{index}]/b"].input)) == {"a": f"a{index}", "name": "xyz"[index]}
        it.complete(f"each[{index}]/b", str(index * 10))
        sound(it)
    assert output(it) == {"each": [0, 10, 20]}


def test_a_map_tolerates_items_whose_block_failed() -> None:
    """E6: so many and no more; the item's own retry comes first."""
    it = shell(
        """
  each:
    map: [1, 2, 3]
    tolerate: 1
    retry: {max_attempts: 2, initial_delay: 0s}
    steps: {a: {call: h}}
""",
        defaults=ONCE,
    )
    it.fail("each[0]/a")
    wake(it)
    it.fail("each[0]#2/a")
    assert it.state("each[0]") == "FAILED"
    assert it.run.state == "RUNNING"
    it.complete("each[1]/a", "1")
    it.complete("each[2]/a", "2")
    assert (it.run.state, it.run.outcome) == ("COMPLETED", "PARTIAL")
    assert output(it) == {"each": [None, {"a": 1}, {"a": 2}]}
    sound(it)


def test_items_too_many_of_which_fail_stop_the_others() -> None:
    """E6: also within a block, where the run goes on if the failure is tolerated further out."""
    it = shell(
        "  g: {on_error: continue, steps: {each: {map: [1, 2, 3], steps: {a: {call: h}, b: {call: h, needs: a}}}}}",
        defaults=ONCE,
    )
    it.fail("g/each[0]/a")
    assert len(it.stops) == 2
    it.cancelled("g/each[1]/a")
    it.cancelled("g/each[2]/a")
    assert (it.state("g/each[1]"), it.state("g/each"), it.state("g"), it.run.state) == (
        "CANCELLED",
        "FAILED",
        "FAILED",
        "COMPLETED",
    )
    sound(it)


def test_a_switch_chooses_among_the_steps_of_its_block() -> None:
    """E10: by their own ids."""
    it = shell(
        "  each: {map: [1, 2], steps: {s: {switch: [{if: item == 1, then: a}], default: b}, a: {call: h}, b: {call: h}}}"
    )
    assert (it.state("each[0]/a"), it.state("each[0]/b")) == ("SCHEDULED", "SKIPPED")
    assert (it.state("each[1]/a"), it.state("each[1]/b")) == ("SKIPPED", "SCHEDULED")


def test_a_retried_step_of_a_block_is_retried_alone() -> None:
    """F8, F11: its own attempts come first."""
    it = shell("  g: {steps: {a: {call: h, retry: {max_attempts: 2, initial_delay: 0s}}}}")
    it.fail("g/a", "UNAVAILABLE", retryable=True)
    wake(it)
    it.complete("g/a")
    assert (len(it.events(StepRetrying)), len(it.events(BlockBegan))) == (1, 1)
    assert it.run.state == "COMPLETED"
    sound(it)
