"""The events of steering as messages, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_durable.machine import UnknownRecord
from tierflow_flow import Flow, FlowError, from_canonical
from tierflow_runtime import wire
from tierflow_runtime.lineage import reuse_from_proto
from tierflow_runtime.values import Payload, Reuse

from tierflow_orchestrator.core import events


@lru_cache(maxsize=16)
def compiled(definition: str) -> Flow:
    """The flow of a canonical text. Raises UnknownRecord for one that only a newer version has."""
    try:
        return from_canonical(definition)
    except FlowError as error:
        raise UnknownRecord("the flow that a run went over to") from error


STEP, OUTCOME = wire.STEP_STATES, wire.OUTCOMES


def reuse_in(message: Any) -> Reuse | None:
    """What a run starts with, of a message that has a field `reuse`."""
    return reuse_from_proto(message.reuse) if message.HasField("reuse") else None


def _payload(message: Any, field: str) -> Payload | None:
    return wire.payload_from_proto(getattr(message, field)) if message.HasField(field) else None


# --- to messages ---


def step_skipped(e: events.StepSkipped) -> dict[str, Any]:
    """A step that is not needed, or that somebody skipped."""
    if not e.by_hand:
        return {"step_id": e.step_id, "step_skipped": ev.StepSkipped(reason=e.reason, unchosen_by=e.unchosen_by)}
    skipped = ev.StepSkipped(
        reason=e.reason,
        by_hand=True,
        output=wire.payload_to_proto(e.output),
        attempt_id=e.attempt_id,
        usage=wire.usage_to_proto(e.usage),
        confirmed=e.confirmed,
    )
    return {"step_id": e.step_id, "attempt": e.attempt, "step_skipped": skipped}


def _stopping(e: events.StepStopping) -> dict[str, Any]:
    stopping = ev.StepStopping(
        attempt_id=e.attempt_id, reason=e.reason, then=STEP.number(e.then), output=wire.payload_to_proto(e.output)
    )
    return {"step_id": e.step_id, "step_stopping": stopping}


def _interrupted(e: events.StepInterrupted) -> dict[str, Any]:
    interrupted = ev.StepInterrupted(attempt_id=e.attempt_id, reason=e.reason, usage=wire.usage_to_proto(e.usage))
    return {"step_id": e.step_id, "attempt": e.attempt, "step_interrupted": interrupted}


def _reused(e: events.StepReused) -> dict[str, Any]:
    reused = ev.StepReused(run_id=e.run_id, output=wire.payload_to_proto(e.output), outcome=OUTCOME.number(e.outcome))
    return {"step_id": e.step_id, "step_reused": reused}


def _updated(e: events.RunUpdated) -> dict[str, Any]:
    return {
        "run_updated": ev.RunUpdated(
            version=e.version,
            allocation=wire.allocation_to_proto(e.allocation),
            options=wire.options_to_proto(e.options),
            deadline=None if e.deadline is None else wire.timestamp(e.deadline),
            concurrency=e.concurrency,
            changed=e.changed,
        )
    }


def _migrated(e: events.RunMigrated) -> dict[str, Any]:
    flow = flow_pb2.FlowRef(name=e.flow_name, version=e.flow_version, hash=e.flow_hash)
    return {"run_migrated": ev.RunMigrated(flow=flow, definition_json=e.definition)}


def _answered(e: events.SignalAnswered) -> dict[str, Any]:
    answered = ev.SignalAnswered(signal_id=e.signal_id, payload=wire.payload_to_proto(e.payload))
    return {"step_id": e.step_id, "signal_answered": answered}


ENCODERS: Final[Mapping[type[Any], Callable[[Any], dict[str, Any]]]] = {
    events.StepStopping: _stopping,
    events.StepInterrupted: _interrupted,
    events.StepReused: _reused,
    events.StepHeld: lambda e: {"step_id": e.step_id, "step_held": ev.StepHeld()},
    events.StepReleased: lambda e: {"step_id": e.step_id, "step_released": ev.StepReleased()},
    events.BreakpointsSet: lambda e: {"breakpoints_set": ev.BreakpointsSet(breakpoints=e.breakpoints)},
    events.RunUpdated: _updated,
    events.RunMigrated: _migrated,
    events.SignalAnswered: _answered,
}


# --- from messages ---


def _from_skipped(m: ev.Event) -> events.RunEvent:
    p = m.step_skipped
    if not p.by_hand:
        return events.StepSkipped(step_id=m.step_id, reason=p.reason, unchosen_by=p.unchosen_by)
    return events.StepSkipped(
        step_id=m.step_id,
        reason=p.reason,
        by_hand=True,
        output=_payload(p, "output"),
        attempt=m.attempt,
        attempt_id=p.attempt_id,
        usage=wire.usage_from_proto(p.usage),
        confirmed=p.confirmed,
    )


def _from_stopping(m: ev.Event) -> events.RunEvent:
    p = m.step_stopping
    return events.StepStopping(
        step_id=m.step_id,
        reason=p.reason,
        then=STEP.name(p.then),
        attempt_id=p.attempt_id,
        output=_payload(p, "output"),
    )


def _from_interrupted(m: ev.Event) -> events.RunEvent:
    p = m.step_interrupted
    return events.StepInterrupted(
        step_id=m.step_id,
        attempt=m.attempt,
        attempt_id=p.attempt_id,
        reason=p.reason,
        usage=wire.usage_from_proto(p.usage),
    )


def _from_reused(m: ev.Event) -> events.RunEvent:
    p = m.step_reused
    return events.StepReused(
        step_id=m.step_id, run_id=p.run_id, output=_payload(p, "output"), outcome=OUTCOME.name(p.outcome)
    )


def _from_updated(m: ev.Event) -> events.RunEvent:
    p = m.run_updated
    return events.RunUpdated(
        version=p.version,
        allocation=wire.allocation_from_proto(p.allocation),
        options=wire.options_from_proto(p.options),
        deadline=wire.micros(p.deadline) if p.HasField("deadline") else None,
        concurrency=p.concurrency if p.HasField("concurrency") else None,
        changed=tuple(p.changed),
    )


def _from_migrated(m: ev.Event) -> events.RunEvent:
    p = m.run_migrated
    return events.RunMigrated(
        flow_hash=p.flow.hash,
        flow_name=p.flow.name,
        flow_version=p.flow.version,
        definition=p.definition_json,
        flow=compiled(p.definition_json),
    )


def _from_answered(m: ev.Event) -> events.RunEvent:
    p = m.signal_answered
    return events.SignalAnswered(step_id=m.step_id, signal_id=p.signal_id, payload=_payload(p, "payload") or "null")


DECODERS: Final[Mapping[str, Callable[[ev.Event], events.RunEvent]]] = {
    "step_skipped": _from_skipped,
    "step_stopping": _from_stopping,
    "step_interrupted": _from_interrupted,
    "step_reused": _from_reused,
    "step_held": lambda m: events.StepHeld(step_id=m.step_id),
    "step_released": lambda m: events.StepReleased(step_id=m.step_id),
    "breakpoints_set": lambda m: events.BreakpointsSet(breakpoints=tuple(m.breakpoints_set.breakpoints)),
    "run_updated": _from_updated,
    "run_migrated": _from_migrated,
    "signal_answered": _from_answered,
}
