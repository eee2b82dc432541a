"""The core's events, commands and states as messages, and back: the one place beside the service that sees generated code."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime import wire
from tierflow_runtime.filling import fill_time
from tierflow_runtime.values import Micros

from tierflow_orchestrator import wire_approvals, wire_blocks, wire_serverless, wire_tools
from tierflow_orchestrator import wire_steering as steering
from tierflow_orchestrator.core import commands, events
from tierflow_orchestrator.wire_filling import FILLERS
from tierflow_orchestrator.wire_reading import decode_events, log_lines

__all__ = ["decode_events", "encode_event", "log_lines", "moment", "result_command"]

RUN, STEP, OUTCOME = wire.RUN_STATES, wire.STEP_STATES, wire.OUTCOMES


@lru_cache(maxsize=256)
def moment(at: Micros) -> Timestamp:
    """A moment as a message; events of one decision share it."""
    return wire.timestamp(at)


# --- events to messages ---


def _command_received(e: events.CommandReceived) -> dict[str, Any]:
    return {
        "command_received": ev.CommandReceived(
            command_id=e.command_id,
            command=e.command,
            actor=e.actor,
            reason=e.reason,
            detail=e.detail,
            superseded=e.superseded,
        )
    }


def _items_expanded(e: events.ItemsExpanded) -> dict[str, Any]:
    return {"step_id": e.step_id, "items_expanded": ev.ItemsExpanded(count=e.count)}


def _step_retrying(e: events.StepRetrying) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "attempt": e.attempt,
        "step_retrying": ev.StepRetrying(
            attempt_id=e.attempt_id,
            failure=wire.failure_to_proto(e.failure),
            next_attempt_at=moment(e.next_attempt_at),
            usage=wire.usage_to_proto(e.usage),
        ),
    }


def _step_cancelled(e: events.StepCancelled) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "attempt": e.attempt,
        "step_cancelled": ev.StepCancelled(
            attempt_id=e.attempt_id,
            reason=e.reason,
            usage=wire.usage_to_proto(e.usage),
            confirmed=e.confirmed,
            ended_as=STEP.number(e.ended_as),
        ),
    }


def _variables_set(e: events.VariablesSet) -> dict[str, Any]:
    variables = [
        ev.VariableSet(name=v.name, value=wire.payload_to_proto(v.value), merged_from=v.merged_from, policy=v.policy)
        for v in e.variables
    ]
    return {"step_id": e.step_id, "variables_set": ev.VariablesSet(variables=variables)}


def _child_told(e: events.ChildTold) -> dict[str, Any]:
    return {"step_id": e.step_id, "child_told": ev.ChildTold(attempt_id=e.attempt_id, paused=e.paused)}


def _late_result(e: events.LateResult) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "late_result": ev.LateResult(
            attempt_id=e.attempt_id,
            state=STEP.number(e.state),
            usage=wire.usage_to_proto(e.usage),
            charged=None if e.charged is None else wire.usage_to_proto(e.charged),
        ),
    }


def _hold_charged(e: events.HoldCharged) -> dict[str, Any]:
    charged = ev.HoldCharged(attempt_id=e.attempt_id, usage=wire.usage_to_proto(e.usage))
    return {"step_id": e.step_id, "hold_charged": charged}


def _attempt_logged(e: events.AttemptLogged) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "attempt": e.attempt,
        "attempt_logged": ev.AttemptLogged(
            attempt_id=e.attempt_id,
            lines=[
                step_pb2.LogLine(time=wire.timestamp(line.time), stream=line.stream, text=line.text) for line in e.lines
            ],
        ),
    }


def _step_waiting(e: events.StepWaiting) -> dict[str, Any]:
    until = None if e.until is None else moment(e.until)
    return {"step_id": e.step_id, "step_waiting": ev.StepWaiting(reason=e.reason, until=until)}


def _event_emitted(e: events.EventEmitted) -> dict[str, Any]:
    emitted = ev.EventEmitted(name=e.name, payload=wire.payload_to_proto(e.payload))
    return {"step_id": e.step_id, "event_emitted": emitted}


def _signal_received(e: events.SignalReceived) -> dict[str, Any]:
    payload = wire.payload_to_proto(e.payload)
    return {"signal_received": ev.SignalReceived(signal_id=e.signal_id, name=e.name, payload=payload, actor=e.actor)}


_ENCODERS: dict[type[Any], Callable[[Any], dict[str, Any]]] = {
    events.CommandReceived: _command_received,
    events.ItemsExpanded: _items_expanded,
    events.StepRetrying: _step_retrying,
    events.StepSkipped: steering.step_skipped,
    events.StepCancelled: _step_cancelled,
    events.CacheMissed: lambda e: {"step_id": e.step_id, "cache_missed": ev.CacheMissed(key_hash=e.key_hash)},
    events.VariablesSet: _variables_set,
    events.ChildTold: _child_told,
    events.LateResult: _late_result,
    events.HoldCharged: _hold_charged,
    events.AttemptLogged: _attempt_logged,
    events.StepWaiting: _step_waiting,
    events.EventEmitted: _event_emitted,
    events.SignalReceived: _signal_received,
    **wire_approvals.ENCODERS,
    **wire_blocks.ENCODERS,
    **wire_serverless.ENCODERS,
    **wire_tools.ENCODERS,
    **steering.ENCODERS,
}


def encode_event(event: events.RunEvent, seq: int, time: Micros) -> bytes:
    """An event of a run as a serialised `tierflow.events.v1.Event`."""
    kind = type(event)
    fill = FILLERS.get(kind)
    if fill is None:
        return ev.Event(seq=seq, time=moment(time), **_ENCODERS[kind](event)).SerializeToString()
    message = ev.Event(seq=seq)
    fill_time(message.time, time)
    fill(message, event)
    return message.SerializeToString()


# --- results of attempts ---


def result_command(result: step_pb2.StepExecutionResult, executor_id: str = "") -> commands.ReportResult:
    """What an executor reports, as a command."""
    return commands.ReportResult(
        attempt_id=result.context.attempt_id,
        state=STEP.name(result.state),
        outcome=OUTCOME.name(result.outcome) or "SUCCESS",
        output=wire.payload_from_proto(result.output) if result.HasField("output") else None,
        failure=wire.failure_from_proto(result.failure) if result.HasField("failure") else None,
        usage=wire.usage_from_proto(result.usage),
        started_at=wire.micros(result.started_at) if result.HasField("started_at") else None,
        logs=log_lines(result.logs) if result.logs else (),
        executor_id=executor_id,
    )
