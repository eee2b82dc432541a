"""The state machine of swarms as the durable library wants it: the core, its coding, and the row that is listed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from tierflow_durable.machine import Header, Source
from tierflow_runtime.lineage import with_origin
from tierflow_runtime.values import Failure, Micros

from tierflow_coordinator import wire
from tierflow_coordinator.core import commands, events, states
from tierflow_coordinator.core.decide import Decision, decide
from tierflow_coordinator.core.swarm import SCHEMA, Swarm, evolve

_AUDIT = frozenset((events.CommandReceived, *events.SHARED))
_COMMANDS = msgspec.msgpack.Decoder(commands.SwarmCommand)
_REPLIES = msgspec.msgpack.Decoder(commands.Reply)
_SWARMS = msgspec.msgpack.Decoder(Swarm)
_ENCODE = msgspec.msgpack.Encoder().encode


class SwarmMachine:
    """A `tierflow_durable.machine.Machine` for swarms."""

    kind = "swarm"

    def fresh(self, entity_id: str) -> Swarm:
        """A swarm before its first event."""
        return Swarm(swarm_id=entity_id)

    def decide(self, state: Swarm, command: commands.SwarmCommand, now: Micros) -> Decision:
        """See `core.decide`."""
        return decide(state, command, now)

    def evolve(self, state: Swarm, event: events.SwarmEvent, time: Micros) -> None:
        """See `core.swarm`."""
        evolve(state, event, time)

    def header(self, state: Swarm) -> Header:
        """The swarm's row."""
        context = state.context
        return Header(
            tenant=context.tenant,
            user_id=context.user_id,
            state=state.state,
            reason=state.reason,
            name=state.flow_name,
            version=state.flow_version,
            trace_id=context.trace_id,
            correlation_id=context.correlation_id,
            labels=context.labels if state.reuse is None else with_origin(context.labels, state.reuse),
            outcome=state.outcome,
            generation=state.generation,
            created_at=state.created_at,
            ended_at=state.ended_at,
            # Its run's end, and any command, finds it by its id.
            parked=state.idle,
            # Ended by force before its run did: the cancel has to go down until there is a receipt, over restarts too.
            # Made by a schedule: that has to hear of its end.
            unacknowledged=state.ended and ((state.state == states.TERMINATED and state.run_open) or state.of_schedule),
        )

    def source(self, state: Swarm) -> Source:
        """Whose events they are."""
        context = state.context
        return Source(
            tenant=context.tenant,
            user_id=context.user_id,
            swarm_id=state.swarm_id,
            run_id="",
            trace_id=context.trace_id,
            correlation_id=context.correlation_id,
            traceparent=context.traceparent,
        )

    encode = staticmethod(wire.encode)

    def classify(self, event: events.SwarmEvent) -> str:
        """What people did is audit, all else is lifecycle."""
        return "audit" if type(event) in _AUDIT else "lifecycle"

    def decode(self, data: bytes) -> Iterable[tuple[int, Micros, events.SwarmEvent]]:
        """See `wire`."""
        return wire.decode(data)

    def wake_command(self) -> commands.SwarmCommand:
        """What a swarm is told when its moment has come."""
        return commands.WakeUp()

    def abort_command(self, failure: Failure) -> commands.SteerSwarm:
        """A defect was met: the swarm is terminated, its run cancelled (F28)."""
        return commands.SteerSwarm(command=states.TERMINATE, command_id="defect", reason=failure.message)

    def dump(self, state: Swarm) -> bytes:
        """The swarm as a snapshot."""
        return _ENCODE(state)

    def load(self, data: bytes) -> Swarm:
        """The swarm of a snapshot."""
        swarm = _SWARMS.decode(data)
        if swarm.schema > SCHEMA:
            raise msgspec.DecodeError(f"schema {swarm.schema}; this build knows {SCHEMA}")
        return swarm

    def dump_command(self, command: commands.SwarmCommand) -> bytes:
        """A command for the owner."""
        return _ENCODE(command)

    def load_command(self, data: bytes) -> commands.SwarmCommand:
        """A forwarded command."""
        command: commands.SwarmCommand = _COMMANDS.decode(data)
        return command

    def dump_reply(self, reply: commands.Reply) -> bytes:
        """An answer for the instance that forwarded."""
        return _ENCODE(reply)

    def load_reply(self, data: bytes) -> commands.Reply:
        """A forwarded answer."""
        return _REPLIES.decode(data)
