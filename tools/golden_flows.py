"""The flows of the golden runs: together they lead to every kind of event (tools/golden.py says which they miss)."""

from __future__ import annotations

from typing import Any

ONCE = {"max_attempts": 1}
SOON = {"max_attempts": 3, "initial_delay": "10ms"}


def flow(name: str, steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A flow, version 1."""
    return {"name": name, "version": "1", "steps": steps, **more}


def echo(*needs: str, **with_: Any) -> dict[str, Any]:
    """A step that returns what it is given."""
    return {"call": "echo", "with": with_, "needs": list(needs)}


PLAIN = flow(
    "golden-plain",
    {
        "each": {"map": "${{ input.items }}", "call": "echo", "with": {"i": "${{ item }}"}, "concurrency": 2},
        "flaky": {"call": "golden.flaky", "retry": SOON},
        "anew": {"call": "golden.fails", "with": {"once": True}, "retry": ONCE, "on_error": {"goto": "why", "then": "retry"}},
        "why": echo(why="${{ last_error.code }}"),
        "no": {**echo(), "if": "input.items[0] > 5"},
        "fails": {"call": "golden.fails", "retry": ONCE, "on_error": "continue"},
        "sets": {**echo(n=1), "set": {"seen": "${{ output.n }}"}},
        "kept": {**echo(n=2), "cache": {"key": "golden", "ttl": "1h"}},
        "asks": {"call": "golden.asks"},
        "tells": {"emit": "golden.told", "with": {"n": 1}},
        "soon": {"wait": "50ms"},
        "last": echo("each", "flaky", "fails", "sets", "kept", "soon", "tells", of="${{ steps.each.output }}", seen="${{ vars.seen }}"),
    },
    vars={"seen": 0},
)  # fmt: skip

BLOCKS = flow(
    "golden-blocks",
    {
        "hotel": {**echo(room=1), "compensate": {"call": "echo"}},
        "way": {
            "needs": ["hotel"],
            "steps": {
                "taxi": {"fail": {"code": "NO_TAXI"}, "on_error": {"goto": "walk"}},
                "walk": {"call": "echo", "with": {"why": "${{ last_error.code }}"}},
            },
        },
        "poll": {
            "needs": ["way"],
            "loop": {"until": "loop.index == 1", "delay": "10ms"},
            "steps": {"ask": echo(at="${{ loop.index }}")},
        },
        "again": {
            "needs": ["poll"],
            "retry": {"max_attempts": 2, "initial_delay": "0s"},
            "on_error": "continue",
            "steps": {"x": {"call": "golden.fails", "retry": ONCE}},
        },
        "grown": {"call": "golden.grows", "grows": True, "needs": ["again"]},
        "car": {**echo("grown"), "compensate": {"call": "golden.fails", "retry": ONCE}},
        "pay": {"needs": ["car"], "fail": {"code": "NO_MONEY"}},
    },
)

RACE = flow(
    "golden-race",
    {
        "deaf": {"call": "golden.deaf", "on_error": "continue", "allocation": {"credits": 9}},
        "fast": echo(),
        "first": {**echo(), "needs": ["deaf", "fast"], "join": "any"},
    },
)

APPROVAL = flow(
    "golden-approval",
    {"ok": {"approval": {"users": ["ada"], "timeout": "200ms", "escalate": {"users": ["kim"], "timeout": "1d"}}}},
)

OPEN_APPROVAL = flow("golden-open-approval", {"ok": {"approval": {"users": ["ada"]}}})

ASKED = flow(
    "golden-asked",
    {
        "change": {"signal": "change"},
        "reply": {"emit": "looked", "answer": "change", "with": {"ok": True}, "needs": ["change"]},
    },
)

STEERED = flow(
    "golden-steered",
    {"a": {"call": "golden.long"}, "b": echo("a"), "c": echo("b"), "d": echo("c")},
)
STEERED_2 = {**STEERED, "version": "2", "steps": {**STEERED["steps"], "e": echo("d")}}

INNER = flow("golden-inner", {"go": {"signal": "go"}, "n": echo("go", n=7)}, output="${{ steps.n.output.n }}")
OUTER = flow("golden-outer", {"in": {"flow": "golden-inner"}, "end": echo("in", n="${{ steps['in'].output }}")})

DOCUMENT = """
document: {dsl: 1.0.3, namespace: golden, name: document, version: 1.0.0}
do:
  - note: {set: {status: 1}, export: {as: "{ status: .status }"}}
  - each:
      for: {each: word, in: '["a", "b"]'}
      do: [{say: {call: echo, with: {word: "${ $word }"}}}]
  - hear: {listen: {to: {one: {with: {type: order.paid}}}}, output: {as: '.[0]'}}
  - answer: {call: echo, with: {status: "${ $context.status }", paid: "${ .amount }"}}
"""

WAITS = flow("golden-waits", {"go": {"signal": "go"}, "end": echo("go", n="${{ steps.go.output }}")})
LONG = flow(
    "golden-long",
    {
        "each": {"map": "${{ input.items }}", "call": "echo", "with": {"i": "${{ item }}", "text": "long " * 400}},
        "go": {"signal": "go", "needs": ["each"]},
        "end": echo("go", n="${{ steps.each.output[39].i }}"),
    },
)
BACKOFF = flow(
    "golden-backoff",
    {"a": {"call": "golden.flaky", "retry": {"max_attempts": 3, "initial_delay": "20s", "max_delay": "20s"}}},
)
UNDOES = flow(
    "golden-undoes",
    {
        "hotel": {**echo(room=1), "compensate": {"call": "golden.long"}},
        "pay": {"needs": ["hotel"], "fail": {"code": "NO_MONEY"}},
    },
)
SLEEPS = flow("golden-sleeps", {"w": {"wait": "1h"}, "end": echo("w", n=1)})
RUNS = flow("golden-runs", {"a": echo(), "long": {"call": "golden.long", "needs": ["a"]}, "end": echo("long", n=2)})
FAILS = flow(
    "golden-fails", {"a": echo(), "x": {"call": "golden.fails", "with": {"once": True}, "retry": ONCE, "needs": ["a"]}}
)

SIGNALLED = flow("golden-signalled", {"go": {"signal": "go"}}, output="${{ steps.go.output }}")
SOON_OVER = flow("golden-soon-over", {"a": echo()})
NOBODY = flow("golden-nobody", {"a": {"call": "golden.nobody"}})
NEEDY = flow("golden-needy", {"a": echo()})
NEEDY_2 = {**NEEDY, "version": "2", "input": {"type": "object", "required": ["who"]}}
