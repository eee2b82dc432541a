"""Memory for each run that is active (in memory, its step under way or waiting for a slot), and for each that is parked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tierflow import Client
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

from benchmarks.curves.stage import (
    Curve,
    Panel,
    Point,
    Size,
    asked,
    client_of,
    fill_asleep,
    levels,
    memory,
    system,
    total,
)

HOLDING = {"name": "bench-holding", "version": "1", "steps": {"held": {"call": "bench.hold", "timeout": "1d"}}}
ACTIVE = "SELECT count(*) FROM orchestrator.entity WHERE owner IS NOT NULL AND ended_at IS NULL"
TIERS = ("coordinator", "orchestrator", "executor")


async def measure(size: Size) -> AsyncIterator[Point]:
    """A point for each number and kind. Runs are left open on purpose; the auditor is not asked."""
    for kind in ("active", "waiting", "paused"):
        environment = {"TIERFLOW_PARK_SECONDS": "3600" if kind == "active" else "1"}
        options: dict[str, Any] = {"audited": False, "coordinator_environment": environment, "slots": 20_000}
        async with system(**options) as stack, client_of(stack):
            before = memory(stack)
            for count, more in levels(size.pick((0, 20), (0, 1_000, 5_000, 10_000))):
                if more and kind == "active":
                    await fill_active(stack, count, more)
                elif more:
                    await fill_asleep(stack, more, paused=kind == "paused")
                yield _point(kind, count, before, memory(stack))


async def fill_active(stack: Stack, count: int, more: int) -> None:
    """Submits runs whose only step never ends; returns when `count` are in memory."""
    numbers = iter(range(more))
    async with Client(stack.address) as client:
        await client.register_flow(HOLDING)

        async def lane() -> None:
            for _ in numbers:
                await client.submit("bench-holding@1")

        await asyncio.gather(*(lane() for _ in range(128)))

    async def all_there() -> bool:
        return await asked(stack, ACTIVE) >= count

    await eventually(all_there, 120, interval=0.5, message="all runs are active")
    await asyncio.sleep(2.0)  # the last attempts are on their way to the executor


def _point(kind: str, count: int, before: dict[str, float], now: dict[str, float]) -> Point:
    each = {
        f"{tier}_kib": round((total(now, tier) - total(before, tier)) * 1024 / count, 2) if count else 0.0
        for tier in TIERS
    }
    all_kib = round(sum(each.values()), 2)
    return {
        "kind": kind,
        "runs": count,
        "services_mib": total(now, *TIERS),
        **each,
        "services_kib": all_kib,
        "pss_mib": now,
    }


CURVE = Curve(
    measure,
    [
        Panel("runs", "services_mib", "memory of the three services, MiB", "kind"),
        Panel("runs", "services_kib", "KiB for each run, three services", "kind"),
        Panel("runs", "orchestrator_kib", "KiB for each run, orchestrator", "kind"),
        Panel("runs", "coordinator_kib", "KiB for each run, coordinator", "kind"),
    ],
)
