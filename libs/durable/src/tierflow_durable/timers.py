"""Moments that entities in memory wait for: one heap, one sleeper."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from typing import TYPE_CHECKING, Any

from tierflow_runtime.values import Micros

from tierflow_durable.entity import Entity
from tierflow_durable.machine import Header

if TYPE_CHECKING:
    from tierflow_durable.host import Host


class Timers:
    """Wakes the entities of a host at their moment."""

    def __init__(self, host: Host[Any, Any, Any]) -> None:
        self._host = host
        self._heap: list[tuple[Micros, str]] = []
        self._news = asyncio.Event()

    def set(self, entity: Entity[Any], header: Header) -> None:
        """Wakes the entity when its header says; earlier wishes are dropped when they are met."""
        if header.wake_at is None:
            entity.timer = None
        elif entity.timer != header.wake_at:
            entity.timer = header.wake_at
            heapq.heappush(self._heap, (header.wake_at, entity.id))
            if self._heap[0][1] == entity.id:
                self._news.set()

    async def run(self) -> None:
        """Wakes, for ever."""
        host = self._host
        while True:
            self._news.clear()
            wait = None if not self._heap else max(0.0, (self._heap[0][0] - host.clock.now()) / 1_000_000)
            if wait is None or wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), wait)
            self._wake_due(host.clock.now())

    def _wake_due(self, now: Micros) -> None:
        host = self._host
        while self._heap and self._heap[0][0] <= now:
            due, entity_id = heapq.heappop(self._heap)
            entity = host.entities.get(entity_id)
            if entity is None or entity.timer != due or entity.closing:
                continue
            entity.timer = None
            host.apply(entity, host.machine.wake_command())
            host.touch(entity)
