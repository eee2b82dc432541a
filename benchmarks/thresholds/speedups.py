"""What is gained by doing things at once: parallel steps, many executors, attempts that are made again."""

from __future__ import annotations

import statistics
import time
from typing import Any

from tierflow import Client, ExecutionFailed
from tierflow_testing.stack import Stack

from benchmarks.curves.stage import Size, client_of, system
from benchmarks.thresholds.figures import Figure


def _sleeps(seconds: float, *needs: str) -> dict[str, Any]:
    return {"call": "sleep", "with": {"seconds": seconds}, **({"needs": list(needs)} if needs else {})}


BENCHMARK_SET: dict[str, dict[str, Any]] = {
    "diamond": {
        "begin": _sleeps(0.1),
        **{f"side{n}": _sleeps(0.1, "begin") for n in range(4)},
        "end": _sleeps(0.1, *(f"side{n}" for n in range(4))),
    },
    "chains": {f"{line}{n}": _sleeps(0.1, *([f"{line}{n - 1}"] if n else [])) for line in "abc" for n in range(3)},
    "uneven": {
        "long": _sleeps(0.4),
        "a": _sleeps(0.1),
        "b": _sleeps(0.1, "a"),
        "c": _sleeps(0.1, "b"),
        "end": _sleeps(0.05, "c", "long"),
    },
}
"""Flows whose steps only wait, so that what is compared is the navigation."""


async def parallel(client: Client) -> Figure:
    """E14, P7: the time that the benchmark set takes, against the same steps one after the other."""
    saved = []
    for name, steps in BENCHMARK_SET.items():
        graph = {"name": f"bench-{name}", "version": "1", "steps": steps}
        took = [await _seconds(client, {**graph, "navigator": navigator}) for navigator in ("graph", "sequence")]
        saved.append(1 - took[0] / took[1])
    return Figure(
        "E14, P7",
        "time saved by parallel steps, mean of three flows",
        round(statistics.mean(saved) * 100, 1),
        30,
        "%",
        least=True,
    )


async def many_at_once(client: Client) -> Figure:
    """P9: ten runs of a second each, at once."""
    flow = {"name": "bench-second", "version": "1", "steps": {"each": {"map": list(range(10)), **_sleeps(1.0)}}}
    return Figure("P9", "ten executions of one second, all together", round(await _seconds(client, flow), 3), 2.0, "s")


async def executors(size: Size) -> Figure:
    """P17: ten executors of four slots against one, on steps that wait."""
    flow = {
        "name": "bench-scale",
        "version": "1",
        "steps": {"each": {"map": list(range(size.pick(40, 400))), **_sleeps(0.1)}},
    }
    took = []
    for count in (1, 10):
        async with system(slots=4, executors=count) as stack, client_of(stack) as client:
            took.append(await _seconds(client, flow))
    return Figure(
        "P17", "ten executors against one, steps that wait", round(took[0] / took[1], 2), 8, "times", least=True
    )


async def recovered(client: Client, size: Size) -> Figure:
    """F30, P8: of runs whose attempts fail in three of ten cases, those that end well."""
    count = size.pick(20, 300)
    flow = {
        "name": "bench-shaky",
        "version": "1",
        "defaults": {"retry": {"max_attempts": 4, "initial_delay": "50ms", "jitter": 0}},
        "steps": {"shaky": {"call": "bench.shaky", "with": {"i": "${{ input.i }}"}}},
    }
    await client.register_flow(flow)
    handles = [await client.submit("bench-shaky@1", {"i": number}) for number in range(count)]
    good = 0
    for handle in handles:
        try:
            await handle.result()
            good += 1
        except ExecutionFailed:
            continue
    return Figure(
        "F30, P8",
        f"of {count} runs with injected transient failures, those that end well",
        round(good / count * 100, 1),
        70,
        "%",
        least=True,
    )


async def _seconds(client: Client, flow: dict[str, Any]) -> float:
    began = time.perf_counter()
    await client.run(flow, {})
    return time.perf_counter() - began


async def all_of(stack: Stack, client: Client, size: Size) -> list[Figure]:
    """Those that need one system."""
    return [await parallel(client), await many_at_once(client), await recovered(client, size)]
