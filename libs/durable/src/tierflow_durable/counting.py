"""Counts that whoever watches asks for, without disturbing the work (J17)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

KEEP: Final = 1.0
"""Seconds for which a count is good."""

SHARE: Final = 20
"""A count that took long is kept so many times as long: at most a twentieth of the time goes into counting."""


class Counts:
    """One count, asked for at most once a second however many look at it."""

    def __init__(self, count: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
        self._count = count
        self._kept: Mapping[str, int] = {}
        self._good_until = 0.0
        self._lock = asyncio.Lock()

    async def get(self) -> Mapping[str, int]:
        """The count, by name. Raises what counting raises."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            if begun >= self._good_until:
                self._kept = await self._count()
                self._good_until = begun + max(KEEP, SHARE * (loop.time() - begun))
            return self._kept
