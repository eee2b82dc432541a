"""Core to protobuf and back: the events of a swarm as they are stored and published, and results as they come up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.machine import UnknownRecord
from tierflow_runtime.filling import fill_allocation, fill_context, fill_payload, fill_time, fill_usage
from tierflow_runtime.ledger import DIMENSIONS
from tierflow_runtime.lineage import fill_reuse, reuse_from_proto
from tierflow_runtime.values import Context, Micros
from tierflow_runtime.wire import (
    OUTCOMES,
    RUN_STATES,
    SWARM_STATES,
    allocation_from_proto,
    context_from_proto,
    context_to_proto,
    failure_from_proto,
    failure_to_proto,
    fill_options,
    micros,
    options_from_proto,
    payload_from_proto,
    timestamp,
    usage_from_proto,
)

from tierflow_coordinator import wire_context, wire_plan
from tierflow_coordinator.core import commands, events

_RUN_COMMANDS: Final = {
    "pause": orchestrator.RUN_COMMAND_PAUSE,
    "interrupt": orchestrator.RUN_COMMAND_PAUSE,
    "retry": orchestrator.RUN_COMMAND_RETRY,
    "resume": orchestrator.RUN_COMMAND_RESUME,
    "cancel": orchestrator.RUN_COMMAND_CANCEL,
}


def encode(event: events.SwarmEvent, seq: int, time: Micros) -> bytes:
    """An event as a serialised `tierflow.events.v1.Event`."""
    field, fill = _ENCODERS[type(event)]
    message = ev.Event(seq=seq)
    fill_time(message.time, time)
    # Filled in place: a message that is built apart is copied into the one that holds it, at twice the cost of everything else here.
    fill(getattr(message, field), event)
    return message.SerializeToString()


def decode(data: bytes) -> Iterable[tuple[int, Micros, events.SwarmEvent]]:
    """The events of a swarm in a serialised `EventBatch`, with sequence number and time.

    Raises:
        UnknownRecord: An event that this build does not know. A build that would lose facts must not go on with the swarm.
    """
    for message in ev.EventBatch.FromString(data).events:
        field = message.WhichOneof("payload")
        decoder = _DECODERS.get(field or "")
        if decoder is None:
            raise UnknownRecord(f"event {message.seq} of a swarm")
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


def run_command(effect: commands.CommandRun, context: Context | None = None) -> orchestrator.CommandRunRequest:
    """A command to a run; with the run's context, where it may come before the run (rule R29)."""
    request = orchestrator.CommandRunRequest(
        context=None if context is None else context_to_proto(context),
        run_id=effect.run_id,
        command=_RUN_COMMANDS[effect.command],
        command_id=effect.command_id,
        reason=effect.reason,
        actor=effect.actor,
        generation=effect.generation,
        supersedes=effect.supersedes,
    )
    if effect.command == "interrupt":
        request.pause_mode = orchestrator.PAUSE_MODE_INTERRUPT
    if effect.deadline is not None:
        request.changes.deadline.CopyFrom(timestamp(effect.deadline))
    if effect.allocation is not None:
        for name in DIMENSIONS:
            amount = getattr(effect.allocation, name)
            if amount != 0:  # 0 would take the limit away: nothing was granted, and that stays so.
                setattr(request.changes, name, amount or 0)
    return request


def _fill_created(message: ev.SwarmCreated, event: events.SwarmCreated) -> None:
    fill_context(message.context, event.context)
    flow = message.flow
    flow.name = event.flow_name
    flow.version = event.flow_version
    flow.hash = event.flow_hash
    fill_payload(message.input, event.input)
    fill_allocation(message.allocation, event.allocation)
    fill_options(message.options, event.options)
    message.goal = event.goal
    if event.reuse is not None:
        fill_reuse(message.reuse, event.reuse)
    if event.plan:
        wire_plan.fill_created(message, event)


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
        reuse=reuse_from_proto(message.reuse) if message.HasField("reuse") else None,
        plan=wire_plan.plan_of(message.plan) if message.plan else (),
        plan_output=message.plan_output,
    )


def _fill_state_changed(message: ev.SwarmStateChanged, event: events.SwarmStateChanged) -> None:
    setattr(message, "from", SWARM_STATES.number(event.from_))
    message.to = SWARM_STATES.number(event.to)
    message.reason = event.reason
    message.actor = event.actor


def _state_changed_from_proto(message: ev.SwarmStateChanged) -> events.SwarmStateChanged:
    return events.SwarmStateChanged(
        from_=SWARM_STATES.name(getattr(message, "from")),
        to=SWARM_STATES.name(message.to),
        reason=message.reason,
        actor=message.actor,
    )


def _fill_taken(message: ev.RunTaken, event: events.RunTaken) -> None:
    message.run_id = event.run_id


def _fill_finished(message: ev.RunFinished, event: events.RunFinished) -> None:
    message.run_id = event.run_id
    message.generation = event.generation
    message.state = RUN_STATES.number(event.state)
    message.outcome = OUTCOMES.number(event.outcome)
    fill_payload(message.output, event.output)
    if event.failure is not None:
        message.failure.CopyFrom(failure_to_proto(event.failure))
    fill_usage(message.usage, event.usage)


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


def _fill_ended(message: ev.SwarmEnded, event: events.SwarmEnded) -> None:
    setattr(message, "from", SWARM_STATES.number(event.from_))
    message.to = SWARM_STATES.number(event.to)
    message.outcome = OUTCOMES.number(event.outcome)
    fill_payload(message.output, event.output)
    if event.failure is not None:
        message.failure.CopyFrom(failure_to_proto(event.failure))
    fill_usage(message.usage, event.usage)
    message.reason = event.reason
    message.actor = event.actor


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


def _fill_command(message: ev.CommandReceived, event: events.CommandReceived) -> None:
    message.command_id = event.command_id
    message.command = event.command
    message.actor = event.actor
    message.reason = event.reason


_ENCODERS: Final[dict[type, tuple[str, Callable[[Any, Any], None]]]] = {
    events.SwarmCreated: ("swarm_created", _fill_created),
    events.SwarmStateChanged: ("swarm_state_changed", _fill_state_changed),
    events.RunRequested: ("run_requested", wire_plan.fill_requested),
    events.PlanDecided: ("plan_decided", wire_plan.fill_decided),
    events.RunTaken: ("run_taken", _fill_taken),
    events.RunFinished: ("run_finished", _fill_finished),
    events.SwarmEnded: ("swarm_ended", _fill_ended),
    events.CommandReceived: ("command_received", _fill_command),
    **wire_context.ENCODERS,
}
_DECODERS: Final[dict[str, Callable[[Any], events.SwarmEvent]]] = {
    "swarm_created": _created_from_proto,
    "swarm_state_changed": _state_changed_from_proto,
    "run_requested": wire_plan.requested_from_proto,
    "plan_decided": wire_plan.decided_from_proto,
    "run_taken": lambda message: events.RunTaken(run_id=message.run_id),
    "run_finished": _run_finished_from_proto,
    "swarm_ended": _ended_from_proto,
    "command_received": _command_from_proto,
    **wire_context.DECODERS,
}
