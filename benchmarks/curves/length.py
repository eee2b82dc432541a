"""Cost of a step against the length of its run: one run at a time, as a map and as a chain. Flat is right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from benchmarks.curves.stage import Curve, Panel, Point, Size, Work, burst, client_of, median, system
from benchmarks.workloads import FAN_OUT


def chain(steps: int) -> dict[str, Any]:
    """A flow of steps one after the other."""
    first = {"s0": {"call": "echo", "with": {"i": "${{ input.i }}"}}}
    others = {f"s{n}": {"call": "echo", "with": {"i": f"${{{{ steps.s{n - 1}.output.i }}}}"}} for n in range(1, steps)}
    output = f"${{{{ steps.s{steps - 1}.output }}}}"
    return {"name": f"bench-chain-{steps}", "version": "1", "steps": {**first, **others}, "output": output}


def fan_out(items: int) -> Work:
    """A map over so many items, and the join."""
    given = {"items": list(range(items))}
    return Work("bench-fan-out@1", items + 1, lambda _: given)


async def measure(size: Size) -> AsyncIterator[Point]:
    """A point for each length and shape. A flow has at most 10,000 steps; maps go further."""
    async with system() as stack, client_of(stack) as client:
        await client.register_flow(FAN_OUT)
        for length in size.pick((10, 100), (10, 100, 1_000, 10_000, 100_000)):
            yield {"shape": "map", "length": length, **await _one_at_a_time(stack, client, fan_out(length), size)}
        for length in size.pick((10, 100), (10, 100, 1_000, 10_000)):
            await client.register_flow(chain(length))
            work = Work(f"bench-chain-{length}@1", length, lambda number: {"i": number})
            yield {"shape": "chain", "length": length, **await _one_at_a_time(stack, client, work, size)}


async def _one_at_a_time(stack: Any, client: Any, work: Work, size: Size) -> Point:
    await burst(stack, client, work, 1, 1)  # the orchestrator reads a flow once
    runs = max(1, size.pick(100, 1_000) // work.steps)
    repeat = 1 if work.steps > 10_000 else size.pick(1, 3)
    return median([await burst(stack, client, work, runs, 1) for _ in range(repeat)])


CURVE = Curve(
    measure,
    [
        Panel("length", "us_per_step", "time of a step, us", "shape", log_x=True, log_y=True),
        Panel("length", "cpu_us_per_step", "CPU of all processes, us a step", "shape", log_x=True, log_y=True),
    ],
)
