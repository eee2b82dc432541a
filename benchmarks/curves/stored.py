"""Cost against the number of runs that are stored and ended. Flat is right. FULL=1 goes to a million."""

from __future__ import annotations

from collections.abc import AsyncIterator

from benchmarks.curves.stage import W1, Curve, Panel, Point, Size, burst, client_of, levels, standard, system

MOST_AUDITED = 20_000


async def measure(size: Size) -> AsyncIterator[Point]:
    """Two points (W1, W2) for each number. The auditor, who holds all that he reads, is only asked where it is below 20,000."""
    wanted = size.pick((0, 50), (0, 10_000, 100_000), (0, 10_000, 100_000, 1_000_000))
    async with system(audited=wanted[-1] <= MOST_AUDITED) as stack, client_of(stack) as client:
        for stored, more in levels(wanted):
            if more:
                await burst(stack, client, W1, more, 256)
            async for point in standard(stack, client, size):
                yield {"stored": stored, **point}


CURVE = Curve(
    measure,
    [
        Panel("stored", "steps_per_s", "steps/s", "workload"),
        Panel("stored", "p99_ms", "p99 latency of a run, ms", "workload"),
        Panel("stored", "cpu_us_per_step", "CPU of all processes, us a step", "workload"),
    ],
)
