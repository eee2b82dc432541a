"""How much is under way in the whole engine (N4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros
from tierflow_runtime.wire import timestamp

from tierflow_coordinator.core import states

log = get_log(__name__)

KEEP: Final = 0.9
"""Seconds for which a count is good: watching does not disturb (J17)."""

SHARE: Final = 20
"""A count that took long is kept so many times as long: at most a twentieth of the time goes into counting."""


class Queue:
    """Counts, at most once a second."""

    def __init__(
        self,
        *,
        under_way: Callable[[], Awaitable[Mapping[str, int]]],
        ended: Callable[[], Awaitable[Mapping[str, int]]],
        runs: Callable[[], Awaitable[orchestrator.GetRunQueueResponse]],
        now: Callable[[], Micros],
        max_size: int,
    ) -> None:
        self._under_way = under_way
        self._ended = ended
        self._runs = runs
        self._now = now
        self._max_size = max_size
        self._kept = api.GetQueueResponse()
        self._good_until = 0.0
        self._lock = asyncio.Lock()

    async def show(self) -> api.GetQueueResponse:
        """The counts. Raises FailureError while the database is away; without Tier 2 the runs are left out."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._good_until:
                begun = loop.time()
                self._kept = await self._count()
                self._good_until = begun + max(KEEP, SHARE * (loop.time() - begun))
            return self._kept

    async def _count(self) -> api.GetQueueResponse:
        alive, ended = await self._under_way(), await self._ended()
        try:
            runs = await self._runs()
        except FailureError as error:
            log.info("runs are not counted", code=error.failure.code)
            runs = None

        def count(counts: Mapping[str, int], *names: str) -> int:
            return sum(counts.get(name, 0) for name in names)

        return api.GetQueueResponse(
            total=sum(alive.values()),
            queued=count(alive, states.STARTING),
            running=count(alive, states.RUNNING, states.IDLE),
            paused=count(alive, states.PAUSING, states.PAUSED),
            stopping=count(alive, states.STOPPING),
            max_size=self._max_size,
            completed=count(ended, states.COMPLETED),
            failed=count(ended, states.FAILED),
            cancelled=count(ended, states.STOPPED, states.TERMINATED),
            runs=runs,
            time=timestamp(self._now()),
        )
