"""Handlers of the thresholds: one that fails now and then in a way that passes."""

from __future__ import annotations

import hashlib

from tierflow import Context, handler

FAILING = 0.3
"""Share of attempts that fail."""


@handler("bench.shaky")
async def shaky(context: Context, i: int) -> int:
    """Fails in three of ten attempts, which ones is fixed by the attempt's id."""
    drawn = hashlib.sha256(context.attempt_id.encode()).digest()[0] / 256
    if drawn < FAILING:
        raise ConnectionError("injected")
    return i
