"""Work with an end that is awaited however the work came out.

This module is never compiled. After a `finally` that awaits, mypyc's code raises whatever error the thread is handling at that moment: by then it may be another
coroutine's, or one that was dealt with long ago (docs/adr/0021). So compiled coroutines call this instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_AGAIN = 0.5
"""Seconds after which what was cancelled and has not ended is cancelled once more."""


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


async def end_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels and returns when all have ended; what they raise is dropped.

    Until Python 3.12 `asyncio.wait_for` loses a cancel that comes in the same moment as a result: who has not ended after a while is cancelled again, else a
    process that was fenced would wait for its own loops and never exit.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
        for task in ended:
            if not task.cancelled():
                task.exception()
