"""Generations of a run, and other versions of its flow."""

from __future__ import annotations

import pytest
from tierflow_flow import Flow, parse
from tierflow_orchestrator.core import dump
from tierflow_orchestrator.core.commands import Cancel, Migrate, Pause, Resume, Retry, SetBreakpoints, Update, WakeUp
from tierflow_orchestrator.core.events import RunEnded, RunStateChanged
from tierflow_runtime.values import Allocation, RetryPolicy
from tierflow_testing.history import check_history, shape_of

from .fakes import SECOND, START, Shell, Value, call, flow, map_
from .invariants import check_invariants
from .steered import sound

# --- the next generation ---


def test_retry_keeps_what_completed() -> None:
    """C9, R31: FAILED to QUEUED in generation 2: completed steps keep their results, the others run again; one end for each generation."""
    shell = Shell(flow(call("a"), call("b", "a"), call("c", "b"), call("d", "a"), retry=RetryPolicy(max_attempts=1)))
    shell.complete("a", '"kept"')
    shell.complete("d")
    shell.fail("b")
    assert shell.run.state == "FAILED"
    used = shell.run.usage
    reply = shell.tell(Retry(command_id="again", actor="ann", reason="mended", generation=2)).reply
    assert (reply.applied, reply.generation, shell.run.state) == (True, 2, "RUNNING")
    assert shell.states() == {"a": "COMPLETED", "b": "SCHEDULED", "c": "PENDING", "d": "COMPLETED"}
    assert shell.attempt_id("b").endswith("/b/2")
    sound(shell)
    for again in (Retry(command_id="again"), Retry(command_id="other", generation=2)):
        decision = shell.tell(again)
        assert decision.reply.applied
        assert not decision.events
    shell.run = shell.folded()
    shell.complete("b")
    shell.complete("c")
    assert (shell.run.state, shell.run.outcome, shell.run.generation) == ("COMPLETED", "SUCCESS", 2)
    assert shell.run.usage.credits == used.credits + 10
    assert [end.to for end in shell.events(RunEnded)] == ["FAILED", "COMPLETED"]
    moves = [(e.to, e.generation) for e in shell.events(RunStateChanged) if e.generation]
    assert moves == [("QUEUED", 2)]
    sound(shell, complete=True)


def test_retry_of_a_map_keeps_its_items() -> None:
    """C9: of a map only the items that did not complete run again, at most so many at once."""
    shell = Shell(flow(map_("m", 6, concurrency=2), call("z", "m")))
    shell.complete("m[1]", '"one"')
    shell.complete("m[2]", '"two"')
    shell.fail("m[0]")
    shell.cancelled("m[3]")
    assert shell.run.state == "FAILED"
    shell.tell(Retry(command_id="again"))
    assert shell.run.live.keys() == {"m[0]", "m[3]"}
    sound(shell)
    for step_id in ("m[0]", "m[3]", "m[4]", "m[5]"):
        assert len(shell.run.live) <= 2
        shell.complete(step_id)
        sound(shell)
    shell.complete("z")
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


def test_retry_of_a_map_whose_items_come_from_what_runs_again() -> None:
    """C9, R23: items that are made anew get epochs that were never used: no attempt id comes twice."""
    shell = Shell(
        flow(
            call("a", on_error="stop"), map_("m", 2, "a", condition=Value(True), always=True), failure_policy="CONTINUE"
        )
    )
    shell.fail("a")
    shell.complete("m[0]")
    shell.fail("m[1]")
    assert shell.run.state == "FAILED"
    shell.tell(Retry(command_id="again"))
    assert shell.states()["m"] == "PENDING"
    shell.complete("a")
    assert shell.attempt_id("m[0]").endswith("/m[0]/2")
    shell.complete("m[0]")
    shell.complete("m[1]")
    assert shell.run.state == "COMPLETED"
    sound(shell, complete=True)


def test_retry_after_the_deadline() -> None:
    """C9, G10: what bounds a run relative to its start counts from the retry; an absolute end may be given anew."""
    shell = Shell(flow(call("a"), run_timeout=60 * SECOND))
    shell.now += 61 * SECOND
    shell.tell(WakeUp())
    shell.cancelled("a")
    assert shell.run.failure is not None
    assert shell.run.failure.code == "DEADLINE_EXCEEDED"
    shell.tell(Retry(command_id="again", deadline=shell.now + 5 * SECOND))
    assert shell.run.state == "RUNNING"
    assert shell.run.deadline == shell.run.steer.deadline  # type: ignore[union-attr]
    shell.now += 6 * SECOND
    shell.tell(WakeUp())
    shell.cancelled("a")
    assert shell.run.state == "FAILED"
    shell.tell(Retry(command_id="third"))
    assert shell.run.deadline is not None
    assert shell.run.deadline > shell.now + 59 * SECOND
    shell.complete("a")
    assert (shell.run.state, shell.run.generation) == ("COMPLETED", 3)
    sound(shell, complete=True)


def test_retry_of_other_ends() -> None:
    """C9: only FAILED; COMPLETED and CANCELLED are refused with STATE_CONFLICT, and nothing is written."""
    done = Shell(flow(call("a")))
    done.complete("a")
    gone = Shell(flow(call("a")))
    gone.tell(Cancel(command_id="c"))
    gone.cancelled("a")
    for shell in (done, gone, Shell(flow(call("a")))):
        decision = shell.tell(Retry(command_id="again"))
        assert not decision.events
        assert not decision.reply.applied
        assert decision.reply.failure is not None
        assert decision.reply.failure.code == "STATE_CONFLICT"
        assert shell.run.state in decision.reply.failure.message


def test_an_exhausted_budget_can_be_raised_by_a_retry() -> None:
    """C12, C9: `steps` bounds attempts over all generations; an update lets a retried run go on."""
    shell = Shell(flow(call("a"), call("b", "a")), allocation=Allocation(steps=1))
    shell.complete("a")
    assert shell.run.state == "FAILED"
    shell.auto = False
    shell.tell(Retry(command_id="1"))
    shell.tell(Update(command_id="2", steps=3))
    shell.auto = True
    shell.assign()
    shell.complete("b")
    assert (shell.run.state, shell.now > START) == ("COMPLETED", True)
    sound(shell, complete=True)


# --- another version of the flow ---

BEFORE = """
name: test
version: "1"
steps:
  a: {call: h}
  b: {call: h, needs: [a]}
  c: {call: h, needs: [b]}
"""


def version(text: str) -> Flow:
    return parse(text, "yaml")


def at_b() -> Shell:
    """A run that is PAUSED after its first step."""
    shell = Shell(version(BEFORE))
    shell.tell(Pause(command_id="p"))
    shell.complete("a", '"kept"')
    assert shell.run.state == "PAUSED"
    return shell


def migrate(after: Flow, command_id: str = "m", *, only_check: bool = False) -> Migrate:
    return Migrate(command_id=command_id, definition=after.canonical, flow=after, actor="ann", only_check=only_check)


def test_a_paused_run_goes_on_with_another_version() -> None:
    """Q21: what has ended is kept; steps that are new run, steps that are gone do not; the difference is shown before anything is done."""
    after = version(
        BEFORE.replace('"1"', '"2"')
        .replace("  b: {call: h, needs: [a]}", "  b: {call: h2, needs: [a]}\n  n: {call: h, needs: [b]}")
        .replace("  c: {call: h, needs: [b]}\n", "")
    )
    shell = at_b()
    shown = shell.tell(migrate(after, "check", only_check=True))
    assert not shown.events
    assert shown.reply.difference is not None
    d = shown.reply.difference
    assert (d.added, d.removed, d.changed) == (("n",), ("c",), ("b",))
    reply = shell.tell(migrate(after)).reply
    assert reply.applied
    assert reply.difference == d
    assert (shell.run.flow_version, shell.run.state) == ("2", "PAUSED")
    check_invariants(shell.run)
    shell.check()
    assert not check_history(shell.journal, {spec.id: spec.needs for spec in shell.flow.steps})
    shell.run = shell.folded()
    shell.tell(Resume(command_id="r"))
    assert shell.run.steps["b"].handler == "h2"
    shell.complete("b")
    shell.complete("n")
    assert (shell.run.state, shell.run.output) == ("COMPLETED", '{"n":1}')
    assert shell.run.steps["a"].output == '"kept"'
    assert not check_history(shell.journal, {spec.id: spec.needs for spec in shell.flow.steps}, complete=True)


def test_what_was_interrupted_goes_on_as_the_new_version_says() -> None:
    """Q21, G6: a step between two attempts is defined anew; its attempts and its bill are what they were."""
    shell = Shell(version(BEFORE))
    shell.tell(Pause(command_id="p", interrupt=True))
    shell.cancelled("a")
    after = version(BEFORE.replace('"1"', '"2"').replace("  a: {call: h}", "  a: {call: h2}"))
    assert shell.tell(migrate(after)).reply.applied
    assert shell.state("a") == "READY"
    shell.run = shell.folded()
    shell.tell(Resume(command_id="r"))
    step = shell.run.steps["a"]
    assert (step.handler, step.attempt, step.epoch, step.usage.attempts) == ("h2", 1, 2, 1)
    for step_id in ("a", "b", "c"):
        shell.complete(step_id)
    assert shell.run.state == "COMPLETED"
    assert not check_history(shell.journal, {spec.id: spec.needs for spec in shell.flow.steps}, complete=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BEFORE.replace("name: test", "name: other"), "another flow"),
        (BEFORE.replace("  a: {call: h}\n", "").replace(", needs: [a]", ""), "not part of this version"),
        (BEFORE.replace("  a: {call: h}", "  a: {wait: 1s}"), "kind call, not wait"),
        (
            BEFORE.replace("  a: {call: h}", "  a: {call: h, needs: [n]}\n  n: {call: h}"),
            "needs n, which has not ended",
        ),
    ],
)
def test_versions_in_which_it_could_not_have_been(text: str, why: str) -> None:
    """Q21: refused with all reasons, and nothing has changed."""
    shell = at_b()
    before = dump(shell.run)
    decision = shell.tell(migrate(version(text)))
    assert not decision.events
    assert decision.reply.failure is not None
    assert why in decision.reply.failure.message
    assert dump(shell.run) == before


NESTED = """
name: test
version: "1"
steps:
  g: {steps: {x: {call: h}, y: {call: h, needs: [x]}}}
  z: {call: h, needs: [g]}
"""


def test_what_is_held_within_a_block_stays_held() -> None:
    """Q21, S6, V13, V18: a migration forgets no breakpoint at which a step waits, so that resuming lets it go."""
    shell = Shell(version(NESTED))
    shell.tell(SetBreakpoints(command_id="b", breakpoints=("g/y",)))
    shell.complete("g/x")
    assert (shell.run.state, shell.run.steps["g/y"].held) == ("PAUSED", True)
    after = version(NESTED.replace('"1"', '"2"') + "  n: {call: h, needs: [z]}\n")
    assert shell.tell(migrate(after)).reply.applied
    check_invariants(shell.run)
    shell.check()
    shell.run = shell.folded()
    shell.tell(Resume(command_id="r"))
    for step_id in ("g/y", "z", "n"):
        shell.complete(step_id)
    assert shell.run.state == "COMPLETED"


HANDLED = """
name: test
version: "1"
steps:
  a: {call: h, retry: {max_attempts: 1}, on_error: {goto: r, then: retry, calls: 2}}
  r: {call: h}
"""


def test_handlers_that_were_called_are_not_forgotten() -> None:
    """Q21, V6, V48: after a migration the next call of a step that handles errors has another id than the ones before, and counts with them."""
    shell = Shell(version(HANDLED))
    shell.fail("a")
    shell.tell(Pause(command_id="p"))
    shell.complete("a!/r")
    assert (shell.run.state, shell.state("a")) == ("PAUSED", "READY")
    after = version(HANDLED.replace('"1"', '"2"') + "  n: {call: h, needs: [a]}\n")
    assert shell.tell(migrate(after)).reply.applied
    shell.run = shell.folded()
    shell.tell(Resume(command_id="q"))
    shell.fail("a")
    assert shell.state("a!2/r") == "SCHEDULED"
    shell.complete("a!2/r")
    shell.fail("a")
    assert shell.run.state == "FAILED", "it may be called twice, whatever the version"
    assert not check_history(shell.journal, **shape_of(after), complete=True)


GROWING = """
name: test
version: "1"
steps:
  p: {call: h, grows: true}
  z: {call: h, needs: [p]}
"""


def test_what_has_grown_goes_on_in_another_version() -> None:
    """Q21, V13: the new version has what grew below its steps, too; one in which that could not have grown is refused."""
    shell = Shell(version(GROWING))
    shell.complete("p", '{"steps": {"x": {"call": "h"}, "y": {"call": "h", "needs": "x"}}}')
    shell.tell(Pause(command_id="p"))
    shell.complete("p/x")
    assert shell.run.state == "PAUSED"
    other = version(GROWING.replace('"1"', '"3"').replace(", grows: true", ""))
    refused = shell.tell(migrate(other, "no")).reply
    assert refused.failure is not None
    after = version(GROWING.replace('"1"', '"2"') + "  n: {call: h, needs: [z]}\n")
    assert shell.tell(migrate(after)).reply.applied
    check_invariants(shell.run)
    shell.check()
    shell.run = shell.folded()
    shell.tell(Resume(command_id="r"))
    for step_id in ("p/y", "z", "n"):
        shell.complete(step_id)
    assert shell.run.state == "COMPLETED"
