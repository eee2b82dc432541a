"""One decision under way: its moment, the events so far, each applied as it is emitted."""

from __future__ import annotations

from typing import Any

import msgspec
from tierflow_runtime.values import Micros

from tierflow_coordinator.core.schedules import events, states
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.schedule import Schedule, evolve


class Turn:
    """Collects what is decided."""

    __slots__ = ("events", "now", "schedule")

    def __init__(self, schedule: Schedule, now: Micros) -> None:
        self.schedule = schedule
        self.now = now
        self.events: list[events.ScheduleEvent] = []

    def emit(self, event: events.ScheduleEvent) -> None:
        """Decides an event."""
        evolve(self.schedule, event, self.now)
        self.events.append(event)

    def move(self, to: str, reason: str, actor: str, *, cancel_running: bool = False) -> None:
        """Takes the schedule to another state. Raises FailureError for a transition that is not in the table."""
        states.check(self.schedule.state, to)
        self.emit(
            events.ScheduleStateChanged(
                from_=self.schedule.state, to=to, reason=reason, actor=actor, cancel_running=cancel_running
            )
        )

    def change(self, firing: Firing, *, state: str, **fields: Any) -> Firing:
        """Takes a firing to another state. Raises FailureError for a transition that is not in the table."""
        states.check_firing(firing.state, state)
        changed = msgspec.structs.replace(firing, state=state, **fields)
        self.emit(events.FiringChanged(firing=changed))
        return changed
