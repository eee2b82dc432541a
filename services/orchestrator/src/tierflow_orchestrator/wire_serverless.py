"""The events of documents as messages, and back. Part of `wire`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime import wire
from tierflow_runtime.values import Payload

from tierflow_orchestrator.core import events


def _entered(e: events.StepEntered) -> dict[str, Any]:
    entered = ev.StepEntered(
        definition=e.definition,
        parent=e.parent,
        list=e.list_,
        round=e.round,
        input=wire.payload_to_proto(e.input),
        items=wire.payload_to_proto(e.items),
        variables=e.variables,
    )
    return {"step_id": e.step_id, "step_entered": entered}


def _exported(e: events.ContextExported) -> dict[str, Any]:
    return {
        "step_id": e.step_id,
        "context_exported": ev.ContextExported(context=wire.payload_to_proto(e.context)),
    }


def _consumed(e: events.EventConsumed) -> dict[str, Any]:
    consumed = ev.EventConsumed(place=e.place, for_filter=e.for_filter, keys=e.keys)
    return {"step_id": e.step_id, "event_consumed": consumed}


ENCODERS: dict[type[Any], Callable[[Any], dict[str, Any]]] = {
    events.StepEntered: _entered,
    events.ContextExported: _exported,
    events.EventConsumed: _consumed,
}


def _payload(message: Any, field: str) -> Payload | None:
    return wire.payload_from_proto(getattr(message, field)) if message.HasField(field) else None


def _from_entered(m: ev.Event) -> events.RunEvent:
    p = m.step_entered
    return events.StepEntered(
        step_id=m.step_id,
        definition=p.definition,
        parent=p.parent,
        list_=p.list,
        round=p.round,
        input=_payload(p, "input"),
        items=_payload(p, "items"),
        variables=dict(sorted(p.variables.items())),
    )


def _from_exported(m: ev.Event) -> events.RunEvent:
    return events.ContextExported(step_id=m.step_id, context=_payload(m.context_exported, "context") or "null")


def _from_consumed(m: ev.Event) -> events.RunEvent:
    p = m.event_consumed
    return events.EventConsumed(
        step_id=m.step_id, place=p.place, for_filter=p.for_filter, keys=dict(sorted(p.keys.items()))
    )


DECODERS: dict[str, Callable[[ev.Event], events.RunEvent]] = {
    "step_entered": _from_entered,
    "context_exported": _from_exported,
    "event_consumed": _from_consumed,
}
