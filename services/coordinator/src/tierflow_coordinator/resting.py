"""Letting swarms go for which there is nothing to do here but wait: a sleeping run must not cost memory in Tier 1 (rule R15)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tierflow_durable.entity import Entity
from tierflow_durable.host import Host

from tierflow_coordinator.core import states
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.runs import Runs
from tierflow_coordinator.waiting import Waiting


class Resting:
    """Swarms that are looked at again after a while. Commands and results find a swarm that was let go by its id (rules R14, R28)."""

    def __init__(self, host: Host[Swarm, Any, Any], runs: Runs, waiting: Waiting, *, after: float) -> None:
        self._host = host
        self._runs = runs
        self._waiting = waiting
        self._after = after
        self._candidates: deque[tuple[float, Entity[Swarm]]] = deque()

    def look(self, entity: Entity[Swarm], after: float | None = None) -> None:
        """Looks after so many seconds (the setting) whether the swarm may be let go."""
        wait = self._after if after is None else after
        self._candidates.append((asyncio.get_running_loop().time() + wait, entity))

    async def run(self) -> None:
        """Lets go, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self._after))
            now = loop.time()
            for _ in range(len(self._candidates)):
                at, entity = self._candidates.popleft()
                if not is_owned(self._host, entity) or entity.state.ended:
                    continue
                if at > now:
                    self._candidates.append((at, entity))
                elif self._may_rest(entity):
                    entity.state.idle = True
                    self._host.touch(entity)
                else:
                    self._candidates.append((now + self._after, entity))

    def _may_rest(self, entity: Entity[Swarm]) -> bool:
        swarm = entity.state
        run = swarm.run
        return (
            run is not None
            and run.taken
            and swarm.state in (states.PAUSED, states.RUNNING)
            and entity.data is None
            and self._runs.settled(run.run_id)
            and not self._waiting.anybody(swarm.swarm_id)
        )


def is_owned(host: Host[Swarm, Any, Any], entity: Entity[Swarm]) -> bool:
    """Whether commands may be applied to it here and now."""
    return host.entities.get(entity.id) is entity and not entity.closing
