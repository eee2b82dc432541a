"""Slots of executors for runs that have something to start: least loaded first, and who waits longer before who came later."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeAlias

from tierflow_orchestrator.link import Link

_Wanted: TypeAlias = tuple[str, tuple[tuple[str, str], ...], int]
"""A handler, labels that the executor must have, and the priority of the step."""


class Slots:
    """Reserves slots of connected executors, and keeps the queues of those who found none."""

    def __init__(self, links: Mapping[str, Link], may_start: Callable[[str, str], bool]) -> None:
        self._links = links
        """Of the dispatcher, by key of the executor."""
        self._may_start = may_start
        """Called with run and handler when a slot is free: takes one, or none; returns whether the run still waits."""
        self._waiting: dict[_Wanted, OrderedDict[str, None]] = {}
        """By handler and labels: runs that wait for a slot, in the order in which they came. Who wants labels that nobody has holds nobody else up."""
        self._ranked = False
        """Whether something with a priority has ever waited."""
        self.pumping = ""
        """The run whose turn it is."""

    def reserve(self, run_id: str, handler: str, labels: Mapping[str, str], priority: int = 0) -> Link | None:
        """The least loaded executor with the handler, the labels and a free slot; None puts the run in the queue of the handler with those labels.

        The highest priority is served first, and of equal ones who waits longer: with others in the queue, only the run whose turn it is gets a slot.
        """
        wanted = (handler, tuple(sorted(labels.items())), priority)
        if self.pumping == run_id or not self._others_wait(wanted):
            best: Link | None = None
            for link in self._links.values():
                if (
                    link.free > 0
                    and link.offers(handler, labels)
                    and (best is None or link.used * best.slots < best.used * link.slots)
                ):
                    best = link
            if best is not None:
                return best
        self._waiting.setdefault(wanted, OrderedDict())[run_id] = None
        self._ranked = self._ranked or priority != 0
        return None

    def _others_wait(self, wanted: _Wanted) -> bool:
        """Whether somebody waits for the same who is to be served before."""
        if not self._ranked:
            return bool(self._waiting.get(wanted))
        return any(
            queue and other[:2] == wanted[:2] and other[2] >= wanted[2] for other, queue in self._waiting.items()
        )

    def pump(self) -> None:
        """Gives free slots to those who wait, one each in turn; who cannot take one just now lets the next try."""
        waiting = list(self._waiting.items())
        if self._ranked:
            waiting.sort(key=lambda entry: -entry[0][2])
        for wanted, queue in waiting:
            handler, labels = wanted[0], dict(wanted[1])
            idle = 0
            while idle < len(queue) and self._free(handler, labels):
                run_id, _ = queue.popitem(last=False)
                before = self._used()
                if self._turn_of(run_id, handler):
                    queue[run_id] = None
                    idle = idle + 1 if self._used() == before else 0
            if not queue:
                del self._waiting[wanted]

    def _free(self, handler: str, labels: Mapping[str, str]) -> bool:
        return any(link.free > 0 and link.offers(handler, labels) for link in self._links.values())

    def _used(self) -> int:
        return sum(link.used for link in self._links.values())

    def _turn_of(self, run_id: str, handler: str) -> bool:
        """Lets a run take one slot; whether it still waits."""
        self.pumping = run_id
        try:
            return self._may_start(run_id, handler)
        finally:
            self.pumping = ""

    def forget(self, run_id: str) -> None:
        """The run waits no more."""
        for queue in self._waiting.values():
            queue.pop(run_id, None)

    def position(self, run_id: str, handler: str, labels: Mapping[str, str]) -> int:
        """The run's place among those that wait here for a slot of the handler with these labels, from 1; 0 where it does not."""
        wanted = (handler, tuple(sorted(labels.items())))
        queues = [(key[2], queue) for key, queue in self._waiting.items() if key[:2] == wanted]
        before = 0
        for _, queue in sorted(queues, key=lambda ranked: -ranked[0]):
            if run_id in queue:
                return before + 1 + list(queue).index(run_id)
            before += len(queue)
        return 0

    def waiting_counts(self) -> dict[str, int]:
        """Runs that wait for a slot, by handler."""
        counts: Counter[str] = Counter()
        for (handler, _, _), queue in self._waiting.items():
            if queue:
                counts[handler] += len(queue)
        return dict(counts)
