"""Core to protobuf and back: the events of a swarm as they are stored and published, and results as they come up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_runtime.values import Micros
from tierflow_runtime.wire import (
    OUTCOMES,
    RUN_STATES,
    SWARM_STATES,
    allocation_from_proto,
    allocation_to_proto,
    context_from_proto,
    context_to_proto,
    failure_from_proto,
    failure_to_proto,
    micros,
    options_from_proto,
    options_to_proto,
    payload_from_proto,
    payload_to_proto,
    timestamp,
    usage_from_proto,
    usage_to_proto,
)

from tierflow_coordinator.core import commands, events

_RUN_COMMANDS: Final = {
    "pause": orchestrator.RUN_COMMAND_PAUSE,
    "resume": orchestrator.RUN_COMMAND_RESUME,
    "cancel": orchestrator.RUN_COMMAND_CANCEL,
}


def encode(event: events.SwarmEvent, seq: int, time: Micros) -> bytes:
    """An event as a serialised `tierflow.events.v1.Event`."""
    field, build = _ENCODERS[type(event)]
    message = ev.Event(seq=seq, time=timestamp(time), **{field: build(event)})
    return message.SerializeToString()


def decode(data: bytes) -> Iterable[tuple[int, Micros, events.SwarmEvent]]:
    """The events of a swarm in a serialised `EventBatch`, with sequence number and time.

    Raises:
        ValueError: An event that this build does not know. A build that would lose facts must not go on with the swarm.
    """
    for message in ev.EventBatch.FromString(data).events:
        field = message.WhichOneof("payload")
        decoder = _DECODERS.get(field or "")
        if decoder is None:
            raise ValueError(f"event {message.seq} of a swarm has the unknown payload {field!r}")
        yield message.seq, micros(message.time), decoder(getattr(message, field or ""))


def finish_of(result: run_pb2.RunExecutionResult) -> commands.FinishRun:
    """A run's result as a command for its swarm."""
    return commands.FinishRun(
        run_id=result.context.run_id,
        generation=result.context.generation or 1,
        state=RUN_STATES.name(result.state),
        outcome=OUTCOMES.name(result.outcome),
        output=payload_from_proto(result.output) if result.HasField("output") else None,
        failure=failure_from_proto(result.failure) if result.HasField("failure") else None,
        usage=usage_from_proto(result.usage),
    )


def run_command(effect: commands.CommandRun) -> orchestrator.CommandRunRequest:
    """A command to a run."""
    return orchestrator.CommandRunRequest(
        run_id=effect.run_id,
        command=_RUN_COMMANDS[effect.command],
        command_id=effect.command_id,
        reason=effect.reason,
        actor=effect.actor,
    )


def _created_to_proto(event: events.SwarmCreated) -> ev.SwarmCreated:
    return ev.SwarmCreated(
        context=context_to_proto(event.context),
        flow=flow_pb2.FlowRef(name=event.flow_name, version=event.flow_version, hash=event.flow_hash),
        input=None if event.input is None else payload_to_proto(event.input),
        allocation=allocation_to_proto(event.allocation),
        options=options_to_proto(event.options),
        goal=event.goal,
    )


def _created_from_proto(message: ev.SwarmCreated) -> events.SwarmCreated:
    return events.SwarmCreated(
        context=context_from_proto(message.context),
        flow_hash=message.flow.hash,
        flow_name=message.flow.name,
        flow_version=message.flow.version,
        input=payload_from_proto(message.input) if message.HasField("input") else None,
        allocation=allocation_from_proto(message.allocation),
        options=options_from_proto(message.options),
        goal=message.goal,
    )


def _state_changed_to_proto(event: events.SwarmStateChanged) -> ev.SwarmStateChanged:
    message = ev.SwarmStateChanged(to=SWARM_STATES.number(event.to), reason=event.reason, actor=event.actor)
    setattr(message, "from", SWARM_STATES.number(event.from_))
    return message


def _state_changed_from_proto(message: ev.SwarmStateChanged) -> events.SwarmStateChanged:
    return events.SwarmStateChanged(
        from_=SWARM_STATES.name(getattr(message, "from")),
        to=SWARM_STATES.name(message.to),
        reason=message.reason,
        actor=message.actor,
    )


def _run_finished_to_proto(event: events.RunFinished) -> ev.RunFinished:
    return ev.RunFinished(
        run_id=event.run_id,
        generation=event.generation,
        state=RUN_STATES.number(event.state),
        outcome=OUTCOMES.number(event.outcome),
        output=None if event.output is None else payload_to_proto(event.output),
        failure=None if event.failure is None else failure_to_proto(event.failure),
        usage=usage_to_proto(event.usage),
    )


def _run_finished_from_proto(message: ev.RunFinished) -> events.RunFinished:
    return events.RunFinished(
        run_id=message.run_id,
        generation=message.generation,
        state=RUN_STATES.name(message.state),
        outcome=OUTCOMES.name(message.outcome),
        output=payload_from_proto(message.output) if message.HasField("output") else None,
        failure=failure_from_proto(message.failure) if message.HasField("failure") else None,
        usage=usage_from_proto(message.usage),
    )


def _ended_to_proto(event: events.SwarmEnded) -> ev.SwarmEnded:
    message = ev.SwarmEnded(
        to=SWARM_STATES.number(event.to),
        outcome=OUTCOMES.number(event.outcome),
        output=None if event.output is None else payload_to_proto(event.output),
        failure=None if event.failure is None else failure_to_proto(event.failure),
        usage=usage_to_proto(event.usage),
        reason=event.reason,
        actor=event.actor,
    )
    setattr(message, "from", SWARM_STATES.number(event.from_))
    return message


def _ended_from_proto(message: ev.SwarmEnded) -> events.SwarmEnded:
    return events.SwarmEnded(
        from_=SWARM_STATES.name(getattr(message, "from")),
        to=SWARM_STATES.name(message.to),
        outcome=OUTCOMES.name(message.outcome),
        output=payload_from_proto(message.output) if message.HasField("output") else None,
        failure=failure_from_proto(message.failure) if message.HasField("failure") else None,
        usage=usage_from_proto(message.usage),
        reason=message.reason,
        actor=message.actor,
    )


def _command_from_proto(message: ev.CommandReceived) -> events.CommandReceived:
    return events.CommandReceived(
        command_id=message.command_id, command=message.command, actor=message.actor, reason=message.reason
    )


def _command_to_proto(event: events.CommandReceived) -> ev.CommandReceived:
    return ev.CommandReceived(
        command_id=event.command_id, command=event.command, actor=event.actor, reason=event.reason
    )


_ENCODERS: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    events.SwarmCreated: ("swarm_created", _created_to_proto),
    events.SwarmStateChanged: ("swarm_state_changed", _state_changed_to_proto),
    events.RunRequested: (
        "run_requested",
        lambda event: ev.RunRequested(run_id=event.run_id, generation=event.generation),
    ),
    events.RunTaken: ("run_taken", lambda event: ev.RunTaken(run_id=event.run_id)),
    events.RunFinished: ("run_finished", _run_finished_to_proto),
    events.SwarmEnded: ("swarm_ended", _ended_to_proto),
    events.CommandReceived: ("command_received", _command_to_proto),
}
_DECODERS: Final[dict[str, Callable[[Any], events.SwarmEvent]]] = {
    "swarm_created": _created_from_proto,
    "swarm_state_changed": _state_changed_from_proto,
    "run_requested": lambda message: events.RunRequested(run_id=message.run_id, generation=message.generation),
    "run_taken": lambda message: events.RunTaken(run_id=message.run_id),
    "run_finished": _run_finished_from_proto,
    "swarm_ended": _ended_from_proto,
    "command_received": _command_from_proto,
}
