"""A schedule: its state, and how each event changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from tierflow_runtime.values import Micros

from tierflow_coordinator.core.schedules import events, states
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.spec import Spec
from tierflow_coordinator.core.schedules.times import Moment, next_moment

MAX_KNOWN_COMMANDS: Final = 256
MOST_RECENT: Final = 20


class Counts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What it has counted since it was made."""

    fired: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    missed: int = 0
    failed_in_row: int = 0


class Schedule(msgspec.Struct, kw_only=True):
    """Everything that is known of a schedule; built from its events alone."""

    schedule_id: str
    state: str = states.NEW
    reason: str = ""
    actor: str = ""
    name: str = ""
    tenant: str = ""
    user_id: str = ""
    roles: tuple[str, ...] = ()
    request_id: str = ""
    spec: Spec = Spec()
    version: int = 1
    specs: dict[int, Spec] = {}
    """By version: what firings that are not over were fired by; a swarm that is asked for again is asked for with the same words."""
    cursor: Micros = 0
    """Times up to here are dealt with."""
    previous: Micros | None = None
    """The last time that fired."""
    open: dict[str, Firing] = {}
    """Firings that are not over, oldest first."""
    recent: list[Firing] = []
    """Firings that are over, oldest first."""
    counts: Counts = msgspec.field(default_factory=Counts)
    known_commands: dict[str, str] = {}
    """Command ids that applied, with the firing that they led to, if any; oldest first."""
    created_at: Micros = 0
    updated_at: Micros = 0
    ended_at: Micros | None = None
    cancels: bool = False
    """Being deleted, it cancels swarms that are being made, too."""
    planned: tuple[Micros, int, Moment | None] | None = None
    """Not from events: the next time, and the cursor and version for which it was computed."""

    @property
    def over(self) -> bool:
        """Whether it is in a final state."""
        return self.state in states.OVER

    @property
    def next_moment(self) -> Moment | None:
        """Its next time, whether or not it is paused; None where there are no more."""
        if self.spec.max_firings and self._claimed >= self.spec.max_firings:
            return None
        if self.planned is None or self.planned[:2] != (self.cursor, self.version):
            moment = next_moment(self.spec, self.schedule_id, self.cursor)
            self.planned = (self.cursor, self.version, moment)
        return self.planned[2]

    @property
    def _claimed(self) -> int:
        """Scheduled firings that have begun, or are going to."""
        return self.counts.fired + sum(firing.kind == states.SCHEDULED for firing in self.waiting)

    @property
    def running(self) -> list[Firing]:
        """Firings whose swarm is being made or at work."""
        return [firing for firing in self.open.values() if firing.running]

    @property
    def waiting(self) -> list[Firing]:
        """Firings that wait for an earlier one."""
        return [firing for firing in self.open.values() if firing.state == states.WAITING]

    @property
    def wake_at(self) -> Micros | None:
        """When it has to look again; None where only a command can change anything."""
        moments = [firing.retry_at for firing in self.open.values() if firing.state == states.DELAYED]
        if self.state == states.ACTIVE and (moment := self.next_moment) is not None:
            moments.append(moment.fires_at)
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def busy(self) -> bool:
        """Whether anything is in flight that only its owner brings to an end."""
        return any(firing.state in (states.REQUESTED, states.CANCELLING) for firing in self.open.values())

    def find(self, firing_id: str) -> Firing | None:
        """A firing that is not over, or that was not long ago."""
        found = self.open.get(firing_id)
        return found or next((firing for firing in self.recent if firing.firing_id == firing_id), None)


def _created(schedule: Schedule, event: events.ScheduleCreated, time: Micros) -> None:
    schedule.state = states.PAUSED if event.paused else states.ACTIVE
    schedule.reason = event.reason
    schedule.actor = event.user_id if event.paused else ""
    schedule.name, schedule.tenant, schedule.user_id, schedule.roles = (
        event.name,
        event.tenant,
        event.user_id,
        event.roles,
    )
    schedule.request_id = event.request_id
    schedule.spec = event.spec
    schedule.specs = {1: event.spec}
    schedule.cursor = schedule.created_at = schedule.updated_at = time


def _updated(schedule: Schedule, event: events.ScheduleUpdated, time: Micros) -> None:
    schedule.spec, schedule.version = event.spec, event.version
    schedule.specs = {**schedule.specs, event.version: event.spec}
    schedule.cursor = schedule.updated_at = time
    schedule.counts.failed_in_row = 0
    _forget_specs(schedule)


def _state_changed(schedule: Schedule, event: events.ScheduleStateChanged, time: Micros) -> None:
    if event.from_ == states.PAUSED and event.to == states.ACTIVE:
        # What passed while it was paused has passed.
        schedule.cursor = max(schedule.cursor, time)
        schedule.counts.failed_in_row = 0
    schedule.state, schedule.reason, schedule.actor = event.to, event.reason, event.actor
    schedule.updated_at = time
    schedule.cancels = event.cancel_running
    if event.to in states.OVER:
        schedule.ended_at = time
        schedule.open = {}


def _firing_changed(schedule: Schedule, event: events.FiringChanged, _time: Micros) -> None:
    firing = event.firing
    before = schedule.find(firing.firing_id)
    if before is None and firing.kind == states.SCHEDULED:
        schedule.cursor = max(schedule.cursor, firing.time)
    if firing.state == states.REQUESTED and (before is None or before.state == states.WAITING):
        _fired(schedule, firing)
    if not firing.over:
        schedule.open[firing.firing_id] = firing
        return
    schedule.open.pop(firing.firing_id, None)
    known = [index for index, other in enumerate(schedule.recent) if other.firing_id == firing.firing_id]
    if known:  # A retry of its swarm has ended otherwise.
        _count_end(schedule.counts, schedule.recent[known[0]], -1)
        schedule.recent[known[0]] = firing
        _count_end(schedule.counts, firing, 1)
    else:
        schedule.recent = [*schedule.recent, firing][-MOST_RECENT:]
        _over(schedule, firing)
    _forget_specs(schedule)


def _fired(schedule: Schedule, firing: Firing) -> None:
    if firing.kind == states.SCHEDULED:
        schedule.counts.fired += 1
        schedule.previous = max(schedule.previous or firing.time, firing.time)


def _over(schedule: Schedule, firing: Firing) -> None:
    counts = schedule.counts
    if firing.state == states.SKIPPED:
        counts.skipped += 1
        return
    _count_end(counts, firing, 1)
    if firing.failed:
        counts.failed_in_row += 1
    elif firing.outcome != "CANCELLED":
        counts.failed_in_row = 0


def _count_end(counts: Counts, firing: Firing, by: int) -> None:
    if firing.failed:
        counts.failed += by
    elif firing.outcome not in ("", "CANCELLED"):
        counts.succeeded += by


def _forget_specs(schedule: Schedule) -> None:
    if len(schedule.specs) > 1:
        needed = {schedule.version, *(firing.version for firing in schedule.open.values())}
        schedule.specs = {version: spec for version, spec in schedule.specs.items() if version in needed}


def _missed(schedule: Schedule, event: events.TimesMissed, _time: Micros) -> None:
    schedule.counts.missed += event.count
    schedule.cursor = max(schedule.cursor, event.last)


def _backfill(schedule: Schedule, event: events.BackfillRequested, _time: Micros) -> None:
    for firing_id, time in zip(event.firing_ids, event.times, strict=True):
        schedule.open[firing_id] = Firing(
            firing_id=firing_id,
            kind=states.BACKFILLED,
            time=time,
            state=states.WAITING,
            version=schedule.version,
        )


def _command_received(schedule: Schedule, event: events.CommandReceived, _time: Micros) -> None:
    if len(schedule.known_commands) >= MAX_KNOWN_COMMANDS:
        del schedule.known_commands[next(iter(schedule.known_commands))]
    schedule.known_commands[event.command_id] = event.command


_EVOLVE: dict[type, Callable[[Schedule, Any, Micros], None]] = {
    events.ScheduleCreated: _created,
    events.ScheduleUpdated: _updated,
    events.ScheduleStateChanged: _state_changed,
    events.FiringChanged: _firing_changed,
    events.TimesMissed: _missed,
    events.BackfillRequested: _backfill,
    events.CommandReceived: _command_received,
}


def evolve(schedule: Schedule, event: events.ScheduleEvent, time: Micros) -> None:
    """Applies one event, decided now or stored before."""
    _EVOLVE[type(event)](schedule, event, time)


def evolve_all(schedule: Schedule, many: Iterable[events.ScheduleEvent], time: Micros) -> None:
    """Applies events in order."""
    for event in many:
        evolve(schedule, event, time)
