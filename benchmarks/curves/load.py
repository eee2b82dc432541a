"""Throughput and latency against offered load, until saturation, and at twice and five times that.

Runs are offered at fixed moments, whether or not earlier ones have ended, each once and over streams that cost the client next to nothing; latency counts from the
moment that was fixed: a system that falls behind cannot hide it by being asked less. Beyond saturation the rest is to be refused, at once and typed, and as much as
before is to be done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from tierflow import Client
from tierflow.submission import flow_ref, swarm_request
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_testing.flood import Flood
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

from benchmarks import measuring
from benchmarks.curves.stage import W1, Curve, Panel, Point, Size, client_of, memory, processes, system

RATES = (100, 250, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 5000, 6000, 8000, 10000)
SATURATED = 0.9
"""Share of what was offered below which a system counts as saturated."""
BEYOND = (2, 5)
"""Times the most that was done, offered at the end."""
FLOW = flow_ref(W1.flow)


async def measure(size: Size) -> AsyncIterator[Point]:
    """A point for each rate."""
    seconds = size.pick(1.0, 10.0, 30.0)
    peak = 0.0
    async with system() as stack, client_of(stack):
        for rate in size.pick((50, 100), RATES):
            point = await flooded(stack, rate, seconds)
            yield point
            peak = max(peak, point["achieved_per_s"])
            if point["achieved_per_s"] < SATURATED * rate:
                break
        for times in BEYOND:
            point = await flooded(stack, times * peak, seconds)
            yield {**point, "times": times, "of_peak": round(point["achieved_per_s"] / peak, 3)}


async def flooded(stack: Stack, rate: float, seconds: float) -> Point:
    """Offers runs at a rate for some seconds, waits for all that were accepted; `achieved_per_s` counts only ends while runs were offered."""
    flood = Flood([service.address for service in stack.coordinators], _request)
    before, client_before = measuring.cpu_of(processes(stack)), measuring.own_cpu()
    try:
        await flood.offer(rate, seconds)
        behind = flood.open
        resident = memory(stack)
        await eventually(lambda: not flood.open, 120 + 10 * seconds, message="all that is accepted ends")
    finally:
        await flood.close()
    tide = flood.tide
    cpu = measuring.spent(before, measuring.cpu_of(processes(stack)), len(tide.ends))
    if tide.accepted != len(tide.ends) or tide.without_time or set(tide.refused) - {"QUEUE_FULL"}:
        raise SystemExit(f"not everything was answered as it should be: {tide.summary()}")
    return {
        **tide.summary(),
        "offered_per_s": rate,
        "refused_per_s": round(sum(tide.refused.values()) / tide.seconds, 1),
        "under_way_at_the_end": behind,
        "p50_ms": tide.p([took for _, took in tide.ends], 0.5) * 1000,
        "p99_ms": tide.p([took for _, took in tide.ends], 0.99) * 1000,
        "cpu_us_per_run": round(sum(cpu.values()), 1),
        "cpu_us": cpu,
        "client_cpu_us": round((measuring.own_cpu() - client_before) / max(1, tide.offered) * 1e6, 1),
        "memory_mib": resident,
        "resident_mib": round(sum(mib for name, mib in resident.items() if name not in ("postgres", "nats")), 1),
    }


async def offered(client: Client, rate: float, seconds: float) -> Point:
    """Offers runs by the client library at a rate for some seconds, waits for all of them; `achieved_per_s` counts only ends while runs were offered."""
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


def _request(request_id: str) -> swarm_pb2.SwarmExecutionRequest:
    return swarm_request(FLOW, W1.given(1), request_id)


CURVE = Curve(
    measure,
    [
        Panel("offered_per_s", "achieved_per_s", "runs/s achieved against runs/s offered"),
        Panel("offered_per_s", "refused_per_s", "runs/s refused"),
        Panel("offered_per_s", "p50_ms", "median latency of what is accepted, ms", log_y=True),
        Panel("offered_per_s", "p99_ms", "p99 latency of what is accepted, ms", log_y=True),
        Panel("offered_per_s", "cpu_us_per_run", "CPU of all services, us a run that is done"),
        Panel("offered_per_s", "resident_mib", "memory of the three services, MiB"),
    ],
)
