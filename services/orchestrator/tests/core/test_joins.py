"""Joins, and what comes after a switch. See docs/flows.md."""

from __future__ import annotations

import itertools
import json

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core.commands import ReportLost
from tierflow_orchestrator.core.events import StepCancelled, StepStopping
from tierflow_testing.history import check_history, shape_of

from .fakes import Shell
from .invariants import check_invariants


def shell_of(text: str) -> Shell:
    return Shell(parse("name: t\n" + text, "yaml"))


def ended_well(shell: Shell) -> None:
    check_invariants(shell.run)
    shell.check()
    assert shell.run.ended
    assert not check_history(shell.journal, **shape_of(shell.flow), complete=True)


def given(shell: Shell, step_id: str) -> object:
    return json.loads(next(str(sent.input) for sent in reversed(shell.dispatched) if sent.step_id == step_id))


RACE = """
on_failure: continue
steps:
  a: {call: h, on_error: continue}
  b: {call: h, on_error: continue}
  c: {call: h, on_error: continue}
  j:
    needs: [a, b, c]
    join: %s
    call: h
    with: {a: "${{ steps.a.output }}", b: "${{ steps.b.state }}", c: "${{ default(steps.c.output, 7) }}"}
"""


@pytest.mark.parametrize(("rule", "least"), [("any", 1), ("majority", 2), ("{at_least: 1}", 1), ("{at_least: 3}", 3)])
def test_it_starts_when_enough_have_completed(rule: str, least: int) -> None:
    """E7, Lesson 4: the step starts at once; the losers in flight are told, and read as cancelled, without output."""
    shell = shell_of(RACE % rule)
    for name in "abc"[:least]:
        assert shell.state("j") == "PENDING"
        shell.complete(name, '"x"')
    assert shell.state("j") == "SCHEDULED"
    losers = "abc"[least:]
    assert sorted(stop.attempt_id for stop in shell.stops) == [shell.attempt_id(name) for name in losers]
    seen = {"a": "x", "b": "COMPLETED" if least > 1 else "CANCELLED", "c": "x" if least > 2 else 7}
    assert given(shell, "j") == seen
    shell.complete("j")
    assert shell.run.ended == (not losers)
    for name in losers:
        shell.complete(name)
    assert [event.ended_as for event in shell.events(StepCancelled)] == ["COMPLETED"] * len(losers)
    assert (shell.run.state, shell.run.outcome, shell.run.usage.credits) == ("COMPLETED", "SUCCESS", 20)
    ended_well(shell)


def test_losing_branches_are_stopped_from_their_end_to_their_beginning() -> None:
    """E7: what only a loser needs is a loser too; what something else or the output needs is not."""
    shell = shell_of("""
steps:
  a: {call: h}
  b1: {call: h}
  b2: {call: h, needs: b1}
  b3: {call: h, needs: b2}
  c: {call: h}
  d: {call: h}
  e: {call: h}
  other: {call: h, needs: c}
  j: {needs: [a, b3, c, d], join: any, call: h}
output: {d: "${{ steps.d.output }}", e: "${{ steps.e.output }}"}
""")
    shell.complete("a")
    assert [stop.attempt_id for stop in shell.stops] == [shell.attempt_id("b1")]
    assert (shell.state("b2"), shell.state("b3")) == ("CANCELLED", "CANCELLED")
    for name in ("c", "d", "e", "j", "other"):
        shell.complete(name)
    shell.cancelled("b1")
    assert (shell.run.state, shell.run.output) == ("COMPLETED", '{"d":1,"e":1}')
    ended_well(shell)


def test_a_map_and_a_wait_can_lose() -> None:
    """E7: of a map the items are stopped; a wait is over."""
    shell = shell_of("""
steps:
  m: {map: [1, 2, 3], call: h, concurrency: 2}
  w: {wait: 1h}
  s: {signal: never}
  a: {call: h}
  j: {needs: [m, w, s, a], join: any, call: h}
""")
    shell.complete("a")
    assert {shell.state(name) for name in ("w", "s", "m[2]")} == {"CANCELLED"}
    assert len(shell.stops) == 2
    shell.cancelled("m[0]")
    shell.cancelled("m[1]")
    shell.complete("j")
    assert shell.state("m") == "CANCELLED"
    assert shell.run.state == "COMPLETED"
    ended_well(shell)


def test_needs_that_are_not_counted_are_waited_for() -> None:
    """E7: `of`, and steps that expressions read."""
    shell = shell_of("""
steps:
  setup: {call: h}
  a: {call: h}
  b: {call: h}
  read: {call: h}
  j: {needs: [setup, a, b], join: {at_least: 1, of: [a, b]}, call: h, with: {r: "${{ steps.read.output }}"}}
""")
    shell.complete("a")
    assert shell.state("j") == "PENDING"
    shell.complete("read")
    shell.complete("setup")
    assert shell.state("j") == "SCHEDULED"
    shell.complete("j")
    shell.cancelled("b")
    ended_well(shell)


FATES = ("completed", "tolerated", "failed", "skipped", "unchosen")


def fated(fate: str, name: str) -> str:
    more = {
        "completed": "emit: x",
        "tolerated": "fail: {code: NO}, on_error: continue",
        "failed": "fail: {code: NO}",
        "skipped": "emit: x, if: false",
        "unchosen": "emit: x",
    }[fate]
    return f"  {name}: {{{more}, needs: s}}\n"


@pytest.mark.parametrize("fates", list(itertools.product(FATES, repeat=3)))
@pytest.mark.parametrize("least", [0, 1, 2, 3])
def test_every_fate_of_three_needs(fates: tuple[str, str, str], least: int) -> None:
    """E7, E10: the truth table of docs/flows.md, whole. With a join completed steps count; without (0), all must end well, unchosen ones aside."""
    names = ("a", "b", "c")
    chosen = [name for name, fate in zip(names, fates, strict=True) if fate != "unchosen"]
    unchosen = [name for name in names if name not in chosen]
    cases = [f"{{if: true, then: [{', '.join(chosen)}]}}"] if chosen else []
    cases.append(f"{{if: false, then: [{', '.join(unchosen)}]}}") if unchosen else None
    steps = "".join(fated(fate, name) for name, fate in zip(names, fates, strict=True))
    join = f", join: {{at_least: {least}}}" if least else ""
    shell = shell_of(
        f"on_failure: continue\nsteps:\n  s: {{switch: [{', '.join(cases)}]}}\n{steps}"
        f"  j: {{emit: j, needs: [a, b, c]{join}}}\n  on: {{emit: on, needs: [a, b, c]{join}, if: success()}}\n"
        f"  off: {{emit: off, needs: [a, b, c]{join}, if: failure()}}\n"
    )
    if least:
        met = fates.count("completed") >= least
        state = "COMPLETED" if met else "FAILED" if {"failed", "tolerated"} & set(fates) else "SKIPPED"
        failing = not met and "failed" in fates
    else:
        met = not {"failed", "skipped"} & set(fates) and set(fates) != {"unchosen"}
        state = "COMPLETED" if met else "SKIPPED"
        failing = "failed" in fates
    assert shell.state("j") == state
    assert shell.state("on") == ("COMPLETED" if met else "SKIPPED")
    assert shell.state("off") == ("COMPLETED" if failing else "SKIPPED")
    ended_well(shell)


def test_out_of_reach_says_what_happened() -> None:
    """E7, F22: what is left of the race is stopped, the failure names who ended how, its cause is the first."""
    shell = shell_of(RACE % "majority")
    shell.fail("a", "TIMEOUT")
    shell.fail("b")
    assert [event.step_id for event in shell.events(StepStopping)] == ["c"]
    shell.cancelled("c")
    failure = shell.run.steps["j"].failure
    assert failure is not None
    assert failure.message == "j cannot be reached: 2 of 3 must complete: a is FAILED, b is FAILED, c is SCHEDULED."
    assert failure.cause is not None
    assert (failure.code, failure.cause.code, failure.operation) == ("STEP_FAILED", "TIMEOUT", "join")
    assert shell.run.state == "FAILED"
    ended_well(shell)


ROUTE = """
steps:
  setup: {emit: setup}
  route:
    switch:
      - {if: "%s", then: left}
      - {if: true, then: right}
  left: {emit: left}
  left2: {emit: left2, needs: [left, setup]}
  right: {emit: right}
  inner: {switch: [{if: true, then: deep}, {if: false, then: other}], needs: right}
  deep: {emit: deep}
  other: {emit: other}
  meet: {emit: meet, needs: [deep, other]}
  final: {emit: final, needs: [left2, meet, setup]}
  alone: {emit: alone, needs: [right, setup]}
"""


@pytest.mark.parametrize("left", [True, False])
def test_branches_meet_again(left: bool) -> None:
    """E10: what follows an unchosen step is unchosen, whatever else it needs, until a chosen branch of the same switch meets it."""
    shell = shell_of(ROUTE % str(left).lower())
    on_left = {"left", "left2"}
    on_right = {"right", "inner", "deep", "meet", "alone"}
    ran = {step.id for step in shell.run.steps.values() if step.state == "COMPLETED"}
    assert ran == {"setup", "route", "final"} | (on_left if left else on_right)
    skipped = {step.id: step.unchosen_by for step in shell.run.steps.values() if step.state == "SKIPPED"}
    assert skipped["other"] == ("route" if left else "inner")
    assert {skipped[name] for name in (on_right if left else on_left)} == {"route"}
    ended_well(shell)


PROBLEMS = [
    ("a: {call: h, join: any}", "steps.a.join", "counts the steps under needs, and there are none"),
    ("a: {call: h}\n  b: {call: h, needs: a, join: {at_least: 2}}", "steps.b.join", "asks for 2 of 1 steps"),
    ("a: {call: h}\n  b: {call: h, needs: a, join: {at_least: 1, of: [aa]}}", "steps.b.join.of", "'aa' is not under needs"),
    ("a: {call: h}\n  b: {call: h, needs: a, join: some}", "steps.b.join", "'some' is not one of all, any, majority"),
    ("a: {call: h}\n  b: {call: h, needs: a, join: {at_least: 0}}", "steps.b.join.at_least", "must be from 1 to 10000"),
    (
        "s: {switch: [{if: true, then: b}]}\n  a: {call: h}\n  b: {call: h, needs: [a, s], join: any}",
        "steps.b.join",
        "cannot count s, the switch that decides about the step",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "words"), PROBLEMS)
def test_what_cannot_be_is_told(text: str, path: str, words: str) -> None:
    """E5: with path, line and hint, before anything runs."""
    with pytest.raises(Exception, match="steps") as raised:
        parse(f"name: t\nsteps:\n  {text}\n", "yaml")
    found = [problem for problem in raised.value.problems if problem.path == path]  # type: ignore[attr-defined]
    assert words in found[0].description
    assert found[0].line == len(text.splitlines()) + 2


def test_words_are_numbers() -> None:
    """E2: two ways to say the same are one flow; `all` is what holds anyway."""

    def hash_of(rule: str) -> str:
        return parse(f"name: t\nsteps: {{a: {{call: h}}, b: {{call: h}}, j: {{call: h, needs: [b, a]{rule}}}}}").hash

    assert hash_of(", join: any") == hash_of(", join: {at_least: 1, of: [b, a]}") == hash_of(", join: {at_least: 1}")
    assert hash_of(", join: majority") == hash_of(", join: {at_least: 2}")
    assert hash_of(", join: all") == hash_of("") != hash_of(", join: any")


def test_a_question_about_a_loser_is_not_waited_for() -> None:
    """E7, R26: a lost step that waits for an operator and then loses its join keeps nobody waiting."""
    shell = shell_of("""
steps:
  a: {call: h, on_lost: ask}
  b: {call: h}
  j: {needs: [a, b], join: any, call: h}
""")
    shell.tell(ReportLost(attempt_id=shell.attempt_id("a"), reason="gone"))
    assert shell.run.state == "SUSPENDED"
    shell.complete("b")
    assert (shell.run.state, shell.state("a"), shell.state("j")) == ("RUNNING", "CANCELLED", "SCHEDULED")
    shell.complete("j")
    ended_well(shell)
