"""How much is under way: what this instance started and ended, on top of what was last counted over all instances."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tierflow_runtime.values import FailureError

COUNT_EVERY: Final = 5.0


class Load:
    """Swarms under way, without counting for each admission. Exact while one instance takes swarms; a few seconds behind on what its peers do."""

    def __init__(self) -> None:
        self._counted = 0
        self._since = 0

    @property
    def under_way(self) -> int:
        """Swarms that have not ended, over all instances."""
        return max(0, self._counted + self._since)

    def started(self) -> None:
        """A swarm is being stored."""
        self._since += 1

    def withdrawn(self) -> None:
        """It was not: a repetition, or refused."""
        self._since -= 1

    def ended(self) -> None:
        """A swarm owned here has ended."""
        self._since -= 1

    async def run(self, count: Callable[[], Awaitable[dict[str, int]]], every: float = COUNT_EVERY) -> None:
        """Counts again and again, until cancelled."""
        while True:
            before = self._since
            try:
                counted = sum((await count()).values())
            except FailureError:
                await asyncio.sleep(every)
                continue
            # What happened while it was counted may be in the count or not; it is kept until the next time.
            self._counted = counted
            self._since -= before
            await asyncio.sleep(every)
