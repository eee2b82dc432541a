"""The state machine of schedules as the durable library wants it: the core, its coding, and the row that is listed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from tierflow_durable.machine import Header, Source
from tierflow_runtime.values import Failure, Micros

from tierflow_coordinator.core.schedules import commands, events
from tierflow_coordinator.core.schedules.decide import Decision, decide
from tierflow_coordinator.core.schedules.schedule import Schedule, evolve
from tierflow_coordinator.schedules import wire

_COMMANDS = msgspec.msgpack.Decoder(commands.ScheduleCommand)
_REPLIES = msgspec.msgpack.Decoder(commands.Reply)
_SCHEDULES = msgspec.msgpack.Decoder(Schedule)
_ENCODE = msgspec.msgpack.Encoder().encode


class ScheduleMachine:
    """A `tierflow_durable.machine.Machine` for schedules."""

    kind = "schedule"

    def fresh(self, entity_id: str) -> Schedule:
        """A schedule before its first event."""
        return Schedule(schedule_id=entity_id)

    def decide(self, state: Schedule, command: commands.ScheduleCommand, now: Micros) -> Decision:
        """See `core.schedules.decide`."""
        return decide(state, command, now)

    def evolve(self, state: Schedule, event: events.ScheduleEvent, time: Micros) -> None:
        """See `core.schedules.schedule`."""
        evolve(state, event, time)

    def header(self, state: Schedule) -> Header:
        """The schedule's row."""
        return Header(
            tenant=state.tenant,
            user_id=state.user_id,
            state=state.state,
            reason=state.reason,
            name=state.name,
            version=str(state.version),
            created_at=state.created_at,
            ended_at=state.ended_at,
            # The end of a swarm, and any command, finds it by its id; its next time wakes it.
            parked=not state.busy,
            wake_at=None if state.over else state.wake_at,
        )

    def source(self, state: Schedule) -> Source:
        """Whose events they are."""
        return Source(
            tenant=state.tenant,
            user_id=state.user_id,
            swarm_id=state.schedule_id,
            run_id="",
            trace_id="",
            correlation_id="",
        )

    def encode(self, event: events.ScheduleEvent, seq: int, time: Micros) -> bytes:
        """See `wire`."""
        return wire.encode(event, seq, time)

    def classify(self, event: events.ScheduleEvent) -> str:
        """What people did is audit, all else is lifecycle."""
        return "audit" if type(event) is events.CommandReceived else "lifecycle"

    def decode(self, data: bytes) -> Iterable[tuple[int, Micros, events.ScheduleEvent]]:
        """See `wire`."""
        return wire.decode(data)

    def wake_command(self) -> commands.ScheduleCommand:
        """What a schedule is told when its moment has come."""
        return commands.WakeUp()

    def abort_command(self, failure: Failure) -> commands.ScheduleCommand:
        """A defect was met: the schedule is paused, and says why (F28)."""
        return commands.PauseSchedule(command_id="defect", reason=failure.message)

    def dump(self, state: Schedule) -> bytes:
        """The schedule as a snapshot."""
        return _ENCODE(state)

    def load(self, data: bytes) -> Schedule:
        """The schedule of a snapshot. Its next time is computed anew: the rules of its time zone may be others by now."""
        state = _SCHEDULES.decode(data)
        state.planned = None
        return state

    def dump_command(self, command: commands.ScheduleCommand) -> bytes:
        """A command for the owner."""
        return _ENCODE(command)

    def load_command(self, data: bytes) -> commands.ScheduleCommand:
        """A forwarded command."""
        command: commands.ScheduleCommand = _COMMANDS.decode(data)
        return command

    def dump_reply(self, reply: commands.Reply) -> bytes:
        """An answer for the instance that forwarded."""
        return _ENCODE(reply)

    def load_reply(self, data: bytes) -> commands.Reply:
        """A forwarded answer."""
        return _REPLIES.decode(data)
