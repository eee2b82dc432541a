"""The events of a schedule: facts, as the core sees them. `schedules.wire` gives each its message of `tierflow.events.v1`."""

from __future__ import annotations

from typing import TypeAlias

from tierflow_runtime.values import Micros

from tierflow_coordinator.core.events import CommandReceived, Event
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.spec import Spec

__all__ = [
    "BackfillRequested",
    "CommandReceived",
    "FiringChanged",
    "ScheduleCreated",
    "ScheduleEvent",
    "ScheduleStateChanged",
    "ScheduleUpdated",
    "TimesMissed",
]


class ScheduleCreated(Event):
    """The schedule was accepted: everything it was asked for."""

    name: str
    tenant: str
    user_id: str
    roles: tuple[str, ...]
    spec: Spec
    request_id: str = ""
    paused: bool = False
    reason: str = ""


class ScheduleUpdated(Event):
    """It does something else from now on; its times up to now are dealt with."""

    spec: Spec
    version: int
    actor: str = ""


class ScheduleStateChanged(Event):
    """It went from one state to another."""

    from_: str
    to: str
    reason: str = ""
    actor: str = ""
    cancel_running: bool = False


class FiringChanged(Event):
    """A time fired, or what has become of it changed: the firing, whole."""

    firing: Firing


class TimesMissed(Event):
    """Times that passed longer ago than it catches up with; `more` where not all were counted. `last` is dealt with."""

    first: Micros
    last: Micros
    count: int
    more: bool = False


class BackfillRequested(Event):
    """Past times are to fire: they wait, in order, or begin all at once."""

    firing_ids: tuple[str, ...]
    times: tuple[Micros, ...]
    concurrent: bool = False


ScheduleEvent: TypeAlias = (
    ScheduleCreated
    | ScheduleUpdated
    | ScheduleStateChanged
    | FiringChanged
    | TimesMissed
    | BackfillRequested
    | CommandReceived
)
