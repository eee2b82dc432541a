"""One, two and four orchestrators on one database, with as many executors as ever: what sharing costs on one machine."""

from __future__ import annotations

from collections.abc import AsyncIterator

from benchmarks.curves.stage import Curve, Panel, Point, Size, client_of, memory, standard, system, total


async def measure(size: Size) -> AsyncIterator[Point]:
    """Two points (W1, W2) for each number."""
    for count in size.pick((1, 2), (1, 2, 4)):
        async with system(orchestrators=count) as stack, client_of(stack) as client:
            async for point in standard(stack, client, size):
                yield {"orchestrators": count, **point, "services_mib": total(memory(stack))}


CURVE = Curve(
    measure,
    [
        Panel("orchestrators", "steps_per_s", "steps/s", "workload"),
        Panel("orchestrators", "p99_ms", "p99 latency of a run, ms", "workload"),
        Panel("orchestrators", "cpu_us_per_step", "CPU of all processes, us a step", "workload"),
    ],
)
