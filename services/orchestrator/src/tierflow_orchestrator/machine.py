"""Runs for the durable library: the pure core with its coding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from tierflow_durable.machine import Header, Source
from tierflow_runtime.lineage import with_origin
from tierflow_runtime.values import Failure, Micros

from tierflow_orchestrator import wire, wire_steering
from tierflow_orchestrator.core import children, commands, events, snapshot
from tierflow_orchestrator.core.decide import decide
from tierflow_orchestrator.core.evolve import evolve
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.turn import Decision, Reply

_CLASSES: dict[type[Any], str] = {
    **dict.fromkeys((events.RunCreated, events.RunStateChanged, events.RunEnded), "lifecycle"),
    **dict.fromkeys((events.ToolCallBegan, events.ToolCallEnded), "tools"),
    **dict.fromkeys(
        (
            events.ApprovalRequested,
            events.ApprovalDecided,
            events.ApprovalEscalated,
            events.ApprovalResolved,
        ),
        "approvals",
    ),
    **dict.fromkeys(
        (
            events.CommandReceived,
            events.SignalReceived,
            events.BreakpointsSet,
            events.RunUpdated,
            events.RunMigrated,
            events.SignalAnswered,
        ),
        "audit",
    ),
}
"""By kind of event, its class; all others are of steps."""
PARENT = "tierflow.parent"
"""Label of runs that a step of another run asked for: that other run. Clients cannot set labels that begin like this."""
_encoder = msgspec.msgpack.Encoder()
_command_decoder: msgspec.msgpack.Decoder[commands.RunCommand] = msgspec.msgpack.Decoder(commands.RunCommand)
_reply_decoder = msgspec.msgpack.Decoder(Reply)
_WAKE = commands.WakeUp()


class RunMachine:
    """See `tierflow_durable.machine.Machine`."""

    kind = "run"

    def fresh(self, entity_id: str) -> Run:
        """The state before the first event."""
        return Run.fresh(entity_id)

    def decide(self, state: Run, command: commands.RunCommand, now: Micros) -> Decision:
        """Decides and applies."""
        if isinstance(command, commands.Migrate) and command.flow is None:
            command = msgspec.structs.replace(command, flow=wire_steering.compiled(command.definition))
        return decide(state, command, now)

    def evolve(self, state: Run, event: events.RunEvent, time: Micros) -> None:
        """Applies a stored event."""
        evolve(state, event, time)

    def header(self, state: Run) -> Header:
        """The run's row."""
        context = state.context
        ended = state.ended
        return Header(
            tenant=context.tenant,
            user_id=context.user_id,
            state=state.state,
            reason=state.reason,
            name=state.flow_name,
            version=state.flow_version,
            parent_id=context.swarm_id or None,
            trace_id=context.trace_id,
            correlation_id=context.correlation_id,
            labels=_labels(state) if context.attempt_id or state.steer is not None else context.labels,
            outcome=state.outcome,
            generation=state.generation,
            created_at=state.created_at,
            ended_at=state.ended_at if ended else None,
            parked=not ended and is_waiting(state),
            wake_at=state.next_wake(),
            unacknowledged=ended and not state.buried,
        )

    def source(self, state: Run) -> Source:
        """Whose events they are."""
        context = state.context
        return Source(
            tenant=context.tenant, user_id=context.user_id, swarm_id=context.swarm_id, run_id=state.id, trace_id=context.trace_id,
            correlation_id=context.correlation_id, traceparent=context.traceparent,
        )  # fmt: skip

    encode = staticmethod(wire.encode_event)

    def classify(self, event: events.RunEvent) -> str:
        """The event's class."""
        return _CLASSES.get(type(event), "steps")

    def decode(self, data: bytes) -> Iterable[tuple[int, Micros, events.RunEvent]]:
        """Stored events."""
        return wire.decode_events(data)

    def wake_command(self) -> commands.WakeUp:
        """A moment has come."""
        return _WAKE

    def abort_command(self, failure: Failure) -> commands.Abort:
        """A defect was met."""
        return commands.Abort(failure=failure)

    def dump(self, state: Run) -> bytes:
        """A snapshot."""
        return snapshot.dump(state)

    def load(self, data: bytes) -> Run:
        """The run of a snapshot."""
        return snapshot.load(data)

    def dump_command(self, command: commands.RunCommand) -> bytes:
        """A command for its owner."""
        return _encoder.encode(command)

    def load_command(self, data: bytes) -> commands.RunCommand:
        """A forwarded command."""
        return _command_decoder.decode(data)

    def dump_reply(self, reply: Any) -> bytes:
        """An answer for a peer."""
        return _encoder.encode(reply)

    def load_reply(self, data: bytes) -> Reply:
        """A forwarded answer."""
        return _reply_decoder.decode(data)


def is_waiting(run: Run) -> bool:
    """Whether nothing is in flight and nothing may start: it waits for a time, a command or an operator (rule R15)."""
    if run.live and not children.awaited(run):
        return False
    if next(iter(run.ready_handlers()), None) is not None or (run.lookups and run.state == "RUNNING"):
        return False
    return bool(run.live) or run.state in ("SUSPENDED", "PAUSED", "QUEUED") or run.next_wake() is not None


def _labels(run: Run) -> Mapping[str, str]:
    """The run's labels, and what it came from."""
    context, steer = run.context, run.steer
    labels = with_origin(context.labels, steer.reuse if steer is not None else None)
    return {**labels, PARENT: context.parent_id} if context.attempt_id else labels
