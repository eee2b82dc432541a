"""Core to protobuf and back: events about what a swarm shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tierflow_contracts.common.v1 import blackboard_pb2 as bb
from tierflow_contracts.events.v1 import event_pb2 as ev
from tierflow_runtime.filling import fill_allocation, fill_payload
from tierflow_runtime.wire import allocation_from_proto, payload_from_proto

from tierflow_coordinator.core import events
from tierflow_coordinator.core.board import Settings


def fill_settings(message: bb.SwarmContext, settings: Settings) -> None:
    """What is agreed on, into a context."""
    message.goal = settings.goal
    fill_allocation(message.limits, settings.limits)
    message.policy.json = settings.policy
    message.adaptive = settings.adaptive


def _settings_from_proto(message: bb.SwarmContext) -> Settings:
    return Settings(
        goal=message.goal,
        limits=allocation_from_proto(message.limits),
        policy=message.policy.json,
        adaptive=message.adaptive,
    )


def _fill_updated(message: ev.ContextUpdated, event: events.ContextUpdated) -> None:
    message.context.version = event.version
    message.context.revision = event.revision
    fill_settings(message.context, event.settings)
    message.changed.extend(event.changed)
    if event.grant is not None:
        fill_allocation(message.grant, event.grant)
    message.actor = event.actor
    message.run_id = event.run_id
    message.step_id = event.step_id
    message.reason = event.reason
    message.command_id = event.command_id


def _updated_from_proto(message: ev.ContextUpdated) -> events.ContextUpdated:
    return events.ContextUpdated(
        version=message.context.version,
        revision=message.context.revision,
        settings=_settings_from_proto(message.context),
        changed=tuple(message.changed),
        grant=allocation_from_proto(message.grant) if message.HasField("grant") else None,
        actor=message.actor,
        run_id=message.run_id,
        step_id=message.step_id,
        reason=message.reason,
        command_id=message.command_id,
    )


def _fill_changed(message: ev.BlackboardChanged, event: events.BlackboardChanged) -> None:
    message.revision = event.revision
    for change in event.changes:
        key = message.changes.add(
            key=change.key,
            previous_version=change.previous,
            encoding=change.encoding,
            size=change.size,
            sha256=change.sha256,
        )
        fill_payload(key.value, change.value)
    message.actor = event.actor
    message.run_id = event.run_id
    message.step_id = event.step_id
    message.command_id = event.command_id


def _changed_from_proto(message: ev.BlackboardChanged) -> events.BlackboardChanged:
    return events.BlackboardChanged(
        revision=message.revision,
        changes=tuple(
            events.KeyChanged(
                key=change.key,
                previous=change.previous_version,
                value=payload_from_proto(change.value) if change.HasField("value") else None,
                encoding=change.encoding,
                size=change.size,
                sha256=change.sha256,
            )
            for change in message.changes
        ),
        actor=message.actor,
        run_id=message.run_id,
        step_id=message.step_id,
        command_id=message.command_id,
    )


def _fill_checkpointed(message: ev.ContextCheckpointed, event: events.ContextCheckpointed) -> None:
    message.name = event.name
    message.revision = event.revision
    message.hash = event.hash
    message.actor = event.actor
    message.command_id = event.command_id


def _checkpointed_from_proto(message: ev.ContextCheckpointed) -> events.ContextCheckpointed:
    return events.ContextCheckpointed(
        name=message.name,
        revision=message.revision,
        hash=message.hash,
        actor=message.actor,
        command_id=message.command_id,
    )


def _fill_restored(message: ev.ContextRestored, event: events.ContextRestored) -> None:
    message.name = event.name
    message.to_revision = event.to_revision
    message.revision = event.revision
    message.hash = event.hash
    message.actor = event.actor
    message.reason = event.reason
    message.command_id = event.command_id


def _restored_from_proto(message: ev.ContextRestored) -> events.ContextRestored:
    return events.ContextRestored(
        name=message.name,
        to_revision=message.to_revision,
        revision=message.revision,
        hash=message.hash,
        actor=message.actor,
        reason=message.reason,
        command_id=message.command_id,
    )


ENCODERS: Final[dict[type, tuple[str, Callable[[Any, Any], None]]]] = {
    events.ContextUpdated: ("context_updated", _fill_updated),
    events.BlackboardChanged: ("blackboard_changed", _fill_changed),
    events.ContextCheckpointed: ("context_checkpointed", _fill_checkpointed),
    events.ContextRestored: ("context_restored", _fill_restored),
}
DECODERS: Final[dict[str, Callable[[Any], events.SwarmEvent]]] = {
    "context_updated": _updated_from_proto,
    "blackboard_changed": _changed_from_proto,
    "context_checkpointed": _checkpointed_from_proto,
    "context_restored": _restored_from_proto,
}
