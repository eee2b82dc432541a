"""Schedules as clients see them, and why they do not fire."""

from __future__ import annotations

import msgspec
from tierflow_contracts.common.v1 import explanation_pb2
from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.coordinator.v1 import schedule_pb2 as api
from tierflow_runtime.errors import public
from tierflow_runtime.values import Micros
from tierflow_runtime.wire import timestamp

from tierflow_coordinator.core.schedules import states
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.schedules.times import text_of
from tierflow_coordinator.schedules.wire import SCHEDULE_STATES, firing_to_proto, spec_to_proto


def schedule_message(schedule: Schedule, *, seq: int = 0, full: bool = True) -> api.Schedule:
    """A schedule; without what it makes and its firings where it is one of many."""
    counts = schedule.counts
    message = api.Schedule(
        name=schedule.name,
        schedule_id=schedule.schedule_id,
        tenant=schedule.tenant,
        user_id=schedule.user_id,
        state=SCHEDULE_STATES.number(schedule.state),
        reason=schedule.reason,
        actor=schedule.actor,
        spec=spec_to_proto(schedule.spec, swarm=full),
        version=schedule.version,
        open=[firing_message(firing) for firing in schedule.open.values()] if full else [],
        recent=[firing_message(firing) for firing in reversed(schedule.recent[-20 if full else -1 :])],
        counts=api.ScheduleCounts(
            fired=counts.fired,
            succeeded=counts.succeeded,
            failed=counts.failed,
            skipped=counts.skipped,
            missed=counts.missed,
            failed_in_row=counts.failed_in_row,
        ),
        created_at=timestamp(schedule.created_at),
        updated_at=timestamp(schedule.updated_at),
        ended_at=None if schedule.ended_at is None else timestamp(schedule.ended_at),
        seq=seq,
    )
    if schedule.state == states.ACTIVE and (moment := schedule.next_moment) is not None:
        message.next_time.CopyFrom(timestamp(moment.time))
        message.next_fire.CopyFrom(timestamp(moment.fires_at))
    return message


def firing_message(firing: Firing) -> pb.Firing:
    """A firing, without internals (F29)."""
    if firing.failure is not None:
        firing = msgspec.structs.replace(firing, failure=public(firing.failure))
    return firing_to_proto(firing)


def explanation(schedule: Schedule) -> explanation_pb2.Explanation:
    """What it waits for, and what a time that came now would wait for."""
    found = explanation_pb2.Explanation(entity_id=schedule.schedule_id, state=schedule.state)
    if schedule.state == states.PAUSED:
        by = [schedule.actor] if schedule.actor else []
        text = f"it is paused: {schedule.reason or 'no reason was given'}"
        found.blockers.add(kind=explanation_pb2.BLOCKER_KIND_PAUSE, description=text, held_by=by)
    for firing in schedule.open.values():
        _add(found, firing, schedule)
    moment = schedule.next_moment if schedule.state == states.ACTIVE else None
    if moment is not None:
        text = f"its next time is {text_of(moment.time)}"
        until = timestamp(moment.fires_at)
        found.blockers.add(kind=explanation_pb2.BLOCKER_KIND_TIMER, description=text, until=until)
        found.earliest.CopyFrom(until)
    return found


def _add(found: explanation_pb2.Explanation, firing: Firing, schedule: Schedule) -> None:
    """What an open firing says about the times to come."""
    if firing.state == states.DELAYED and firing.failure is not None:
        text = (
            f"the swarm of firing {firing.firing_id} could not be made: {firing.failure.code}, {firing.failure.message}"
        )
        until = None if firing.retry_at is None else timestamp(firing.retry_at)
        found.blockers.add(kind=explanation_pb2.BLOCKER_KIND_BACKOFF, description=text, until=until)
    elif firing.running:
        overlap = schedule.spec.overlap
        text = f"the swarm of firing {firing.firing_id} has not ended (it is {firing.state}); overlap is {overlap}"
        found.blockers.add(
            kind=explanation_pb2.BLOCKER_KIND_CHILD, description=text, held_by=[firing.swarm_id or firing.firing_id]
        )


def time_message(time: Micros, fires_at: Micros) -> api.ScheduleTime:
    """One time."""
    return api.ScheduleTime(time=timestamp(time), fires_at=timestamp(fires_at))
