"""The workloads: flows and how they are driven.

W1: one-step runs, many at once, then one at a time. W2: chains of ten steps, likewise. W3: one run that fans out over 1,000 or 10,000 items and joins. W3
part: the same over 10,000 items of which every tenth fails and is tolerated, never more than 256 at once. All steps are no-ops, so that what is measured is the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tierflow import Client

ONE_STEP = {"name": "bench-one", "version": "1", "steps": {"only": {"call": "echo", "with": {"i": "${{ input.i }}"}}}}

CHAIN = {
    "name": "bench-chain",
    "version": "1",
    "steps": {
        "s0": {"call": "echo", "with": {"i": "${{ input.i }}"}},
        **{f"s{n}": {"call": "echo", "with": {"i": f"${{{{ steps.s{n - 1}.output.i }}}}"}} for n in range(1, 10)},
    },
    "output": "${{ steps.s9.output }}",
}

FAN_OUT = {
    "name": "bench-fan-out",
    "version": "1",
    "steps": {
        "each": {"map": "${{ input.items }}", "call": "echo", "with": {"i": "${{ item }}"}},
        "join": {"call": "echo", "needs": ["each"], "with": {"done": True}},
    },
    "output": "${{ steps.join.output }}",
}


PARTIAL = {
    "name": "bench-partial",
    "version": "1",
    "steps": {
        "each": {
            "map": "${{ input.items }}",
            "call": "bench.nine_of_ten",
            "with": {"i": "${{ item }}"},
            "concurrency": 256,
            "tolerate": 1000,
        },
        "join": {"call": "echo", "needs": ["each"], "with": {"of": "${{ steps.each.output }}"}},
    },
    "output": "${{ steps.join.output.of }}",
}


def nine_of_ten(given: Any) -> Any:
    """What a run of `PARTIAL` must give for 10,000 items: each tenth failed."""
    return [None if i % 10 == 0 else {"i": i} for i in given["items"]]


@dataclass(frozen=True)
class Scenario:
    """One workload: its flow, how many runs, how many of them at once, how many one at a time, steps to a run, and what must come out."""

    flow: dict[str, Any]
    runs: int
    at_once: int
    alone: int
    steps: int
    items: int = 0
    expected: Callable[[Any], Any] = lambda given: {"done": True} if "items" in given else given


SCENARIOS = {
    "w1": Scenario(ONE_STEP, runs=2000, at_once=256, alone=300, steps=1),
    "w2": Scenario(CHAIN, runs=200, at_once=32, alone=20, steps=10),
    "w3": Scenario(FAN_OUT, runs=1, at_once=1, alone=2, steps=1002, items=1000),
    "w3big": Scenario(FAN_OUT, runs=1, at_once=1, alone=0, steps=10002, items=10000),
    "w3part": Scenario(PARTIAL, runs=1, at_once=1, alone=0, steps=10002, items=10000, expected=nine_of_ten),
}


async def drive(client: Client, scenario: Scenario, *, between: Callable[[], None]) -> dict[str, Any]:
    """Drives a workload: some runs to warm up, those alone, then those at once. `between` is called right before the part that counts.

    Returns seconds, latencies in seconds and counts.
    """
    await client.register_flow(scenario.flow)
    name = f"{scenario.flow['name']}@{scenario.flow['version']}"

    async def once(i: int) -> float:
        began = time.perf_counter()
        given: dict[str, Any] = {"items": list(range(scenario.items))} if scenario.items else {"i": i}
        result = await client.run(name, given)
        if result != (scenario.expected(given) if scenario.steps > 1 else {"only": given}):
            raise AssertionError(f"wrong result: {result!r}")
        return time.perf_counter() - began

    for i in range(3 if scenario.items else 20):
        await once(i)
    alone = [await once(i) for i in range(scenario.alone)]
    between()
    began = time.perf_counter()
    latencies = await _at_once(once, scenario)
    return {"seconds": time.perf_counter() - began, "latencies": latencies, "alone": alone}


async def _at_once(once: Callable[[int], Awaitable[float]], scenario: Scenario) -> list[float]:
    numbers = iter(range(scenario.runs))
    latencies: list[float] = []

    async def lane() -> None:
        latencies.extend([await once(i) for i in numbers])

    await asyncio.gather(*(lane() for _ in range(min(scenario.at_once, scenario.runs))))
    return latencies


async def ready(client: Client) -> None:
    """Waits until the orchestrator has met its executors."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(Exception):  # whatever is not up yet
            if await client.executors():
                return
        await asyncio.sleep(0.05)
    raise SystemExit("no executor appeared within 30 s")
