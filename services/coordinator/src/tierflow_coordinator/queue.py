"""How much is under way in the whole engine (N4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_durable.counting import Counts
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros
from tierflow_runtime.wire import timestamp

from tierflow_coordinator.core import states

log = get_log(__name__)


class Queue:
    """Counts, at most once a second: watching does not disturb (J17)."""

    def __init__(
        self,
        *,
        swarms: Callable[[], Awaitable[Mapping[str, int]]],
        runs: Callable[[], Awaitable[orchestrator.GetRunQueueResponse]],
        now: Callable[[], Micros],
        max_size: int,
    ) -> None:
        self._swarms = Counts(swarms)
        self._runs = runs
        self._now = now
        self._max_size = max_size
        self._counted: Mapping[str, int] | None = None
        self._kept = api.GetQueueResponse()
        self._lock = asyncio.Lock()

    async def show(self) -> api.GetQueueResponse:
        """The counts. Raises FailureError while the database is away; without Tier 2 the runs are left out."""
        async with self._lock:
            counts = await self._swarms.get()
            if counts is not self._counted:
                self._kept = await self._shown(counts)
                self._counted = counts
            return self._kept

    async def _shown(self, counts: Mapping[str, int]) -> api.GetQueueResponse:
        try:
            runs = await self._runs()
        except FailureError as error:
            log.info("runs are not counted", code=error.failure.code)
            runs = None

        def count(*names: str) -> int:
            return sum(counts.get(name, 0) for name in names)

        return api.GetQueueResponse(
            total=sum(number for name, number in counts.items() if name not in states.ENDED),
            queued=count(states.STARTING),
            running=count(states.RUNNING, states.IDLE),
            paused=count(states.PAUSING, states.PAUSED),
            stopping=count(states.STOPPING),
            max_size=self._max_size,
            completed=count(states.COMPLETED),
            failed=count(states.FAILED),
            cancelled=count(states.STOPPED, states.TERMINATED),
            runs=runs,
            time=timestamp(self._now()),
        )
