"""One timer for all attempts: each has at most one moment at which somebody must look at it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

TICK = 0.02
"""Seconds; moments are rounded up to it."""


class Timed(Protocol):
    """Something that can be put on a wheel."""

    place: int


T = TypeVar("T", bound=Timed)


class Wheel(Generic[T]):
    """Calls `due(item)` when the moment of an item has come, and `broken(error)` where that raises. Putting on and taking off cost the same however many there are.

    An item's `place` is the wheel's; 0 means that it is not on it.
    """

    def __init__(self, due: Callable[[T], None], broken: Callable[[BaseException], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = due
        self._broken = broken
        self._places: dict[int, dict[int, T]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0

    def put(self, item: T, moment: float) -> None:
        """Has an item looked at at `moment` (the loop's clock), instead of any moment before."""
        if item.place:
            self.remove(item)
        place = int(moment / TICK) + 1
        slot = self._places.get(place)
        if slot is None:
            slot = self._places[place] = {}
            heapq.heappush(self._order, place)
            if self._timer is None or place < self._armed:
                self._arm(place)
        slot[id(item)] = item
        item.place = place

    def remove(self, item: T) -> None:
        """Takes an item off, where it is on."""
        slot = self._places.get(item.place)
        item.place = 0
        if slot is not None:
            slot.pop(id(item), None)

    def _arm(self, place: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = place
        self._timer = self._loop.call_at(place * TICK, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = int(self._loop.time() / TICK)
        ready: list[T] = []
        while self._order and (self._order[0] <= now or not self._places[self._order[0]]):
            ready.extend(self._places.pop(heapq.heappop(self._order)).values())
        for item in ready:
            item.place = 0
        if self._order:
            self._arm(self._order[0])
        for item in ready:
            try:
                self._due(item)
            except Exception as error:  # noqa: BLE001 - one that fails must not keep the others from being looked at
                self._broken(error)

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
