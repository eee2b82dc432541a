"""How an executor ends: nothing that it accepted is lost (Q22, Lesson 24)."""

from __future__ import annotations

import asyncio

from tierflow_executor.engine import Engine

_BEYOND_GRACE = 2.0  # seconds for results of what was stopped to be delivered and acknowledged


async def drain(engine: Engine, timeout: float) -> bool:
    """Takes nothing new, finishes what there is and waits until its results are acknowledged; says whether all of it was done within `timeout` seconds.

    What still runs when the time is over is stopped, with EXECUTOR_LOST as its result.
    """
    engine.start_draining()
    if len(engine.streams):
        await asyncio.sleep(
            min(timeout, engine.settings.drain_under_way)
        )  # what was sent before they could know is still taken
    if await engine.settled(timeout):
        return True
    for attempt in engine.attempts.under_way():
        engine.runner.stop(attempt.work, "EXECUTOR_LOST", "the executor had to end before the attempt had")
    await engine.settled(engine.settings.grace + _BEYOND_GRACE)
    return False
