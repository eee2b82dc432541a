"""Letting swarms go for which there is nothing to do here but wait: a sleeping run must not cost memory in Tier 1 (rule R15)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from tierflow_durable.entity import Entity
from tierflow_durable.host import Host

from tierflow_coordinator.core import states
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.runs import Runs
from tierflow_coordinator.waiting import Waiting

LOOK_EVERY: Final = 1.0


class Resting:
    """Swarms that are looked at again after a while. Commands and results find a swarm that was let go by its id (rules R14, R28)."""

    def __init__(self, host: Host[Swarm, Any, Any], runs: Runs, waiting: Waiting, *, after: float) -> None:
        self._host = host
        self._runs = runs
        self._waiting = waiting
        self._after = after
        # By id: nearly all have ended long before they are looked at, and would stay in memory until then.
        self._soon: deque[str] = deque()
        self._later: deque[tuple[float, str]] = deque()
        self._changed: set[str] = set()

    def look(self, entity: Entity[Swarm]) -> None:
        """Looks after a while (the setting) whether the swarm may be let go."""
        self._later.append((asyncio.get_running_loop().time() + self._after, entity.id))

    def look_soon(self, entity: Entity[Swarm]) -> None:
        """Looks soon: the swarm waits for a command."""
        self._soon.append(entity.id)

    def look_after_change(self, entity: Entity[Swarm]) -> None:
        """What it shares has changed, which may happen often: looks after a while, once for all changes until then."""
        if entity.id not in self._changed:
            self._changed.add(entity.id)
            self.look(entity)

    async def run(self) -> None:
        """Lets go, until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_EVERY, self._after))
            now = asyncio.get_running_loop().time()
            due = list(self._soon)
            self._soon.clear()
            while self._later and self._later[0][0] <= now:
                due.append(self._later.popleft()[1])
            for swarm_id in due:
                self._changed.discard(swarm_id)
                self._let_go(self._host.entities.get(swarm_id))

    def _let_go(self, entity: Entity[Swarm] | None) -> None:
        if entity is None or entity.closing or entity.state.ended:
            return
        if self._may_rest(entity):
            entity.state.idle = True
            self._host.touch(entity)
        else:
            self.look(entity)

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
