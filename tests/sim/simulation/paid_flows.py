"""Flows of runs that have a budget: steps that say what they may spend, beside some that do not, and a run of another flow that gets a share."""

from __future__ import annotations

from simulation.flows import flow, step

_TEN = {"allocation": {"credits": 10}}

PAID: tuple[str, ...] = (
    flow("paid", {**{f"p{n}": step(**_TEN) for n in range(5)}, "z": step("sim.work", *(f"p{n}" for n in range(5)))}, on_failure="continue"),
    flow("items", {"m": {"map": [1, 2, 3, 4, 5], "call": "sim.work", "with": {"i": "${{ item }}"}, "tolerate": 5, **_TEN}, "j": step("sim.echo", "m")}),
    flow(
        "shares",
        {
            "l": {"flow": "leaf", "allocation": {"credits": 20, "steps": 6}, "on_error": "continue"},
            "a": step(**_TEN),
            "b": step("sim.work", "a", **_TEN),
            "c": step(on_lost="fail", on_error="continue", **_TEN),
            "z": step("sim.echo", "l", "b", "c"),
        },
        on_failure="continue",
    ),
)  # fmt: skip
