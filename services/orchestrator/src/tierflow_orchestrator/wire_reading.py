"""Messages to the core's events: what a journal says, also one that an older version wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_durable.machine import UnknownRecord
from tierflow_runtime import wire
from tierflow_runtime.values import LogLine, Micros, Payload

from tierflow_orchestrator import wire_approvals, wire_blocks, wire_serverless, wire_tools
from tierflow_orchestrator import wire_steering as steering
from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.step import CacheHit, Variable

RUN, STEP, OUTCOME = wire.RUN_STATES, wire.STEP_STATES, wire.OUTCOMES


def payload_in(message: Any, field: str) -> Payload | None:
    """The payload in a field of a message; None where it has none."""
    return wire.payload_from_proto(getattr(message, field)) if message.HasField(field) else None


def _from_created(m: ev.Event) -> events.RunEvent:
    p = m.run_created
    return events.RunCreated(
        context=wire.context_from_proto(p.context), flow_hash=p.flow.hash, flow_name=p.flow.name, flow_version=p.flow.version, input=payload_in(p, "input"),
        allocation=wire.allocation_from_proto(p.allocation), options=wire.options_from_proto(p.options),
        reuse=steering.reuse_in(p),
    )  # fmt: skip


def _from_changed(m: ev.Event) -> events.RunEvent:
    p = m.run_state_changed
    return events.RunStateChanged(
        from_=RUN.name(getattr(p, "from")),
        to=RUN.name(p.to),
        reason=p.reason,
        actor=p.actor,
        generation=p.generation,
        reset_steps=tuple(p.reset_steps),
    )


def _from_ended(m: ev.Event) -> events.RunEvent:
    p = m.run_ended
    return events.RunEnded(
        from_=RUN.name(getattr(p, "from")), to=RUN.name(p.to), outcome=OUTCOME.name(p.outcome), output=payload_in(p, "output"),
        failure=wire.failure_from_proto(p.failure) if p.HasField("failure") else None, usage=wire.usage_from_proto(p.usage), reason=p.reason,
        unconfirmed_attempts=tuple(p.unconfirmed_attempts),
    )  # fmt: skip


def _from_command(m: ev.Event) -> events.RunEvent:
    p = m.command_received
    return events.CommandReceived(
        command_id=p.command_id,
        command=p.command,
        actor=p.actor,
        reason=p.reason,
        detail=p.detail,
        superseded=tuple(p.superseded),
    )


def _from_scheduled(m: ev.Event) -> events.RunEvent:
    p = m.step_scheduled
    return events.StepScheduled(
        step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, epoch=p.epoch, executor_id=p.executor_id, handler=p.handler,
        input=payload_in(p, "input") or "null", child_run_id=p.child_run_id,
        grant=wire.allocation_from_proto(p.grant) if p.HasField("grant") else None,
    )  # fmt: skip


def _from_started(m: ev.Event) -> events.RunEvent:
    p = m.step_started
    return events.StepStarted(
        step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, started_at=wire.micros(p.started_at)
    )


def _from_completed(m: ev.Event) -> events.RunEvent:
    p = m.step_completed
    return events.StepCompleted(
        step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, output=payload_in(p, "output"), outcome=OUTCOME.name(p.outcome),
        usage=wire.usage_from_proto(p.usage), directive=p.directive, warnings=tuple(p.warnings), cached=_hit(p),
    )  # fmt: skip


def _hit(p: ev.StepCompleted) -> CacheHit | None:
    if not p.HasField("cached"):
        return None
    hit = p.cached
    return CacheHit(hit.key_hash, hit.run_id, hit.step_id, wire.micros(hit.stored_at))


def _from_retrying(m: ev.Event) -> events.RunEvent:
    p = m.step_retrying
    return events.StepRetrying(
        step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, failure=wire.failure_from_proto(p.failure),
        next_attempt_at=wire.micros(p.next_attempt_at), usage=wire.usage_from_proto(p.usage),
    )  # fmt: skip


def _from_failed(m: ev.Event) -> events.RunEvent:
    p = m.step_failed
    return events.StepFailed(
        step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, failure=wire.failure_from_proto(p.failure), usage=wire.usage_from_proto(p.usage),
        tolerated=p.tolerated,
    )  # fmt: skip


def _from_cancelled(m: ev.Event) -> events.RunEvent:
    p = m.step_cancelled
    return events.StepCancelled(
        step_id=m.step_id,
        attempt=m.attempt,
        attempt_id=p.attempt_id,
        reason=p.reason,
        usage=wire.usage_from_proto(p.usage),
        confirmed=p.confirmed,
        ended_as=STEP.name(p.ended_as),
    )


def _from_variables(m: ev.Event) -> events.RunEvent:
    found = (
        Variable(v.name, str(payload_in(v, "value") or "null"), tuple(v.merged_from), v.policy)
        for v in m.variables_set.variables
    )
    return events.VariablesSet(step_id=m.step_id, variables=tuple(found))


def _from_late(m: ev.Event) -> events.RunEvent:
    p = m.late_result
    return events.LateResult(
        step_id=m.step_id,
        attempt_id=p.attempt_id,
        state=STEP.name(p.state),
        usage=wire.usage_from_proto(p.usage),
        charged=wire.usage_from_proto(p.charged) if p.HasField("charged") else None,
    )


def _from_charged(m: ev.Event) -> events.RunEvent:
    p = m.hold_charged
    return events.HoldCharged(step_id=m.step_id, attempt_id=p.attempt_id, usage=wire.usage_from_proto(p.usage))


def _from_logged(m: ev.Event) -> events.RunEvent:
    p = m.attempt_logged
    return events.AttemptLogged(step_id=m.step_id, attempt=m.attempt, attempt_id=p.attempt_id, lines=log_lines(p.lines))


def _from_waiting(m: ev.Event) -> events.RunEvent:
    p = m.step_waiting
    until = wire.micros(p.until) if p.HasField("until") else None
    return events.StepWaiting(step_id=m.step_id, reason=p.reason, until=until)


def _from_emitted(m: ev.Event) -> events.RunEvent:
    p = m.event_emitted
    return events.EventEmitted(step_id=m.step_id, name=p.name, payload=payload_in(p, "payload") or "{}")


def _from_signal(m: ev.Event) -> events.RunEvent:
    p = m.signal_received
    payload = str(payload_in(p, "payload") or "null")
    return events.SignalReceived(signal_id=p.signal_id, name=p.name, payload=payload, actor=p.actor)


def log_lines(lines: Iterable[step_pb2.LogLine]) -> tuple[LogLine, ...]:
    """Log lines of an attempt."""
    return tuple(LogLine(time=wire.micros(line.time), stream=line.stream, text=line.text) for line in lines)


_DECODERS: dict[str, Callable[[ev.Event], events.RunEvent]] = {
    "run_created": _from_created,
    "run_state_changed": _from_changed,
    "run_ended": _from_ended,
    "command_received": _from_command,
    "items_expanded": lambda m: events.ItemsExpanded(step_id=m.step_id, count=m.items_expanded.count),
    "step_scheduled": _from_scheduled,
    "step_started": _from_started,
    "step_completed": _from_completed,
    "step_retrying": _from_retrying,
    "step_failed": _from_failed,
    "step_cancelled": _from_cancelled,
    "cache_missed": lambda m: events.CacheMissed(step_id=m.step_id, key_hash=m.cache_missed.key_hash),
    "variables_set": _from_variables,
    "child_told": lambda m: events.ChildTold(
        step_id=m.step_id, attempt_id=m.child_told.attempt_id, paused=m.child_told.paused
    ),
    "late_result": _from_late,
    "hold_charged": _from_charged,
    "attempt_logged": _from_logged,
    "step_waiting": _from_waiting,
    "event_emitted": _from_emitted,
    "signal_received": _from_signal,
    **wire_approvals.DECODERS,
    **wire_blocks.DECODERS,
    **wire_serverless.DECODERS,
    **wire_tools.DECODERS,
    **steering.DECODERS,
}


def decode_events(data: bytes) -> Iterable[tuple[int, Micros, events.RunEvent]]:
    """The events in a serialised EventBatch, with sequence number and time. Raises UnknownRecord for a kind that this build does not know."""
    for message in ev.EventBatch.FromString(data).events:
        decoder = _DECODERS.get(message.WhichOneof("payload") or "")
        if decoder is None:
            raise UnknownRecord(f"event {message.seq} of a run")
        yield message.seq, wire.micros(message.time), decoder(message)
