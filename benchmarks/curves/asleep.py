"""Cost against the number of runs that are parked: waiting for a distant moment, or paused by an operator. Flat is right. FULL=1 goes to 100,000."""

from __future__ import annotations

from collections.abc import AsyncIterator

from benchmarks.curves.stage import (
    Curve,
    Panel,
    Point,
    Size,
    client_of,
    fill_asleep,
    idle_cpu,
    levels,
    memory,
    standard,
    system,
    total,
)


async def measure(size: Size) -> AsyncIterator[Point]:
    """Two points (W1, W2) for each number and kind. Since runs are left open on purpose, the auditor is not asked."""
    for kind in ("waiting", "paused"):
        rests = {"TIERFLOW_PARK_SECONDS": "1"}
        async with system(audited=False, coordinator_environment=rests) as stack, client_of(stack) as client:
            for asleep, more in levels(size.pick((0, 20), (0, 1_000, 10_000), (0, 1_000, 10_000, 100_000))):
                if more:
                    await fill_asleep(stack, more, paused=kind == "paused")
                idle = await idle_cpu(stack, size.pick(1.0, 10.0))
                used = memory(stack)
                common = {
                    "kind": kind,
                    "asleep": asleep,
                    "idle_cpu_percent": total(idle),
                    "services_mib": total(used, "coordinator", "orchestrator", "executor"),
                    "idle_cpu_percent_of": idle,
                    "pss_mib": used,
                }
                async for point in standard(stack, client, size):
                    yield {**common, **point, "line": f"{point['workload']}, {kind}"}


CURVE = Curve(
    measure,
    [
        Panel("asleep", "steps_per_s", "steps/s", "line"),
        Panel("asleep", "cpu_us_per_step", "CPU of all processes, us a step", "line"),
        Panel("asleep", "idle_cpu_percent", "CPU while idle, % of one processor", "kind"),
        Panel("asleep", "services_mib", "memory of the three services, MiB", "kind"),
    ],
)
