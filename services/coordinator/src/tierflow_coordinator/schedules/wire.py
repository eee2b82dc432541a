"""Core to protobuf and back: what a schedule does, its firings, and its events as they are stored and published."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_durable.machine import UnknownRecord
from tierflow_runtime.filling import fill_time
from tierflow_runtime.names import OUTCOMES, EnumNames
from tierflow_runtime.values import Micros
from tierflow_runtime.wire import duration, failure_from_proto, failure_to_proto, micros, timestamp

from tierflow_coordinator.core.schedules import events
from tierflow_coordinator.core.schedules import spec as specs
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.spec import Spec

OVERLAPS: Final = EnumNames(pb.OverlapPolicy.items())
SCHEDULE_STATES: Final = EnumNames(pb.ScheduleState.items())
FIRING_STATES: Final = EnumNames(pb.FiringState.items())
FIRING_KINDS: Final = EnumNames(pb.FiringKind.items())
SHORTEST_CATCH_UP: Final[Micros] = 60 * specs.SECOND
"""What an interval catches up with at least, where the schedule does not say."""


def spec_from_proto(message: pb.ScheduleSpec) -> Spec:
    """What a checked message asks for."""
    has = message.HasField
    every = micros(message.every) if has("every") else None
    return Spec(
        cron=tuple(text.strip() for text in message.cron),
        every=every,
        offset=micros(message.offset),
        time_zone=message.time_zone or "UTC",
        start_at=micros(message.start_at) if has("start_at") else None,
        end_at=micros(message.end_at) if has("end_at") else None,
        jitter=micros(message.jitter),
        overlap=OVERLAPS.name(message.overlap) or specs.SKIP,
        max_waiting=message.max_waiting or specs.MAX_WAITING,
        catch_up=micros(message.catch_up) if has("catch_up") else _catch_up(message, every),
        pause_after_failures=message.pause_after_failures,
        max_firings=message.max_firings,
        swarm=message.swarm.SerializeToString(deterministic=True),
        description=message.description,
    )


def _catch_up(message: pb.ScheduleSpec, every: Micros | None) -> Micros:
    """What comes again and again is not made up for: one interval, or a minute."""
    if message.cron or every is None:
        return specs.CATCH_UP
    return min(max(every, SHORTEST_CATCH_UP), specs.CATCH_UP)


def spec_to_proto(spec: Spec, *, swarm: bool = True) -> pb.ScheduleSpec:
    """What a schedule does, as a message; without what it makes where that is not wanted."""
    message = pb.ScheduleSpec(
        cron=spec.cron,
        time_zone=spec.time_zone,
        overlap=OVERLAPS.number(spec.overlap),
        max_waiting=spec.max_waiting,
        catch_up=duration(spec.catch_up),
        pause_after_failures=spec.pause_after_failures,
        max_firings=spec.max_firings,
        description=spec.description,
    )
    for name in ("every", "offset", "jitter"):
        if length := getattr(spec, name):
            getattr(message, name).CopyFrom(duration(length))
    for name in ("start_at", "end_at"):
        if (moment := getattr(spec, name)) is not None:
            getattr(message, name).CopyFrom(timestamp(moment))
    if swarm:
        message.swarm.ParseFromString(spec.swarm)
    return message


def firing_to_proto(firing: Firing) -> pb.Firing:
    """A firing as a message."""
    message = pb.Firing(
        firing_id=firing.firing_id,
        kind=FIRING_KINDS.number(firing.kind),
        state=FIRING_STATES.number(firing.state),
        reason=firing.reason,
        swarm_id=firing.swarm_id,
        outcome=OUTCOMES.number(firing.outcome),
        failure=None if firing.failure is None else failure_to_proto(firing.failure),
        version=firing.version,
    )
    fill_time(message.time, firing.time)
    for name in ("fired_at", "ended_at", "retry_at", "previous"):
        if (moment := getattr(firing, name)) is not None:
            fill_time(getattr(message, name), moment)
    return message


def firing_from_proto(message: pb.Firing) -> Firing:
    """The firing of a message."""

    def moment(name: Literal["fired_at", "ended_at", "retry_at", "previous"]) -> Micros | None:
        return micros(getattr(message, name)) if message.HasField(name) else None

    return Firing(
        firing_id=message.firing_id,
        kind=FIRING_KINDS.name(message.kind),
        time=micros(message.time),
        state=FIRING_STATES.name(message.state),
        reason=message.reason,
        swarm_id=message.swarm_id,
        outcome=OUTCOMES.name(message.outcome),
        failure=failure_from_proto(message.failure) if message.HasField("failure") else None,
        fired_at=moment("fired_at"),
        ended_at=moment("ended_at"),
        retry_at=moment("retry_at"),
        version=message.version or 1,
        previous=moment("previous"),
    )


def encode(event: events.ScheduleEvent, seq: int, time: Micros) -> bytes:
    """An event as a serialised `tierflow.events.v1.Event`."""
    field, make = _ENCODERS[type(event)]
    message = ev.Event(seq=seq, **{field: make(event)})
    fill_time(message.time, time)
    return message.SerializeToString()


def decode(data: bytes) -> Iterable[tuple[int, Micros, events.ScheduleEvent]]:
    """The events of a schedule in a serialised `EventBatch`, with sequence number and time.

    Raises:
        UnknownRecord: An event that this build does not know. A build that would lose facts must not go on with the schedule.
    """
    for message in ev.EventBatch.FromString(data).events:
        field = message.WhichOneof("payload")
        decoder = _DECODERS.get(field or "")
        if decoder is None:
            raise UnknownRecord(f"event {message.seq} of a schedule")
        yield message.seq, micros(message.time), decoder(getattr(message, field or ""))


def _created(event: events.ScheduleCreated) -> ev.ScheduleCreated:
    return ev.ScheduleCreated(
        name=event.name,
        tenant=event.tenant,
        user_id=event.user_id,
        roles=event.roles,
        spec=spec_to_proto(event.spec),
        request_id=event.request_id,
        paused=event.paused,
        reason=event.reason,
    )


def _created_from(message: ev.ScheduleCreated) -> events.ScheduleCreated:
    return events.ScheduleCreated(
        name=message.name,
        tenant=message.tenant,
        user_id=message.user_id,
        roles=tuple(message.roles),
        spec=spec_from_proto(message.spec),
        request_id=message.request_id,
        paused=message.paused,
        reason=message.reason,
    )


def _updated(event: events.ScheduleUpdated) -> ev.ScheduleUpdated:
    return ev.ScheduleUpdated(spec=spec_to_proto(event.spec), version=event.version, actor=event.actor)


def _updated_from(message: ev.ScheduleUpdated) -> events.ScheduleUpdated:
    return events.ScheduleUpdated(spec=spec_from_proto(message.spec), version=message.version, actor=message.actor)


def _state_changed(event: events.ScheduleStateChanged) -> ev.ScheduleStateChanged:
    message = ev.ScheduleStateChanged(
        to=SCHEDULE_STATES.number(event.to),
        reason=event.reason,
        actor=event.actor,
        cancel_running=event.cancel_running,
    )
    setattr(message, "from", SCHEDULE_STATES.number(event.from_))
    return message


def _state_changed_from(message: ev.ScheduleStateChanged) -> events.ScheduleStateChanged:
    return events.ScheduleStateChanged(
        from_=SCHEDULE_STATES.name(getattr(message, "from")),
        to=SCHEDULE_STATES.name(message.to),
        reason=message.reason,
        actor=message.actor,
        cancel_running=message.cancel_running,
    )


def _missed(event: events.TimesMissed) -> ev.TimesMissed:
    return ev.TimesMissed(first=timestamp(event.first), last=timestamp(event.last), count=event.count, more=event.more)


def _missed_from(message: ev.TimesMissed) -> events.TimesMissed:
    return events.TimesMissed(
        first=micros(message.first), last=micros(message.last), count=message.count, more=message.more
    )


def _backfill(event: events.BackfillRequested) -> ev.BackfillRequested:
    return ev.BackfillRequested(
        firing_ids=event.firing_ids, times=[timestamp(time) for time in event.times], concurrent=event.concurrent
    )


def _backfill_from(message: ev.BackfillRequested) -> events.BackfillRequested:
    return events.BackfillRequested(
        firing_ids=tuple(message.firing_ids),
        times=tuple(micros(time) for time in message.times),
        concurrent=message.concurrent,
    )


def _command(event: events.CommandReceived) -> ev.CommandReceived:
    return ev.CommandReceived(
        command_id=event.command_id, command=event.command, actor=event.actor, reason=event.reason
    )


def _command_from(message: ev.CommandReceived) -> events.CommandReceived:
    return events.CommandReceived(
        command_id=message.command_id, command=message.command, actor=message.actor, reason=message.reason
    )


_ENCODERS: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    events.ScheduleCreated: ("schedule_created", _created),
    events.ScheduleUpdated: ("schedule_updated", _updated),
    events.ScheduleStateChanged: ("schedule_state_changed", _state_changed),
    events.FiringChanged: ("firing_changed", lambda event: ev.FiringChanged(firing=firing_to_proto(event.firing))),
    events.TimesMissed: ("times_missed", _missed),
    events.BackfillRequested: ("backfill_requested", _backfill),
    events.CommandReceived: ("command_received", _command),
}
_DECODERS: Final[dict[str, Callable[[Any], events.ScheduleEvent]]] = {
    "schedule_created": _created_from,
    "schedule_updated": _updated_from,
    "schedule_state_changed": _state_changed_from,
    "firing_changed": lambda message: events.FiringChanged(firing=firing_from_proto(message.firing)),
    "times_missed": _missed_from,
    "backfill_requested": _backfill_from,
    "command_received": _command_from,
}
