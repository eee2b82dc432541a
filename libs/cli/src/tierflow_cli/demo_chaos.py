"""Killing services on the way, and what the journal has to say about it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tierflow_contracts.events.v1.event_pb2 import EventBatch
from tierflow_testing.waiting import eventually

from tierflow_cli import text

if TYPE_CHECKING:
    from tierflow_testing.processes import ServiceProcess
    from tierflow_testing.stack import Stack


_ENDS = ("step_completed", "step_failed", "step_skipped", "step_cancelled")


class Chaos:
    """Kills executor, orchestrator and coordinator once each, one after the other, as the work goes on."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._say = say
        self._plan: list[tuple[float, ServiceProcess]] = [
            (0.05, stack.executors[0]),
            (0.3, stack.orchestrators[0]),
            (0.5, stack.coordinators[0]),
        ]
        self._comebacks: list[asyncio.Task[None]] = []

    def at(self, share: float) -> None:
        """Kills the next one, where so much of the work is done, whether the last one serves again or not."""
        if self._plan and share >= self._plan[0][0]:
            _, service = self._plan.pop(0)
            self._say(f"kill -9 {service.pid}: {service.name}, at {share:.0%} of the files")
            began, pid = time.monotonic(), service.pid
            service.kill()
            self._comebacks.append(asyncio.create_task(self._back(service, pid, began)))

    async def settled(self) -> None:
        """Kills whom the work did not wait for, and returns when all serve again."""
        while self._plan or self._comebacks:
            await asyncio.gather(*self._comebacks)
            self._comebacks.clear()
            self.at(1.0)

    async def _back(self, service: ServiceProcess, pid: int, began: float) -> None:
        await eventually(lambda: service.pid != pid and service.ready, 60, message=f"{service.name} serves again")
        self._say(f"{service.name} serves again after {text.span(time.monotonic() - began)}, as process {service.pid}")


Finding = tuple[bool, str]
"""Whether it holds, and what it says."""


def findings(swarm: EventBatch, run: EventBatch, seen: Counter[tuple[str, int]]) -> list[Finding]:
    """What the histories of a swarm and its run show. `seen`: how often a watch brought each event."""
    return [
        _numbers(swarm, run),
        _watched(swarm, run, seen),
        *_steps(run),
        _attempts(run),
        (_count(swarm, "swarm_ended") == 1 and _count(run, "run_ended") == 1, "swarm and run ended once"),
    ]


def _numbers(swarm: EventBatch, run: EventBatch) -> Finding:
    gapless = all(
        [event.seq for event in batch.events] == list(range(1, len(batch.events) + 1)) for batch in (swarm, run)
    )
    return gapless, f"{len(run.events)} events of the run and {len(swarm.events)} of the swarm, numbered without gaps"


def _watched(swarm: EventBatch, run: EventBatch, seen: Counter[tuple[str, int]]) -> Finding:
    stored = Counter((batch.source.entity_id, event.seq) for batch in (swarm, run) for event in batch.events)
    return stored == seen, f"the watch brought all {len(stored)} of them, each once, over its broken connections"


def _steps(run: EventBatch) -> list[Finding]:
    ended = Counter(event.step_id for event in run.events if event.WhichOneof("payload") in _ENDS)
    maps = [event for event in run.events if event.HasField("items_expanded")]
    items = {f"{event.step_id}[{n}]" for event in maps for n in range(event.items_expanded.count)}
    return [
        (items <= ended.keys() and not _count(run, "step_failed"), f"all {len(items)} files were looked at"),
        (set(ended.values()) == {1}, f"{len(ended)} steps ended, each once"),
    ]


def _attempts(run: EventBatch) -> Finding:
    given = Counter(event.step_scheduled.attempt_id for event in run.events if event.HasField("step_scheduled"))
    again = _count(run, "step_retrying")
    lost = f"; {again} were lost with the executor and made again" if again else ""
    return set(given.values()) == {1}, f"{len(given)} attempts were given out, each once{lost}"


def _count(batch: EventBatch, kind: str) -> int:
    return sum(event.WhichOneof("payload") == kind for event in batch.events)
