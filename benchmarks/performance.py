"""Holds the committed benchmark against committed bounds, and every promised figure against its own: `make performance`, and `.ci/performance` for a CI system.

The bounds of `bounds.json` are for a machine on which a fixed piece of work takes `calibration_ms`; on a slower one they are as much wider, on a faster one they stay. Of ROUNDS (3) rounds
of a workload the best counts: what else the machine does only makes figures worse. Prints a table, writes `performance.md` and `performance.json` into REPORT (a directory;
`.tierflow/performance` where it is left out), names every bound that is not kept and then ends with 1. SMOKE=1 shows on tiny numbers that it works, and judges nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks import measuring, run
from benchmarks.curves.stage import ROOT, Size
from benchmarks.thresholds.__main__ import figures as promised
from benchmarks.thresholds.figures import Figure, table
from benchmarks.workloads import SCENARIOS, Scenario

BOUNDS: Final = pathlib.Path(__file__).with_name("bounds.json")


def calibration() -> float:
    """Milliseconds of processor time for a fixed piece of work of the kind that services do: the best of several."""
    row = {"id": "0" * 32, "steps": [{"n": n, "state": "COMPLETED"} for n in range(50)]}
    best = float("inf")
    for _ in range(7):
        began = time.process_time()
        for _ in range(100):
            hashlib.sha256(json.dumps(json.loads(json.dumps(row))).encode()).hexdigest()
        best = min(best, time.process_time() - began)
    return round(best * 1000, 3)


def slower(measured_ms: float, reference_ms: float) -> float:
    """How many times slower this machine is than the one that the bounds are for; 1 for a faster one."""
    return max(1.0, measured_ms / reference_ms)


def held(
    bounds: Sequence[Mapping[str, Any]], rounds: Mapping[str, Sequence[Mapping[str, Any]]], times: float
) -> list[Figure]:
    """Every bound, widened for a machine so many times slower, against the best of the rounds of its workload."""
    found = []
    for each in bounds:
        least = bool(each.get("least"))
        values = [float(figures[each["figure"]]) for figures in rounds[each["scenario"]]]
        bound = each["bound"] / times if least else each["bound"] * times
        measured = max(values) if least else min(values)
        found.append(Figure("O8", each["what"], measured, float(f"{bound:.4g}"), each["unit"], least))
    return found


def broken(figures: Sequence[Figure]) -> list[str]:
    """A line for each bound that is not kept, which names it."""
    signs = {True: "at least", False: "at most"}
    return [
        f"NOT KEPT: {each.rows}, {each.what}: {signs[each.least]} {each.bound:g} {each.unit} is promised, {each.measured:g} was measured"
        for each in figures
        if not each.kept
    ]


def write(directory: pathlib.Path, where: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """Writes the report; returns it as Markdown."""
    lines = [f"NOT KEPT: {count}" if (count := len(broken(figures))) else "Every bound is kept."]
    facts = ", ".join(f"{name} {value}" for name, value in where.items())
    text = "\n".join(["# Performance", "", *lines, "", facts, "", table(figures), ""])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "performance.md").write_text(text)
    kept = [{**dataclasses.asdict(each), "kept": each.kept} for each in figures]
    (directory / "performance.json").write_text(json.dumps({**where, "figures": kept}, indent=1) + "\n")
    return text


def tiny(scenario: Scenario) -> Scenario:
    """A workload that shows that it works."""
    items = min(scenario.items, 20)
    steps = items + 2 if items else scenario.steps
    return dataclasses.replace(scenario, runs=min(scenario.runs, 20), at_once=8, alone=2, items=items, steps=steps)


def main() -> int:
    """See the module."""
    size = Size(smoke=os.environ.get("SMOKE") == "1")
    committed = json.loads(BOUNDS.read_text())
    where = measuring.circumstances(size.pick(0.0, 120.0))
    measured = calibration()
    times = slower(measured, committed["calibration_ms"])
    where |= {"calibration_ms": measured, "times_slower": round(times, 2)}
    rounds: dict[str, list[dict[str, Any]]] = {}
    for name in dict.fromkeys(each["scenario"] for each in committed["bounds"]):
        scenario = tiny(SCENARIOS[name]) if size.smoke else SCENARIOS[name]
        count = size.pick(1, int(os.environ.get("ROUNDS") or "3"))
        rounds[name] = [run.perform(name, scenario) for _ in range(count)]
        print(f"{name}: {json.dumps(rounds[name][-1])}", flush=True)
    figures = [*held(committed["bounds"], rounds, times), *asyncio.run(promised(size))]
    print(write(pathlib.Path(os.environ.get("REPORT") or ROOT / ".tierflow/performance"), where, figures))
    if where["load_before"] > measuring.MOST_LOAD:
        print(f"the machine was busy before it began (load average {where['load_before']})", file=sys.stderr)
    wrong = broken(figures)
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong and not size.smoke else 0


if __name__ == "__main__":
    sys.exit(main())
