"""How long things take on a running system: submissions, dispatch, events, checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import nats
from nats.aio.msg import Msg
from tierflow import Client
from tierflow_contracts.events.v1.event_pb2 import EventBatch
from tierflow_runtime.wire import micros
from tierflow_testing.stack import Stack

from benchmarks.curves.load import offered
from benchmarks.curves.stage import W1, Size
from benchmarks.measuring import percentile
from benchmarks.thresholds.figures import Figure
from benchmarks.workloads import ONE_STEP

EVENTS_PER_RUN = 13
"""Lifecycle events of a one-step run, both tiers together."""


async def submissions(client: Client, size: Size) -> Figure:
    """P2: until a submission is stored, ten at once."""
    took = await _timed(lambda number: client.submit(W1.flow, W1.given(number)), size.pick(20, 400), 10)
    return Figure("P2", "a swarm is stored, 95th percentile, 10 at once", _ms(took), 50, "ms")


async def checks(client: Client, size: Size) -> Figure:
    """P16: everything that is looked at before the first step, without running it."""
    took = await _timed(lambda number: client.check_flow(ONE_STEP), size.pick(10, 200), 4)
    return Figure("P16", "a flow and its prerequisites are checked, 95th percentile", _ms(took), 100, "ms")


async def watches(client: Client, size: Size) -> Figure:
    """H9, P11: of many watches that are opened at once, those that are set up and see the end."""
    count = size.pick(10, 300)
    handles = [await client.submit(W1.flow, W1.given(number)) for number in range(count)]
    seen = await asyncio.gather(*(_sees_end(client, handle.id) for handle in handles))
    return Figure(
        "H9, P11", f"of {count} watches, those that see their swarm's end", sum(seen) / count * 100, 99, "%", least=True
    )


async def _sees_end(client: Client, swarm_id: str) -> bool:
    async with asyncio.timeout(30):
        kinds = [getattr(event, "type", "gap") async for event in client.watch(swarm_id)]
    return "swarm_ended" in kinds


async def events(stack: Stack, client: Client, size: Size, rate: float) -> list[Figure]:
    """P3, P15: from an event's decision to a listener's hands, at so many events a second; and from scheduling an attempt to its start."""
    lags: list[float] = []
    scheduled: dict[str, int] = {}
    starts: list[float] = []

    async def heard(message: Msg) -> None:
        now = time.time_ns() // 1000
        for event in EventBatch.FromString(message.data).events:
            lags.append((now - micros(event.time)) / 1e6)
            if event.HasField("step_scheduled"):
                scheduled[event.step_scheduled.attempt_id] = micros(event.time)
            elif event.HasField("step_started"):
                began = scheduled.pop(event.step_started.attempt_id, None)
                if began is not None:
                    starts.append((micros(event.step_started.started_at) - began) / 1e6)

    connection = await nats.connect(stack.nats.url)
    await connection.subscribe("tierflow.v1.>", cb=heard)
    seconds = size.pick(1.0, 8.0)
    began = time.perf_counter()
    await offered(client, rate / EVENTS_PER_RUN, seconds)
    await asyncio.sleep(0.5)  # what is under way arrives
    found = len(lags) / (time.perf_counter() - began - 0.5)
    await connection.close()
    name = f"{rate:g} events/s asked, {found:.0f} seen"
    return [
        Figure("P3, P15", f"from decision to listener, 95th percentile, {name}", _ms(lags), 500, "ms"),
        Figure(
            "P15", f"from scheduling an attempt to its start in Tier 3, 95th percentile, {name}", _ms(starts), 100, "ms"
        ),
    ]


async def _timed(call: Callable[[int], Awaitable[object]], count: int, at_once: int) -> list[float]:
    numbers: Iterator[int] = iter(range(count))
    took: list[float] = []

    async def lane() -> None:
        for number in numbers:
            began = time.perf_counter()
            await call(number)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(lane() for _ in range(at_once)))
    return took


def _ms(values: list[float]) -> float:
    return round(percentile(values, 0.95) * 1000, 2)
