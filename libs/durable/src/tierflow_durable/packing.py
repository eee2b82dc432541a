"""How events are put into messages: the head of an entity's batches, events as fields, one message per class and entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime.subjects import RELIABLE, class_of, prefix_of

from tierflow_durable.machine import Source


class Message(NamedTuple):
    """One message for JetStream."""

    subject: str
    payload: bytes
    msg_id: str
    headers: Mapping[str, str] | None
    name: str = ""
    """The class of its events."""
    events: int = 0
    """How many they are."""


def source_bytes(kind: str, source: Source) -> bytes:
    """The head of every batch of an entity: EventBatch.source as a serialised field."""
    message = event_pb2.EventBatch(
        source=event_pb2.EventSource(
            kind=kind, entity_id=source.run_id or source.swarm_id, tenant=source.tenant, user_id=source.user_id, swarm_id=source.swarm_id,
            run_id=source.run_id, trace_id=source.trace_id, correlation_id=source.correlation_id,
        )
    )  # fmt: skip
    return message.SerializeToString()


def event_part(encoded: bytes) -> bytes:
    """A serialised Event as a field of EventBatch: tag 2, length, message."""
    length = len(encoded)
    if length < 128:
        return b"\x12" + bytes((length,)) + encoded
    head = bytearray(b"\x12")
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + encoded


class Group:
    """Events of one class that will share a message."""

    __slots__ = ("first_seq", "name", "parts")

    def __init__(self, name: str, first_seq: int) -> None:
        self.name = name
        self.first_seq = first_seq
        self.parts: list[bytes] = []


def sort_in(groups: list[Group], first_seq: int, parts: Sequence[bytes], classes: Sequence[str]) -> None:
    """Adds a row's events, each as a field of an EventBatch, to the groups of their classes."""
    group: Group | None = None
    seq = first_seq
    for name, part in zip(classes, parts, strict=True):
        if group is None or group.name != name:
            group = _group(groups, name, seq)
        group.parts.append(part)
        seq += 1


def _group(groups: list[Group], name: str, seq: int) -> Group:
    for group in groups:
        if group.name == name:
            return group
    group = Group(name, seq)
    groups.append(group)
    return group


def messages_of(
    entity_id: str, source: Source, prefix: str, head: bytes, groups: Sequence[Group], instance_id: str
) -> list[Message]:
    """The messages of grouped events, one a group: the id is `entity/class/first seq+length/instance` (rule R20).

    The length, because rows may travel alone or together: JetStream must not take more for a repetition of less.
    """
    headers = {"traceparent": source.traceparent} if source.traceparent else None
    messages: list[Message] = []
    for group in groups:
        name = group.name
        parts = b"".join(group.parts)
        msg_id = f"{entity_id}/{name}/{group.first_seq}+{len(parts)}/{instance_id}"
        messages.append(Message(f"{prefix}.{name}", head + parts, msg_id, headers, name, len(group.parts)))
    return messages


def subjects_prefix(source: Source) -> str:
    """What the subjects of an entity's events begin with."""
    return prefix_of(source.tenant, source.swarm_id, source.run_id)


def messages_of_row(kind: str, row: Any, instance_id: str) -> list[Message]:
    """The messages of a stored journal row, with the columns of its entity."""
    entity_id = str(row["entity_id"])
    swarm_id = str(row["parent_id"] or "") if kind == "run" else entity_id
    source = Source(
        tenant=row["tenant"],
        user_id=row["user_id"],
        swarm_id=swarm_id,
        run_id=entity_id if kind == "run" else "",
        trace_id=row["trace_id"],
        correlation_id=row["correlation_id"],
    )
    batch = event_pb2.EventBatch.FromString(row["data"])
    parts = [event_part(event.SerializeToString()) for event in batch.events]
    groups: list[Group] = []
    sort_in(groups, row["first_seq"], parts, [RELIABLE[class_of(event)] for event in batch.events])
    return messages_of(entity_id, source, subjects_prefix(source), source_bytes(kind, source), groups, instance_id)
