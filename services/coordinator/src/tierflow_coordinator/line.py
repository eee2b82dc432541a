"""The line of runs for which no orchestrator has room (J10)."""

from __future__ import annotations

import heapq

from tierflow_coordinator.wanted import Wanted


class Line:
    """Runs that wait for room, the oldest first: their ids are in the order in which they were made."""

    def __init__(self) -> None:
        self._heap: list[tuple[str, int]] = []
        self._waiting: dict[str, Wanted] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._waiting

    def position(self, run_id: str) -> int:
        """How many stand before it, and it itself; 0 where it does not stand in line."""
        if run_id not in self._waiting:
            return 0
        return sum(other <= run_id for other in self._waiting)

    def join(self, wanted: Wanted) -> None:
        """Waits for room; once, however often it is said."""
        if wanted.run_id not in self._waiting:
            self._waiting[wanted.run_id] = wanted
            self._number += 1
            heapq.heappush(self._heap, (wanted.run_id, self._number))

    def leave(self, run_id: str) -> None:
        """Waits no more."""
        self._waiting.pop(run_id, None)

    def next(self) -> Wanted | None:
        """Who has waited longest, out of the line; None where nobody waits."""
        while self._heap:
            run_id, _ = heapq.heappop(self._heap)
            if (wanted := self._waiting.pop(run_id, None)) is not None:
                return wanted
        return None
