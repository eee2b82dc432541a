"""The moments that a run waits for: heaps from which entries that no longer mean anything are dropped when they are met."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from tierflow_runtime.values import Micros

from tierflow_orchestrator.core.budget import Budgeted
from tierflow_orchestrator.core.step import Step


def earliest(one: Micros | None, other: Micros | None) -> Micros | None:
    """The earlier of two moments, of which each may be never."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


class Clocks(Budgeted):
    """The part of a run that knows its moments; the run has the fields."""

    __slots__ = ()

    steps: dict[str, Step]
    waits: dict[str, None]
    timers: list[tuple[Micros, str]]
    limits: list[tuple[Micros, str]]
    backoff: list[tuple[Micros, str, int]]
    due: set[str]
    ready: dict[str, deque[str]]

    def wait(self, step: Step) -> None:
        """A step has begun to wait."""
        self.waits[step.id] = None
        if step.wakes_at is not None:
            heappush(self.timers, (step.wakes_at, step.id))

    def set_timer(self, step: Step, moment: Micros | None) -> None:
        """Something of a step is over at this moment."""
        if moment is not None:
            heappush(self.timers, (moment, step.id))

    def next_timer(self) -> Micros | None:
        """The moment at which the first wait is over, or the time of a block."""
        while self.timers:
            moment, step_id = self.timers[0]
            if self._times(self.steps[step_id], moment):
                return moment
            heappop(self.timers)
        return None

    def _times(self, step: Step, moment: Micros) -> bool:
        """Whether a timer of the step still means anything."""
        if step.ended:
            return False
        if step.wakes_at == moment and step.id in self.waits:
            return True
        return step.deadline == moment or (step.state == "BACKOFF" and step.next_attempt_at == moment)

    def _next_moment(self) -> Micros | None:
        timer = self.next_timer()
        if self.ledger.owed:
            timer = earliest(timer, self.ledger.next_due())
        return earliest(timer, self.next_limit()) if self.limits else timer

    def next_limit(self) -> Micros | None:
        """The moment at which the first limit in time of a step is over."""
        heap = self.limits
        while heap:
            moment, step_id = heap[0]
            step = self.steps[step_id]
            if not step.stop_to and (moment == step.start_by or moment == step.end_by):
                return moment
            heappop(heap)
        return None

    def _next_due(self) -> Micros | None:
        heap = self.backoff
        while heap:
            due, step_id, epoch = heap[0]
            step = self.steps[step_id]
            if step.state == "BACKOFF" and step.epoch == epoch and step_id not in self.due:
                return due
            heappop(heap)
        return None

    def make_due(self, now: Micros) -> None:
        """Puts the steps whose delay is over among those that may start."""
        while self.backoff and self.backoff[0][0] <= now:
            _, step_id, epoch = heappop(self.backoff)
            step = self.steps[step_id]
            if step.state == "BACKOFF" and step.epoch == epoch and step_id not in self.due:
                self.due.add(step_id)
                self.ready.setdefault(step.handler, deque()).append(step_id)
