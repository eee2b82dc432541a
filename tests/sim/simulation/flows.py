"""The flows of the workloads: few, so that each is compiled once per interpreter."""

from __future__ import annotations

import json
from typing import Any

_QUICK = {"max_attempts": 3, "initial_delay": "100ms", "factor": 2, "max_delay": "1s"}


def step(call: str = "sim.work", *needs: str, **more: Any) -> dict[str, Any]:
    """A step that calls something."""
    made: dict[str, Any] = {"call": call, "with": {"n": 1}, **more}
    if needs:
        made["needs"] = list(needs)
    return made


def flow(name: str, steps: dict[str, Any], **more: Any) -> str:
    """A flow's text."""
    retry = more.pop("retry", _QUICK)
    defaults = {"retry": retry, "timeout": more.pop("attempt", "3s")}
    return json.dumps({"name": name, "version": "1", "defaults": defaults, "steps": steps, **more})


def _chain(length: int) -> dict[str, Any]:
    return {f"s{n}": step("sim.work", *((f"s{n - 1}",) if n else ())) for n in range(length)}


_DOCUMENT: dict[str, Any] = {
    "document": {"dsl": "1.0.3", "namespace": "sim", "name": "document", "version": "1.0.0"},
    "do": [
        {"first": step()},
        {"tried": {"try": [{"work": step()}], "catch": {"retry": {"delay": "PT0.3S", "limit": {"attempt": {"count": 2}}}, "do": [{"caught": {"set": {"v": 1}}}]}}},
        {"race": {"fork": {"compete": True, "branches": [{"work": step()}, {"echo": step("sim.echo")}]}}},
        {"both": {"fork": {"branches": [{"work": step()}, {"nap": {"wait": "PT0.5S"}}]}}},
        {"loop": {"for": {"in": "[1, 2, 3]"}, "do": [{"echo": {"call": "sim.echo", "with": {"i": "${ $item }"}}}], "timeout": {"after": "PT20S"}}},
        {"end": {"set": {"done": True}}},
    ],
}  # fmt: skip
"""A document of the Serverless Workflow DSL: tries, branches that race, a loop and a wait."""

FLOWS: tuple[str, ...] = (
    flow("one", {"a": step()}),
    flow("echo", {"a": step("sim.echo")}),
    flow("chain2", _chain(2)),
    flow("chain5", _chain(5)),
    flow("echoes", {f"s{n}": step("sim.echo", *((f"s{n - 1}",) if n else ())) for n in range(4)}),
    flow(
        "diamond",
        {"a": step(), "b": step("sim.work", "a"), "c": step("sim.echo", "a"), "d": step("sim.work", "b", "c")},
    ),
    flow(
        "passing",
        {
            "a": step(),
            "b": {"call": "sim.echo", "with": {"from": "${{ steps.a.output.v }}"}},
            "c": {"call": "sim.work", "with": "${{ steps.b.output }}"},
        },
        output={"end": "${{ steps.c.output.v }}"},
    ),
    flow("map", {"m": {"map": [1, 2, 3, 4], "call": "sim.work", "with": {"i": "${{ item }}"}}, "j": step("sim.echo", "m")}),
    flow("narrow", {"m": {"map": [1, 2, 3, 4, 5], "call": "sim.work", "with": {"i": "${{ item }}"}, "concurrency": 2, "tolerate": 1}}),
    flow("fragile", {"m": {"map": [1, 2, 3], "call": "sim.work", "with": {"i": "${{ item }}"}}, "z": step()}, retry={"max_attempts": 1}),
    flow("continue", {"a": step(), "b": step("sim.work", on_error="continue"), "c": step("sim.work", "a", "b")}, on_failure="continue"),
    flow("pausing", {"a": step(), "b": step("sim.work", "a"), "c": step()}, on_failure="pause", retry={"max_attempts": 1}),
    flow("slow-retry", {"a": step(retry={"max_attempts": 4, "initial_delay": "2s", "max_delay": "3s"}), "b": step("sim.work", "a")}),
    flow("never-again", {"a": step(on_lost="fail"), "b": step("sim.work", "a")}),
    flow("careful", {"a": step("sim.charge", side_effecting=True), "b": step("sim.echo", "a")}),
    flow("wide", {**{f"w{n}": step() for n in range(6)}, "end": step("sim.work", *(f"w{n}" for n in range(6)))}, concurrency=4),
    flow("limited", _chain(3), timeout="2s"),
    flow("conditional", {"a": step(), "b": {**step("sim.work", "a"), "if": "false"}, "c": step("sim.work", "b", on_error="continue")}),
    flow(
        "race",
        {
            "a": step(on_error="continue"), "b": step("sim.echo", on_error="continue"), "c": step(on_error="continue"), "c2": step("sim.work", "c"),
            "j": step("sim.echo", "a", "b", "c2", join="any"), "k": step("sim.work", "j"),
        },
        on_failure="continue",
    ),
    flow("in-time", {"a": step(start_timeout="4s", total_timeout="5s", on_error="continue"), "b": step("sim.echo", "a", priority=5)}, on_failure="continue"),
    flow("cached", {"a": step(cache={"key": 1, "ttl": "30s"}), "b": step("sim.echo", "a", cache={"key": "${{ run.id }}", "scope": "run"}), "c": step("sim.work", "b")}),
    json.dumps(_DOCUMENT),
    # The last one is drawn apart, see `scenario`.
    flow(
        "nested",
        {
            "a": step(compensate={"call": "sim.echo", "with": {"was": "${{ output }}"}}),
            "g": {
                "needs": "a",
                "retry": {"max_attempts": 2, "initial_delay": "200ms"},
                "timeout": "20s",
                "steps": {
                    "x": step(compensate={"call": "sim.work", "with": {"n": 1}}),
                    "y": step("sim.work", "x", on_error={"goto": "r", "then": "retry", "calls": 1}),
                    "r": step("sim.echo"),
                    "each": {"map": [1, 2], "steps": {"p": step(), "q": step("sim.echo", "p")}},
                },
            },
            "poll": {"needs": "g", "loop": {"for": 3, "delay": "300ms"}, "steps": {"ask": step()}},
            "z": step("sim.work", "poll"),
        },
        retry={"max_attempts": 2, "initial_delay": "100ms"},
    ),
)  # fmt: skip
