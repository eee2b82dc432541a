"""How long work stands still after kill -9 of a service: until something completes again, and until all that was under way has completed.

Either the service comes back at once under its name, or it stays away and a second instance takes its work over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tierflow import Client
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

from benchmarks.curves.stage import Curve, Panel, Point, Size, client_of, system

STEPS, PAUSE = 10, 0.05
FLOW = {
    "name": "bench-slow-chain",
    "version": "1",
    "steps": {
        f"s{n}": {"call": "sleep", "with": {"seconds": PAUSE}, **({"needs": [f"s{n - 1}"]} if n else {})}
        for n in range(STEPS)
    },
}
CASES = [
    ("orchestrator", "same name"),
    ("orchestrator", "peer only"),
    ("coordinator", "same name"),
    ("coordinator", "peer only"),
]


@dataclass(slots=True)
class Traffic:
    """Runs that are always under way, and when each began and ended."""

    client: Client
    over: bool = False
    began: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)

    async def keep(self, at_once: int) -> None:
        """Keeps so many runs under way until it is over."""
        await asyncio.gather(*(self._lane(at_once, lane) for lane in range(at_once)))

    async def _lane(self, at_once: int, number: int) -> None:
        while not self.over:
            self.began[number] = time.monotonic()
            await self.client.run("bench-slow-chain@1")
            self.ended[number] = time.monotonic()
            number += at_once


async def measure(size: Size) -> AsyncIterator[Point]:
    """A point for each case and kill. Afterwards the auditor looks at what was stored."""
    for tier, how in CASES:
        alone = how == "same name"
        count: dict[str, Any] = {f"{tier}s": 1 if alone else 2}
        async with system(supervised=alone, **count) as stack, client_of(stack) as client:
            await client.register_flow(FLOW)
            for number in range(size.pick(1, 5)):
                victim = _victim(stack, tier)
                found = await _killed(client, victim, size.pick(8, 50))
                yield {"case": f"{tier}, {how}", "number": number, **found}
                await _back(victim)


def _victim(stack: Stack, tier: str) -> ServiceProcess:
    return (stack.orchestrators if tier == "orchestrator" else stack.coordinators)[0]


async def _killed(client: Client, victim: ServiceProcess, at_once: int) -> Point:
    traffic = Traffic(client)
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.keep(at_once))
        await eventually(lambda: len(traffic.ended) >= 3 * at_once, 60, message="the traffic flows")
        await asyncio.to_thread(victim.kill)
        moment = time.monotonic()
        caught = {number for number, began in traffic.began.items() if began <= moment and number not in traffic.ended}
        await eventually(lambda: caught <= traffic.ended.keys(), 120, message="what was under way has ended")
        traffic.over = True
    after = sorted(at for at in traffic.ended.values() if at > moment)
    return {
        "next_completion_s": round(after[0] - moment, 3),
        "longest_silence_s": round(max(late - early for early, late in zip([moment, *after], after, strict=False)), 3),
        "all_caught_done_s": round(max(traffic.ended[number] for number in caught) - moment, 3),
        "caught": len(caught),
    }


async def _back(victim: ServiceProcess) -> None:
    """The next kill finds everybody there again."""
    if not victim.supervised:
        await asyncio.to_thread(victim.start)
    await eventually(lambda: victim.ready, 60, message=f"{victim.name} serves again")


CURVE = Curve(
    measure,
    [
        Panel("case", "next_completion_s", "seconds until the next completion", bars=True),
        Panel("case", "all_caught_done_s", "seconds until all that was under way has ended", bars=True),
    ],
)
