"""Handlers of the golden runs (tools/golden.py), and of the test that goes on with those that were open."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tierflow import Context, HandlerFailed, handler


@handler("golden.flaky")
async def flaky(context: Context) -> int:
    """Fails at first."""
    context.log.info("attempt %d", context.attempt)
    context.spend(5, input_tokens=7)
    if context.attempt == 1:
        raise HandlerFailed("not yet", code="NOT_YET", detail="the first")
    return context.attempt


@handler("golden.asks")
async def asks(context: Context) -> int:
    """Calls a tool on its way."""
    async with context.tool("oracle") as call:
        call.returned("42")
    return 42


@handler("golden.long", timeout="10m")
async def long(context: Context) -> str:
    """The first attempt takes long; one after it does not."""
    context.heartbeat({"page": 1})
    await asyncio.sleep(600 if context.attempt == 1 else 0)
    return "done"


@handler("golden.deaf", timeout="1m")
def deaf(context: Context) -> str:
    """Does not hear that it is to stop, and ends later."""
    context.spend(3)
    time.sleep(3)
    return "late"


@handler("golden.grows")
async def grows(context: Context) -> dict[str, Any]:
    """Returns a step more."""
    return {"steps": {"more": {"call": "echo", "with": {"n": 3}}}, "output": "${{ steps.more.output.n }}"}


_failed: set[str] = set()


@handler("golden.fails")
async def fails(context: Context, once: bool = False) -> str:
    """Fails for good, or only the first time in a run."""
    if once and f"{context.run_id}/{context.step_id}" in _failed:
        return "yes"
    _failed.add(f"{context.run_id}/{context.step_id}")
    raise HandlerFailed("no", code="NO", retryable=False, detail="never")
