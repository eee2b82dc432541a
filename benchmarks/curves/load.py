"""Throughput and latency against offered load, until well beyond saturation.

Runs are submitted at fixed moments, whether or not earlier ones have ended, and latency counts from the moment that was fixed: a system that falls behind
cannot hide it by being asked less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from tierflow import Client

from benchmarks import measuring
from benchmarks.curves.stage import W1, Curve, Panel, Point, Size, client_of, processes, system

RATES = (100, 250, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 5000, 6000, 8000, 10000)
SATURATED = 0.9
"""Share of what was offered below which a system counts as saturated; two such points end the curve."""


async def measure(size: Size) -> AsyncIterator[Point]:
    """A point for each rate."""
    beyond = 0
    async with system() as stack, client_of(stack) as client:
        for rate in size.pick((50, 100), RATES):
            before = measuring.cpu_of(processes(stack))
            point = await offered(client, rate, size.pick(1.0, 10.0, 30.0))
            cpu = measuring.spent(before, measuring.cpu_of(processes(stack)), point["runs"])
            yield {**point, "cpu_us_per_run": round(sum(cpu.values()), 1), "cpu_us": cpu}
            beyond += point["achieved_per_s"] < SATURATED * rate
            if beyond == 2:
                return


async def offered(client: Client, rate: float, seconds: float) -> Point:
    """Offers runs at a rate for some seconds, waits for all of them; `achieved_per_s` counts only ends while runs were offered."""
    began = time.perf_counter()
    ends: list[tuple[float, float]] = []
    under_way: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float) -> None:
        await client.run(W1.flow, W1.given(number))
        ends.append((time.perf_counter(), time.perf_counter() - due))

    count = int(rate * seconds)
    for number in range(count):
        due = began + number / rate
        if (early := due - time.perf_counter()) > 0.001:
            await asyncio.sleep(early)
        elif number % 32 == 0:
            await asyncio.sleep(0)
        run = asyncio.create_task(one(number, due))
        under_way.add(run)
        run.add_done_callback(under_way.discard)
    until = time.perf_counter()
    behind = len(under_way)
    await asyncio.gather(*under_way)
    in_time = sum(at <= until for at, _ in ends)
    return {
        "offered_per_s": rate,
        "achieved_per_s": round(in_time / (until - began), 1),
        "runs": count,
        "under_way_at_the_end": behind,
        **measuring.milliseconds([latency for _, latency in ends]),
    }


CURVE = Curve(
    measure,
    [
        Panel("offered_per_s", "achieved_per_s", "runs/s achieved against runs/s offered"),
        Panel("offered_per_s", "p50_ms", "median latency, ms", log_y=True),
        Panel("offered_per_s", "p99_ms", "p99 latency, ms", log_y=True),
        Panel("offered_per_s", "cpu_us_per_run", "CPU of all services, us a run"),
    ],
)
