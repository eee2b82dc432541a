"""Flows as trees and flowcharts, and what changed between two. See docs/flow-tools.md."""

from __future__ import annotations

import pytest
from tierflow_flow import Flow, parse
from tierflow_kit.comparing import compare
from tierflow_kit.outlines import mermaid, tree

TEXT = """
name: order
description: An order.
input: {amount: number}
steps:
  ask: {approval: {message: Really?, users: [ada], roles: [boss], needed: 2, timeout: 1h}}
  route:
    needs: ask
    switch: [{if: input.amount < 20, then: pay}, {if: "input.amount < 500", then: [rest]}]
    default: refuse
  pay: {call: bank.pay, retry: {max_attempts: 2}}
  rest: {wait: 90s}
  refuse: {fail: {code: TOO_MUCH}}
  each: {map: "${{ range(3) }}", call: h, needs: [pay, ask], on_error: continue}
  paid: {signal: bank.paid, needs: rest, timeout: 2d}
  tell: {emit: order.done, needs: [each, paid], if: always()}
"""


def test_a_tree() -> None:
    """Q24, E2: each step once, below what it waits for last, with what it does, when it runs, and what it needs besides."""
    assert tree(parse(TEXT)).splitlines() == [
        "order@1: An order.",
        "└─ ask               approval by ada or boss, 2 of them",
        "   └─ route          switch",
        "      ├─ pay         call bank.pay, where input.amount < 20",
        "      │  └─ each     map h over range(3), may fail",
        "      │     └─ tell  emit order.done, if always(), also after paid",
        "      ├─ rest        wait 1m30s, where input.amount < 500",
        "      │  └─ paid     signal bank.paid for at most 2d",
        "      └─ refuse      fail TOO_MUCH, where otherwise",
    ]


BLOCKS = """
name: blocks
steps:
  trip:
    timeout: 10m
    steps:
      hotel: {call: hotel.book, compensate: {call: hotel.cancel, with: {id: "${{ output.id }}"}}}
      pay: {call: bank.pay, needs: hotel, on_error: {goto: ask}}
      ask: {call: people.ask}
    output: ${{ steps.pay.output }}
  poll:
    needs: trip
    loop: {until: steps.look.output.done, delay: 5s}
    steps: {look: {call: trip.look}}
  three: {needs: [trip, poll], join: any, map: [1, 2], steps: {one: {call: h}}}
"""


def test_blocks_are_drawn_within() -> None:
    """E2, E13: what a step holds stands below it before what follows, in Mermaid in a box."""
    assert tree(parse(BLOCKS)).splitlines() == [
        "blocks@1",
        "└─ trip                group",
        "   ├─ trip/hotel       call hotel.book, undone by hotel.cancel",
        "   │  └─ trip/pay      call bank.pay",
        "   │     └─ trip/ask   call people.ask, where trip/pay fails",
        "   └─ poll             loop until steps.look.output.done, every 5s",
        "      ├─ poll/look     call trip.look",
        "      └─ three         map of steps over [1, 2], after 1 of poll, trip",
        "         └─ three/one  call h",
    ]
    drawn = mermaid(parse(BLOCKS)).splitlines()
    assert sum("subgraph" in line for line in drawn) == sum(line.strip() == "end" for line in drawn) == 3
    assert sum('|"fails"|' in line for line in drawn) == 1


def test_every_step_is_drawn_once() -> None:
    """E2: nothing is lost between a flow and its pictures."""
    flow = parse(TEXT)
    lines = tree(flow).splitlines()[1:]
    assert sorted(line.split("─ ")[1].split()[0] for line in lines) == sorted(flow.by_id)
    drawn = mermaid(flow)
    assert drawn.startswith("flowchart TD\n")
    assert all(f">{step.id}<" in drawn.replace('"', ">") for step in flow.steps)
    assert sum(" -->" in line or " -.->" in line for line in drawn.splitlines()) == sum(
        len(step.needs) for step in flow.steps
    )
    assert '-->|"input.amount &lt; 20"|' in drawn


def test_long_flows_can_be_drawn() -> None:
    """E2: a chain of thousands is drawn without recursion."""
    steps = "\n".join(f"  s{n}: {{call: h, needs: [s{n - 1}]}}" for n in range(1, 2_000))
    flow = parse(f"name: long\nsteps:\n  s0: {{call: h}}\n{steps}\n")
    assert tree(flow).count("\n") == 2_000
    assert mermaid(flow).count("-->") == 1_999


BASE = """
name: f
input: {a: integer, b: {type: string, default: x}, c: string}
timeout: 1h
output_schema: {type: object, properties: {r: {type: integer}}, required: [r]}
steps:
  x: {call: h, timeout: 30s, with: {a: 1}}
  y: {call: g, needs: x}
  z: {wait: 3s}
output: {r: "${{ steps.x.output }}"}
"""


def changed(*changes: tuple[str, str]) -> tuple[Flow, Flow]:
    text = BASE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse(BASE), parse(text)


def differences(*changes: tuple[str, str]) -> list[tuple[str, str, str]]:
    return [(change.path, change.kind, change.breaks) for change in compare(*changed(*changes)).changes]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("a: integer", "a: number"), [("input.a.type", "changed", "")]),
        (("a: integer", "a: string"), [("input.a.type", "changed", "callers")]),
        (("a: integer, ", "a: {type: integer, minimum: 1}, "), [("input.a.minimum", "added", "callers")]),
        ((", c: string}", "}"), [("input.c", "removed", "callers")]),
        (("c: string}", "c: string, d: string}"), [("input.d", "added", "callers")]),
        (("c: string}", "c: string, d: {type: string, default: q}}"), [("input.d", "added", "")]),
        (("c: string}", "c: {type: string, default: q}}"), [("input.c", "changed", ""), ("input.c.default", "added", "")]),
        (("r: {type: integer}}", "r: {type: number}}"), [("output_schema.r.type", "changed", "readers")]),
        (("required: [r]", "required: []"), [("output_schema.r", "changed", "readers")]),
        (("timeout: 1h", "timeout: 2h"), [("timeout", "changed", "")]),
        (("timeout: 1h\n", ""), [("timeout", "removed", "")]),
        (("{r: \"${{ steps.x.output }}\"}", "{r: 1}"), [("output.r", "changed", "readers")]),
        (("{r: \"${{ steps.x.output }}\"}", "{r: \"${{ steps.x.output }}\", q: 1}"), [("output.q", "added", "")]),
        (("timeout: 30s", "timeout: 1m"), [("steps.x.timeout", "changed", "")]),
        (("{a: 1}", "{a: 2}"), [("steps.x.with", "changed", "")]),
        (("call: h", "call: k"), [("steps.x.call", "changed", "")]),
        (("z: {wait: 3s}", "z: {signal: go}"), [("steps.z", "changed", "running")]),
        (("  z: {wait: 3s}\n", ""), [("steps.z", "removed", "running")]),
        (("z: {wait: 3s}", "zz: {wait: 3s}"), [("steps.z", "renamed", "running")]),
        (("z: {wait: 3s}", "z: {wait: 3s}\n  w: {emit: e}"), [("steps.w", "added", "")]),
        (("needs: x", "needs: z"), [("steps.y.needs", "removed", ""), ("steps.y.needs", "added", "running")]),
    ],
)  # fmt: skip
def test_what_changed_and_whom_it_breaks(change: tuple[str, str], expected: list[tuple[str, str, str]]) -> None:
    """E2: steps, needs, schemas, settings; narrower inputs break callers, wider outputs break readers, steps that are gone break runs under way."""
    assert differences(change) == expected


def test_changes_within_blocks_are_found() -> None:
    """E2, E13: by the path of the step."""
    before, after = (
        parse(BLOCKS),
        parse(
            BLOCKS.replace("delay: 5s", "delay: 6s")
            .replace("bank.pay", "bank.send")
            .replace("look: {call", "see: {call")
            .replace("steps.look", "steps.see")
        ),
    )
    assert [(change.path, change.kind, change.breaks) for change in compare(before, after).changes] == [
        ("steps.poll/look", "renamed", "running"),
        ("steps.poll.loop", "changed", ""),
        ("steps.trip/pay.call", "changed", ""),
    ]


def test_names_and_versions_are_no_change() -> None:
    """E2: a version that says the same is no change."""
    assert differences(("name: f\n", 'name: g\nversion: "2"\n')) == []


def test_values_are_shown_as_people_write_them() -> None:
    """E5: durations, not microseconds."""
    [change] = compare(*changed(("timeout: 1h", "timeout: 90m"))).changes
    assert (change.before, change.after) == ("1h", "1h30m")
