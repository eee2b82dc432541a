"""The flows of the workloads: few, so that each is compiled once per interpreter."""

from __future__ import annotations

import json
from typing import Any

_QUICK = {"max_attempts": 3, "initial_delay": "100ms", "factor": 2, "max_delay": "1s"}


def _step(call: str = "sim.work", *needs: str, **more: Any) -> dict[str, Any]:
    step: dict[str, Any] = {"call": call, "with": {"n": 1}, **more}
    if needs:
        step["needs"] = list(needs)
    return step


def _flow(name: str, steps: dict[str, Any], **more: Any) -> str:
    retry = more.pop("retry", _QUICK)
    defaults = {"retry": retry, "timeout": more.pop("attempt", "3s")}
    return json.dumps({"name": name, "version": "1", "defaults": defaults, "steps": steps, **more})


def _chain(length: int) -> dict[str, Any]:
    return {f"s{n}": _step("sim.work", *((f"s{n - 1}",) if n else ())) for n in range(length)}


_DOCUMENT: dict[str, Any] = {
    "document": {"dsl": "1.0.3", "namespace": "sim", "name": "document", "version": "1.0.0"},
    "do": [
        {"first": _step()},
        {"tried": {"try": [{"work": _step()}], "catch": {"retry": {"delay": "PT0.3S", "limit": {"attempt": {"count": 2}}}, "do": [{"caught": {"set": {"v": 1}}}]}}},
        {"race": {"fork": {"compete": True, "branches": [{"work": _step()}, {"echo": _step("sim.echo")}]}}},
        {"both": {"fork": {"branches": [{"work": _step()}, {"nap": {"wait": "PT0.5S"}}]}}},
        {"loop": {"for": {"in": "[1, 2, 3]"}, "do": [{"echo": {"call": "sim.echo", "with": {"i": "${ $item }"}}}], "timeout": {"after": "PT20S"}}},
        {"end": {"set": {"done": True}}},
    ],
}  # fmt: skip
"""A document of the Serverless Workflow DSL: tries, branches that race, a loop and a wait."""

FLOWS: tuple[str, ...] = (
    _flow("one", {"a": _step()}),
    _flow("echo", {"a": _step("sim.echo")}),
    _flow("chain2", _chain(2)),
    _flow("chain5", _chain(5)),
    _flow("echoes", {f"s{n}": _step("sim.echo", *((f"s{n - 1}",) if n else ())) for n in range(4)}),
    _flow(
        "diamond",
        {"a": _step(), "b": _step("sim.work", "a"), "c": _step("sim.echo", "a"), "d": _step("sim.work", "b", "c")},
    ),
    _flow(
        "passing",
        {
            "a": _step(),
            "b": {"call": "sim.echo", "with": {"from": "${{ steps.a.output.v }}"}},
            "c": {"call": "sim.work", "with": "${{ steps.b.output }}"},
        },
        output={"end": "${{ steps.c.output.v }}"},
    ),
    _flow("map", {"m": {"map": [1, 2, 3, 4], "call": "sim.work", "with": {"i": "${{ item }}"}}, "j": _step("sim.echo", "m")}),
    _flow("narrow", {"m": {"map": [1, 2, 3, 4, 5], "call": "sim.work", "with": {"i": "${{ item }}"}, "concurrency": 2, "tolerate": 1}}),
    _flow("fragile", {"m": {"map": [1, 2, 3], "call": "sim.work", "with": {"i": "${{ item }}"}}, "z": _step()}, retry={"max_attempts": 1}),
    _flow("continue", {"a": _step(), "b": _step("sim.work", on_error="continue"), "c": _step("sim.work", "a", "b")}, on_failure="continue"),
    _flow("pausing", {"a": _step(), "b": _step("sim.work", "a"), "c": _step()}, on_failure="pause", retry={"max_attempts": 1}),
    _flow("slow-retry", {"a": _step(retry={"max_attempts": 4, "initial_delay": "2s", "max_delay": "3s"}), "b": _step("sim.work", "a")}),
    _flow("never-again", {"a": _step(on_lost="fail"), "b": _step("sim.work", "a")}),
    _flow("careful", {"a": _step("sim.charge", side_effecting=True), "b": _step("sim.echo", "a")}),
    _flow("wide", {**{f"w{n}": _step() for n in range(6)}, "end": _step("sim.work", *(f"w{n}" for n in range(6)))}, concurrency=4),
    _flow("limited", _chain(3), timeout="2s"),
    _flow("conditional", {"a": _step(), "b": {**_step("sim.work", "a"), "if": "false"}, "c": _step("sim.work", "b", on_error="continue")}),
    _flow(
        "race",
        {
            "a": _step(on_error="continue"), "b": _step("sim.echo", on_error="continue"), "c": _step(on_error="continue"), "c2": _step("sim.work", "c"),
            "j": _step("sim.echo", "a", "b", "c2", join="any"), "k": _step("sim.work", "j"),
        },
        on_failure="continue",
    ),
    _flow("in-time", {"a": _step(start_timeout="4s", total_timeout="5s", on_error="continue"), "b": _step("sim.echo", "a", priority=5)}, on_failure="continue"),
    _flow("cached", {"a": _step(cache={"key": 1, "ttl": "30s"}), "b": _step("sim.echo", "a", cache={"key": "${{ run.id }}", "scope": "run"}), "c": _step("sim.work", "b")}),
    json.dumps(_DOCUMENT),
    # The last one is drawn apart, see `scenario`.
    _flow(
        "nested",
        {
            "a": _step(compensate={"call": "sim.echo", "with": {"was": "${{ output }}"}}),
            "g": {
                "needs": "a",
                "retry": {"max_attempts": 2, "initial_delay": "200ms"},
                "timeout": "20s",
                "steps": {
                    "x": _step(compensate={"call": "sim.work", "with": {"n": 1}}),
                    "y": _step("sim.work", "x", on_error={"goto": "r", "then": "retry", "calls": 1}),
                    "r": _step("sim.echo"),
                    "each": {"map": [1, 2], "steps": {"p": _step(), "q": _step("sim.echo", "p")}},
                },
            },
            "poll": {"needs": "g", "loop": {"for": 3, "delay": "300ms"}, "steps": {"ask": _step()}},
            "z": _step("sim.work", "poll"),
        },
        retry={"max_attempts": 2, "initial_delay": "100ms"},
    ),
)  # fmt: skip

NEEDS: tuple[dict[str, list[str]], ...] = ()
