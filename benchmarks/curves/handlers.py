"""Handlers for the curves: one that refuses for now, one that never ends."""

from __future__ import annotations

import asyncio

from tierflow import handler


@handler("bench.not_now")
async def not_now() -> None:
    """Fails; another attempt is allowed."""
    raise ConnectionError("not now")


@handler("bench.hold", timeout="24h")
async def hold() -> None:
    """Waits until it is stopped."""
    await asyncio.Event().wait()
