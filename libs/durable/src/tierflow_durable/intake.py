"""How new work comes in: no faster than what is under way leaves room for, so that more work than can be done slows nothing down (J10).

What arrives is taken at once as long as there is room. Else it waits, first come first served, and the work under way goes before it: room is there when few
entities wait for their commit, so new ones get what the others leave. Who would have to wait long is refused at once and told when to come back: the longest
that may wait follows the speed at which waiting ones were taken lately. Nothing here has to be tuned.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

ROOM: Final = 128
"""Entities that wait for a commit, from which new ones are not added: two full commits, so that the next is never smaller for want of work."""

LONGEST_WAIT: Final = 1.0
"""Seconds that the last of those who wait is expected to wait."""
LEAST: Final = 1_024
"""So many may wait however slow it goes: what was just started knows nothing of its speed, and one call may bring a thousand."""
MOST: Final = 20_000
MOST_BYTES: Final = 64 * 1024 * 1024

TOO_OLD: Final = 10.0
"""Seconds after which it is not taken any more: who asked is told to come back, instead of having it done for nobody."""

MEMORY: Final = 2.0
"""Seconds for which the pace remembers."""
SLICE: Final = 32
"""Taken in one turn of the loop; what arrived meanwhile comes in between."""
LOOK_AGAIN: Final = 0.05
"""Seconds after which room is looked for, whoever forgot to tell of it."""
SOONEST, LATEST = 1.0, 10.0
"""Bounds of the seconds after which somebody who is refused may come back."""


class Pace:
    """How fast those who wait are taken, per second, by what was seen in the last seconds. Pure: the moments come in."""

    __slots__ = ("_at", "_mass")

    def __init__(self, now: float) -> None:
        self._at = now
        self._mass = 0.0

    def taken(self, count: int, now: float) -> None:
        """So many were, since the last time."""
        self._mass = self._mass * self._faded(now) + count
        self._at = max(now, self._at)

    def rate(self, now: float) -> float:
        """Per second."""
        return self._mass * self._faded(now) / MEMORY

    def most(self, now: float, least: int = LEAST) -> int:
        """How many may wait."""
        return max(least, min(MOST, int(self.rate(now) * LONGEST_WAIT)))

    def come_back(self, waiting: int, now: float) -> float:
        """Seconds after which there may be room, where so many wait."""
        rate = self.rate(now)
        return min(LATEST, max(SOONEST, waiting / rate)) if rate > 0 else LATEST

    def _faded(self, now: float) -> float:
        return math.exp(-max(0.0, now - self._at) / MEMORY)


class Intake(Generic[T]):
    """Those who wait, and when they are taken. For one event loop."""

    def __init__(
        self,
        *,
        take: Callable[[T, float], None],
        room: Callable[[], bool],
        least: int = LEAST,
        clock: Callable[[], float] | None = None,
        call_later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """Prepares it.

        Args:
            take: Takes one that has waited, with the seconds that it did; by itself where that is longer than `TOO_OLD`.
            room: Whether work under way leaves room for more.
            least: How many may wait however slow it goes.
            clock: Seconds of a clock that never jumps; the loop's.
            call_later: Calls back after seconds; the loop's.
        """
        loop = asyncio.get_running_loop() if clock is None or call_later is None else None
        self._clock: Callable[[], float] = clock or loop.time  # type: ignore[union-attr]
        self._later = call_later or loop.call_later  # type: ignore[union-attr]
        self._take = take
        self._room = room
        self._least = least
        self._pace = Pace(self._clock())
        self._queue: deque[tuple[T, int, float]] = deque()
        self._bytes = 0
        self._timed = self._nudged = False
        self.refused = 0
        """How many had to be refused since the start."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def open(self) -> bool:
        """Whether one that arrives now need not wait."""
        return not self._queue and self._room()

    def wait(self, item: T, size: int) -> float:
        """Lets one wait that has so many bytes; 0.0, or the seconds after which to come back where it may not."""
        now = self._clock()
        waiting = len(self._queue)
        if waiting >= self._pace.most(now, self._least) or (waiting and self._bytes + size > MOST_BYTES):
            self.refused += 1
            return self._pace.come_back(waiting, now)
        self._queue.append((item, size, now))
        self._bytes += size
        self._look_later()
        return 0.0

    def nudge(self) -> None:
        """There may be room."""
        if self._queue and not self._nudged:
            self._nudged = True
            self._later(0.0, self._pump)

    def flush(self) -> None:
        """Takes all who wait, room or not: nothing is going to be done any more, and `take` tells them so."""
        while self._queue:
            self._next(self._clock())

    def _pump(self) -> None:
        self._nudged = False
        now = self._clock()
        count = 0
        while self._queue and count < SLICE and self._room():
            self._next(now)
            count += 1
        self._pace.taken(count, now)
        if count == SLICE:
            self.nudge()

    def _next(self, now: float) -> None:
        item, size, since = self._queue.popleft()
        self._bytes -= size
        self._take(item, now - since)

    def _look_later(self) -> None:
        if not self._timed:
            self._timed = True
            self._later(LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self._timed = False
        self._pump()
        if self._queue:
            self._look_later()
