"""Handlers of the sustained load: they fail now and then, refuse, call tools."""

from __future__ import annotations

import asyncio
import hashlib

from tierflow import Context, Rejected, handler

FAILING = 0.25
"""Share of attempts that fail."""


@handler("load.flaky")
async def flaky(context: Context, i: int) -> int:
    """Fails in a quarter of its attempts; in which ones is fixed by the attempt's id."""
    drawn = hashlib.sha256(context.attempt_id.encode()).digest()[0] / 256
    if drawn < FAILING:
        raise ConnectionError("injected")
    return i


@handler("load.refuses")
async def refuses(i: int) -> int:
    """Refuses for good."""
    raise Rejected(f"{i} is refused")


@handler("load.nap")
async def nap(seconds: float) -> float:
    """Takes a moment."""
    await asyncio.sleep(seconds)
    return seconds


@handler("load.lookup", tool=True)
async def lookup(i: int) -> dict[str, int]:
    """A tool as a whole."""
    return {"i": i}


@handler("load.agent")
async def agent(context: Context, i: int) -> dict[str, int]:
    """Thinks, and calls two tools, of which the second answers badly."""
    context.progress(kind="thinking", message="what to look for")
    async with context.tool("search") as call:
        call.returned({"i": i})
    try:
        async with context.tool("weather"):
            raise ConnectionError("injected")
    except ConnectionError:
        context.spend(1, input_tokens=10, output_tokens=5)
    return {"i": i}
