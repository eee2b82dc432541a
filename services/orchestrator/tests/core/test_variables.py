"""Variables: what a step sees, and what happens where branches meet."""

from __future__ import annotations

import json

import pytest
from tierflow_flow import FlowError, parse
from tierflow_orchestrator import wire
from tierflow_orchestrator.core import dump, load
from tierflow_orchestrator.core.events import VariablesSet
from tierflow_testing.history import check_history, shape_of

from .fakes import Shell, fold
from .invariants import check_invariants

DIAMOND = """
name: t
vars: {n: 0, log: [start]}
%s
steps:
  a: {call: h, set: {n: "${{ output }}", log: "${{ 'a' }}", only: {is: "${{ vars.n }}"}}}
  b: {call: h, needs: a, set: {n: "${{ vars.n + output }}", log: b}, with: {n: "${{ vars.n }}"}}
  c: {call: h, needs: a, set: {n: "${{ vars.n * output }}", log: c}, with: {n: "${{ vars.n }}"}}
  d: {call: h, needs: [b, c], with: "${{ vars }}"}
  e: {call: h, needs: d, with: {n: "${{ vars.n }}"}}
output: {n: "${{ vars.n }}", log: "${{ vars.log }}"}
"""


def given(shell: Shell, step_id: str) -> object:
    return json.loads(next(str(sent.input) for sent in reversed(shell.dispatched) if sent.step_id == step_id))


def restored(shell: Shell) -> None:
    """V12: from the snapshot and from the journal, coded and read again, it is the same run."""
    check_invariants(shell.run)
    shell.check()
    coded = [wire.encode_event(event, number, time) for number, (event, time) in enumerate(shell.journal, 1)]
    batch = b"".join(b"\x12" + _length(data) + data for data in coded)
    again = fold(shell.flow, [(event, time) for _, time, event in wire.decode_events(batch)])
    assert dump(again) == dump(shell.run)
    shell.run = load(dump(shell.run))
    shell.run.flow = shell.flow


def _length(data: bytes) -> bytes:
    found, size = b"", len(data)
    while size > 127:
        found, size = found + bytes((size & 127 | 128,)), size >> 7
    return found + bytes((size,))


@pytest.mark.parametrize(
    ("rule", "n", "log"),
    [
        ("first", 12, ["start", "a", "c", "b"]),
        ("last", 13, ["start", "a", "c", "b"]),
    ],
)
def test_branches_see_what_came_before_them_and_not_each_other(rule: str, n: int, log: list[str]) -> None:
    """E8, E9: siblings are invisible; where they meet the rule decides, the decision is an event, and everything after it sees the same."""
    shell = Shell(parse(DIAMOND % f"merge: {{n: {rule}, log: append}}"))
    shell.complete("a", "10")
    assert (given(shell, "b"), given(shell, "c")) == ({"n": 10}, {"n": 10})
    shell.complete("c", "1.2")
    shell.complete("b", "3")
    restored(shell)
    assert given(shell, "d") == {"n": n, "log": log, "only": {"is": 0}}
    met = [event for event in shell.events(VariablesSet) if event.step_id == "d"]
    assert [(v.name, v.merged_from, v.policy) for v in met[0].variables] == [
        ("log", ("a", "c", "b"), "append"),
        ("n", ("c", "b"), rule),
    ]
    shell.complete("d")
    restored(shell)
    shell.assign()
    assert given(shell, "e") == {"n": n}
    shell.complete("e")
    assert json.loads(str(shell.run.output)) == {"n": n, "log": log}
    assert not check_history(shell.journal, **shape_of(shell.flow), complete=True)


def test_without_a_rule_a_conflict_is_an_error() -> None:
    """E9, E15: the step in which the branches meet fails, and says what it would need."""
    shell = Shell(parse(DIAMOND % "merge: {log: append}"))
    for name in "abc":
        shell.complete(name, "1")
    failure = shell.run.steps["d"].failure
    assert failure is not None
    assert failure.message.startswith("vars.n was set by b and by c, none after the other; say under merge")
    assert shell.run.state == "FAILED"


def test_a_later_value_replaces_an_earlier_one() -> None:
    """E9: that is no conflict, however it meets the earlier one again."""
    shell = Shell(
        parse("""
name: t
steps:
  a: {call: h, set: {n: 1}}
  b: {call: h, needs: a, set: {n: 2}}
  c: {call: h, needs: a}
  d: {call: h, needs: [b, c, a], with: {n: "${{ vars.n }}"}}
""")
    )
    for name in "abc":
        shell.complete(name)
    assert given(shell, "d") == {"n": 2}


def test_a_switch_a_map_and_a_signal_set_and_see() -> None:
    """E9: steps within others see what the step that they belong to sees."""
    shell = Shell(
        parse("""
name: t
vars: {k: 1}
steps:
  a: {call: h, set: {k: "${{ output }}"}}
  m: {map: [1, 2], call: h, needs: a, with: {v: "${{ item * vars.k }}"}}
  g:
    needs: a
    steps: {x: {call: h, with: {k: "${{ vars.k }}"}}}
    set: {k: "${{ output.x }}"}
  s: {switch: [{if: vars.k == 7, then: t}], needs: g, set: {route: "${{ output.chosen }}"}}
  t: {call: h, with: {r: "${{ vars.route }}", k: "${{ vars.k }}"}}
""")
    )
    shell.complete("a", "5")
    assert (given(shell, "m[1]"), given(shell, "g/x")) == ({"v": 10}, {"k": 5})
    shell.complete("g/x", "7")
    assert given(shell, "t") == {"r": ["t"], "k": 7}
    restored(shell)


def test_what_cannot_be_set_fails_the_step() -> None:
    """E15, Q15: an expression that leads nowhere, a value that is too large."""
    for value in ("${{ output.nothing }}", "${{ range(30000) }}"):
        shell = Shell(parse(f"name: t\nsteps: {{a: {{call: h, set: {{x: '{value}'}}}}}}"))
        shell.complete("a", "{}")
        assert (shell.run.state, shell.events(VariablesSet)) == ("FAILED", [])


def test_a_long_chain() -> None:
    """E8: views are shared along it, and are found again after a restart without depth."""
    steps = ["  s0: {call: h, set: {n: 1}}"] + [f"  s{i}: {{emit: x, needs: s{i - 1}}}" for i in range(1, 2000)]
    shell = Shell(parse("name: t\nsteps:\n" + "\n".join(steps) + "\n  end: {call: h, needs: s1999, with: {n: '${{ vars.n }}'}}"), auto=False)  # fmt: skip
    shell.assign()
    shell.complete("s0")
    shell.run = load(dump(shell.run))
    shell.run.flow = shell.flow
    shell.assign()
    assert given(shell, "end") == {"n": 1}
    assert len({id(seen) for seen in shell.run.views.values()}) <= 3


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("steps: {a: {call: h, with: {x: '${{ vars.nn }}'}, set: {n: 1}}}", "steps.a.with.x", "did you mean n"),
        ("merge: {n: last}\nsteps: {a: {call: h}}", "merge.n", "no step sets n"),
        ("merge: {n: most}\nsteps: {a: {call: h, set: {n: 1}}}", "merge.n", "error, first, last or append"),
        ("vars: {n: 1}\nmerge: {n: append}\nsteps: {a: {call: h, set: {n: 1}}}", "vars.n", "is a list"),
        ("steps: {a: {call: h, set: {n-1: 1}}}", "steps.a.set.n-1", "letters, digits and '_'"),
        ("steps: {a: {map: [1], call: h, set: {n: 1}}}", "steps.a.set", "belongs to steps of kind"),
        ("steps: {g: {steps: {a: {call: h, set: {n: 1}}}}}", "steps.g.steps.a.set", "belongs to steps of the flow"),
    ],
)
def test_what_cannot_be_is_told(text: str, path: str, words: str) -> None:
    """E5, E15: with path and hint, before anything runs."""
    with pytest.raises(FlowError) as raised:
        parse(f"name: t\n{text}\n")
    found = [problem for problem in raised.value.problems if problem.path == path]
    assert words in found[0].description
