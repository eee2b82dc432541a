"""How long it takes to be there: a new system, one that was there before, and each service alone."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator

from tierflow import Client
from tierflow_testing.stack import Stack, StackOptions

from benchmarks.curves.stage import Curve, Panel, Point, Size, median, place
from benchmarks.workloads import ONE_STEP, ready


async def measure(size: Size) -> AsyncIterator[Point]:
    """A point for each thing that starts: the median of five times."""
    rounds = [await _round() for _ in range(size.pick(1, 5))]
    for what in rounds[0]:
        yield {
            "what": what,
            **median([{"seconds": each[what]} for each in rounds]),
            "all": [each[what] for each in rounds],
        }


async def _round() -> dict[str, float]:
    directory = place()
    found: dict[str, float] = {}
    stack = Stack(directory, StackOptions())
    try:
        await _started(stack, found, "all, new database")
        for service in (stack.executors[0], stack.orchestrators[0], stack.coordinators[0]):
            await asyncio.to_thread(service.stop)
            began = time.perf_counter()
            await asyncio.to_thread(service.start)
            found[service.name.partition("-")[0]] = round(time.perf_counter() - began, 3)
        await asyncio.to_thread(stack.stop)
        await _started(stack, found, "all, same database")
    finally:
        await asyncio.to_thread(stack.stop, 5.0)
        shutil.rmtree(directory, ignore_errors=True)
    return found


async def _started(stack: Stack, found: dict[str, float], what: str) -> None:
    began = time.perf_counter()
    await asyncio.to_thread(stack.start)
    found[what] = round(time.perf_counter() - began, 3)
    async with Client(stack.address) as client:
        await ready(client)
        await client.register_flow(ONE_STEP)
        await client.run("bench-one@1", {"i": 1})
    found[f"{what}: first result"] = round(time.perf_counter() - began, 3)


CURVE = Curve(measure, [Panel("what", "seconds", "seconds from the start until it serves", bars=True)])
