"""Flows of runs that somebody steers: with sub-flows, approvals, signals, blocks, handlers of errors, compensation, stored results, growth, variables."""

from __future__ import annotations

import json
from typing import Any

from simulation.flows import FLOWS, flow, step
from simulation.paid_flows import PAID

_ONCE = {"max_attempts": 1}
_UNDO = {"compensate": {"call": "sim.work", "with": {"n": 1}}}
ASKED = ("ada", "bob", "eve", "kim")
"""Who may be asked; `kim` only after an escalation."""


def _approval(needed: int, **more: Any) -> dict[str, Any]:
    asked = {
        "users": ["ada", "bob"],
        "needed": needed,
        "timeout": "2s",
        "escalate": {"users": ["kim"], "timeout": "2s"},
    }
    return {"approval": asked, "on_error": "continue", **more}


LEAF = flow("leaf", {"a": step(), "b": step("sim.echo", "a")}, retry=_ONCE)
TWIG = flow(
    "twig", {"a": step("sim.echo"), "l": {"needs": "a", "flow": "leaf", "with": {}}, "z": step("sim.work", "l")}
)
REGISTERED = (LEAF, TWIG)
"""Flows that others name: registered before anything else, the ones that they name first."""

_FAMILY: dict[str, Any] = {
    "a": step(),
    "stopped": {"flow": "twig", "needs": "a", "on_error": "continue", "retry": {"max_attempts": 2, "initial_delay": "100ms"}},
    "waited": {"flow": "leaf", "needs": "a", "on_parent_close": "wait", "on_error": "continue"},
    "left": {"flow": "leaf", "on_parent_close": "abandon"},
    "z": step("sim.echo", "stopped", "waited", "left"),
}  # fmt: skip

STEERED: tuple[str, ...] = (
    flow("family", _FAMILY, on_failure="continue"),
    flow("heir", {"a": step(), "f": {"flow": "twig", "needs": "a"}, "z": step("sim.work", "f")}, retry=_ONCE),
    flow("asking", {"a": step(), "ok": _approval(2, needs="a"), "also": _approval(1), "z": step("sim.work", "ok", "also")}, on_failure="continue"),
    flow(
        "told",
        {
            "a": step(), "s": {"signal": "one", "timeout": "3s", "on_error": "continue"}, "t": {"signal": "two", "needs": "a"}, "u": {"signal": "two", "needs": "t"},
            "e": {"emit": "said", "needs": "u", "answer": "u", "with": {"n": 1}}, "z": step("sim.work", "s", "e"),
        },
    ),
    flow(
        "undone",
        {
            "a": step(**_UNDO), "b": step("sim.work", "a", **_UNDO), "c": step(**_UNDO),
            "g": {"needs": "b", "steps": {"x": step(**_UNDO), "y": step("sim.echo", "x", **_UNDO)}},
            "n": {"needs": ["g", "c"], "wait": "500ms"}, "d": step("sim.doubt", "n"),
        },
        retry=_ONCE,
    ),
    flow(
        "rescued",
        {
            "a": step("sim.doubt", on_error={"goto": "r", "then": "retry", "calls": 2}), "b": step("sim.doubt", "a", on_error={"goto": "q"}),
            "r": step("sim.echo"), "q": step("sim.work"), "z": step("sim.work", "b"),
        },
        retry=_ONCE,
    ),
    flow(
        "nests",
        {
            "m": {"map": [1, 2, 3], "concurrency": 2, "retry": {"max_attempts": 2, "initial_delay": "100ms"}, "steps": {"p": step(), "q": step("sim.doubt", "p")}},
            "l": {"loop": {"for": 3, "delay": "200ms"}, "steps": {"ask": step()}}, "z": step("sim.work", "m", "l"),
        },
        retry=_ONCE,
    ),
    flow("broken", {"a": step(), "b": step("sim.doubt", "a"), "c": step("sim.work", "b"), "d": step("sim.work", "a"), "m": {"map": [1, 2, 3], "needs": "a", "call": "sim.doubt", "with": {}}}, retry=_ONCE),
    flow("stored", {"a": step(cache={"key": 7, "ttl": "30s"}), "b": step("sim.doubt", "a", cache={"key": 8, "ttl": "30s"}), "c": step("sim.work", "b")}, retry=_ONCE),
    flow(
        "growing",
        {"a": step(), "p": {"call": "sim.plan", "needs": "a", "with": {}, "grows": ["sim.work", "sim.echo"]}, "z": step("sim.work", "p", set={"x": "${{ output.v }}"})},
        vars={"x": 0},
    ),
    flow("long", {f"s{n}": step("sim.work", *((f"s{n - 1}",) if n else ())) for n in range(6)} | {"w": step("sim.doubt", on_error="continue")}, on_failure="pause"),
)  # fmt: skip

SIGNALS = {"told": ("one", "two")}
"""By flow: the signals that its steps wait for."""


def steps_of(text: str) -> list[str]:
    """The steps that a flow begins with."""
    return list(json.loads(text)["steps"])


def next_version(text: str) -> str:
    """Another version of a flow, to which its runs may be migrated: with a step more at its end."""
    body = json.loads(text)
    body["version"] = "2"
    last = [name for name, each in body["steps"].items() if "call" in each][-1]
    body["steps"]["more"] = step("sim.work", last)
    return json.dumps(body)


TEXTS = (*FLOWS, *REGISTERED, *PAID, *STEERED)
