"""What has become due: times that fire, times that were missed, swarms to be asked for again."""

from __future__ import annotations

from typing import Final

from tierflow_coordinator.core.schedules import events, states
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.overlap import fire
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.schedules.times import Moment, next_time, text_of
from tierflow_coordinator.core.schedules.turn import Turn

AT_ONCE: Final = 50
"""So many times are dealt with in one decision; with more the schedule wakes again at once."""
MOST_COUNTED: Final = 1000
"""So many missed times are counted one by one."""


def begin_due(turn: Turn) -> None:
    """Deals with everything whose moment has come."""
    schedule = turn.schedule
    for firing in list(schedule.open.values()):
        if firing.state == states.DELAYED and (firing.retry_at or 0) <= turn.now:
            turn.change(firing, state=states.REQUESTED, retry_at=None)
    for _ in range(AT_ONCE):
        moment = schedule.next_moment if schedule.state == states.ACTIVE else None
        if moment is None or moment.fires_at > turn.now:
            return
        if moment.fires_at < turn.now - schedule.spec.catch_up:
            _miss(turn, schedule, moment)
        else:
            fire(turn, Firing(firing_id=text_of(moment.time), kind=states.SCHEDULED, time=moment.time))


def _miss(turn: Turn, schedule: Schedule, first: Moment) -> None:
    """Times that are too long ago pass, all at once."""
    horizon = turn.now - schedule.spec.catch_up
    last, count = first.time, 1
    while count < MOST_COUNTED:
        following = next_time(schedule.spec, last)
        if following is None or following >= horizon - schedule.spec.jitter:
            turn.emit(events.TimesMissed(first=first.time, last=last, count=count))
            return
        last, count = following, count + 1
    turn.emit(
        events.TimesMissed(first=first.time, last=max(last, horizon - schedule.spec.jitter - 1), count=count, more=True)
    )
