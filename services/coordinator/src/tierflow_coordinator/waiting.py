"""Who waits for the end of which swarm, on this instance. A swarm may be owned here, by a peer, by nobody: its end is found all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.durable import Durable
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.views import result_message

log = get_log(__name__)

PAUSE: Final = 0.5
"""Seconds between two looks while the database is away."""

Listener: TypeAlias = Callable[[swarm_pb2.SwarmExecutionResult], None]


class Waiting:
    """Listeners by swarm. Each hears once."""

    def __init__(self, durable: Durable) -> None:
        self._durable = durable
        self._listeners: dict[str, list[Listener]] = {}
        self._followed: set[str] = set()

    def __len__(self) -> int:
        return len(self._listeners)

    def listen(self, swarm_id: str, listener: Listener) -> None:
        """Calls back once with the result of a swarm that exists: at its end, or soon where it has ended."""
        self._listeners.setdefault(swarm_id, []).append(listener)
        entity = self._durable.host.entities.get(swarm_id)
        if entity is None or entity.closing:
            self._follow(swarm_id)

    def leave(self, swarm_id: str, listener: Listener) -> None:
        """The listener has gone. The work goes on."""
        listeners = self._listeners.get(swarm_id)
        if listeners is not None and listener in listeners:
            listeners.remove(listener)
            if not listeners:
                del self._listeners[swarm_id]

    def anybody(self, swarm_id: str) -> bool:
        """Whether anybody waits for it here."""
        return swarm_id in self._listeners

    def answer(self, swarm: Swarm) -> None:
        """The swarm's end is committed: everybody hears."""
        listeners = self._listeners.pop(swarm.swarm_id, None)
        if listeners:
            result = result_message(swarm)
            for listener in listeners:
                listener(result)

    def closed(self, swarm_id: str) -> None:
        """The swarm has left this instance's memory: its end, if it is still to come, happens elsewhere."""
        if swarm_id in self._listeners:
            self._follow(swarm_id)

    def _follow(self, swarm_id: str) -> None:
        if swarm_id not in self._followed:
            self._followed.add(swarm_id)
            self._durable.host.spawn(self._find_end(swarm_id))

    async def _find_end(self, swarm_id: str) -> None:
        """Looks for the end in what is stored, for as long as anybody waits."""
        reader = self._durable.reader
        try:
            while swarm_id in self._listeners:
                try:
                    if await reader.wait_ended(swarm_id, 30.0) and swarm_id in self._listeners:
                        self.answer(await reader.view(swarm_id, lambda swarm: swarm))
                    continue
                except FailureError as error:
                    if error.failure.code == "NOT_FOUND":
                        log.error("somebody waits for a swarm that is not there", swarm_id=swarm_id)
                        return
                    log.info("the end of a swarm cannot be looked for now", code=error.failure.code)
                await asyncio.sleep(PAUSE)
        finally:
            self._followed.discard(swarm_id)
