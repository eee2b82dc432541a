"""Work with an end that is awaited however the work came out.

This module is never compiled. After a `finally` that awaits, mypyc's code raises whatever error the thread is handling at that moment: by then it may be another
coroutine's, or one that was dealt with long ago (docs/adr/0021). So compiled coroutines call this instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def afterwards(work: Awaitable[object], end: Callable[[], Awaitable[T]]) -> T:
    """Awaits `work`, then `end()`; returns what that returns, or raises what `work` raised."""
    try:
        await work
    finally:
        ended = await end()
    return ended


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Awaits all of them, side by side; where one raises, the others are cancelled. As a task group, whose end awaits too, and raises a group."""
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)
