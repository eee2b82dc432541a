"""A group commit's rows, and the one statement that writes them (rule R1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from tierflow_runtime.values import Micros

from tierflow_durable.entity import Entity, Pending
from tierflow_durable.machine import Header
from tierflow_durable.sqlfile import Statement, blocks, compiled

CHUNK = 256 * 1024
"""Bytes to a row of a blob."""

ROW_BYTES = 256 * 1024
"""A journal row holds whole events up to about this; an entity's further events go to further rows, so that each fits a JetStream message."""


class Write:
    """What one entity brings to one batch."""

    __slots__ = ("create", "entity", "header", "pending", "release", "rows", "snapshot", "update")

    def __init__(self, entity: Entity[Any], pending: Pending | None, header: Header) -> None:
        self.entity = entity
        self.pending = pending
        self.header = header
        self.create = entity.birth is not None
        self.update = False
        self.release = False
        self.snapshot: bytes | None = None
        self.rows: list[Row] = []


class Row:
    """One journal row: the events first_seq … seq as the fields of an EventBatch."""

    __slots__ = ("classes", "first_seq", "parts", "position", "seq")

    def __init__(self, first_seq: int, parts: Sequence[bytes], classes: Sequence[str]) -> None:
        self.first_seq = first_seq
        self.seq = first_seq + len(parts) - 1
        self.parts = parts
        self.classes = classes
        self.position = 0


def rows_of(pending: Pending) -> list[Row]:
    """Cuts what an entity has pending into journal rows."""
    if pending.size <= ROW_BYTES:
        return [Row(pending.first_seq, pending.parts, pending.classes)] if pending.parts else []
    rows: list[Row] = []
    start = size = 0
    for index, part in enumerate(pending.parts):
        if size and size + len(part) > ROW_BYTES:
            rows.append(Row(pending.first_seq + start, pending.parts[start:index], pending.classes[start:index]))
            start, size = index, 0
        size += len(part)
    rows.append(Row(pending.first_seq + start, pending.parts[start:], pending.classes[start:]))
    return rows


class Batch:
    """Writes and acknowledgements that are committed together, ordered by entity id (rule R3)."""

    __slots__ = ("acknowledgements", "arguments", "statement", "writes")

    def __init__(self, writes: list[Write], acknowledgements: list[tuple[str, int]], me: str, now: Micros) -> None:
        writes.sort(key=lambda write: write.entity.id)
        acknowledgements.sort()
        self.writes = writes
        self.acknowledgements = acknowledgements
        values: dict[str, Any] = {"me": me}
        parts: list[str] = []
        _add_requests(writes, now, parts, values)
        keyed = "requests" in parts
        creates = [write for write in writes if write.create]
        if creates:
            parts.append("creates")
            _add_creates(creates, values)
        updates = [write for write in writes if write.update and not write.create]
        if updates:
            parts.append("updates")
            _add_updates(updates, values)
        if acknowledgements:
            parts.append("acknowledgements")
            values["a_id"] = [entity_id for entity_id, _ in acknowledgements]
            values["a_generation"] = [generation for _, generation in acknowledgements]
        _add_journal(writes, parts, values)
        _add_snapshots(writes, parts, values)
        _add_blobs(writes, parts, values)
        self.statement = commit_statement(tuple(parts), keyed=keyed)
        self.arguments = self.statement.arguments(**values)

    @property
    def updated(self) -> int:
        """How many rows its updates must hit."""
        return sum(1 for write in self.writes if write.update and not write.create)


def _add_requests(writes: list[Write], now: Micros, parts: list[str], values: dict[str, Any]) -> None:
    keyed = [
        (write.entity.id, write.entity.birth.request)
        for write in writes
        if write.entity.birth and write.entity.birth.request
    ]
    if not keyed:
        return
    keyed.sort(key=lambda pair: (pair[1].tenant, pair[1].request_id) if pair[1] else ("", ""))
    parts.append("requests")
    values["r_tenant"] = [key.tenant for _, key in keyed if key]
    values["r_request_id"] = [key.request_id for _, key in keyed if key]
    values["r_body_hash"] = [key.body_hash for _, key in keyed if key]
    values["r_entity_id"] = [entity_id for entity_id, _ in keyed]
    values["r_created_at"] = [now] * len(keyed)


def _add_creates(writes: list[Write], values: dict[str, Any]) -> None:
    headers = [write.header for write in writes]
    values["c_id"] = [write.entity.id for write in writes]
    values["c_keyed"] = [write.entity.birth is not None and write.entity.birth.request is not None for write in writes]
    values["c_labels"] = [orjson.dumps(header.labels).decode() if header.labels else "{}" for header in headers]
    values["c_seq"] = [write.entity.seq for write in writes]
    values["c_release"] = [write.release for write in writes]
    values["c_wake_at"] = [
        header.wake_at if write.release and header.ended_at is None else None
        for write, header in zip(writes, headers, strict=True)
    ]
    for name in (
        "tenant", "user_id", "state", "reason", "name", "version", "parent_id", "trace_id", "correlation_id", "outcome", "generation", "created_at",
        "ended_at", "unacknowledged",
    ):  # fmt: skip
        values[f"c_{name}"] = [getattr(header, name) for header in headers]


def _add_updates(writes: list[Write], values: dict[str, Any]) -> None:
    headers = [write.header for write in writes]
    values["u_id"] = [write.entity.id for write in writes]
    values["u_seq"] = [write.entity.seq for write in writes]
    values["u_release"] = [write.release for write in writes]
    values["u_wake_at"] = [
        header.wake_at if write.release and header.ended_at is None else None
        for write, header in zip(writes, headers, strict=True)
    ]
    for name in ("state", "reason", "outcome", "generation", "ended_at", "unacknowledged"):
        values[f"u_{name}"] = [getattr(header, name) for header in headers]


def _add_journal(writes: list[Write], parts: list[str], values: dict[str, Any]) -> None:
    rows = [(write, row) for write in writes for row in write.rows]
    if not rows:
        return
    parts.append("journal")
    values["j_entity_id"] = [write.entity.id for write, _ in rows]
    values["j_new"] = [write.create for write, _ in rows]
    values["j_seq"] = [row.seq for _, row in rows]
    values["j_first_seq"] = [row.first_seq for _, row in rows]
    values["j_position"] = [row.position for _, row in rows]
    values["j_data"] = [row.parts[0] if len(row.parts) == 1 else b"".join(row.parts) for _, row in rows]


def _add_snapshots(writes: list[Write], parts: list[str], values: dict[str, Any]) -> None:
    taken = [write for write in writes if write.snapshot is not None]
    if taken:
        parts.append("snapshots")
        values["s_entity_id"] = [write.entity.id for write in taken]
        values["s_seq"] = [write.entity.seq for write in taken]
        values["s_data"] = [write.snapshot for write in taken]


def _add_blobs(writes: list[Write], parts: list[str], values: dict[str, Any]) -> None:
    blobs = {name: content for write in writes if write.pending for name, content in write.pending.blobs.items()}
    if not blobs:
        return
    parts.append("blobs")
    rows = [row for name in sorted(blobs) for row in blob_rows(name, blobs[name])]
    values["b_sha256"] = [row[0] for row in rows]
    values["b_chunk"] = [row[1] for row in rows]
    values["b_chunks"] = [row[2] for row in rows]
    values["b_data"] = [row[3] for row in rows]


def blob_rows(sha256: str, content: bytes) -> list[tuple[bytes, int, int, bytes]]:
    """The rows of a blob: name, chunk number from 0, number of chunks, content."""
    chunks = max(1, -(-len(content) // CHUNK))
    name = bytes.fromhex(sha256)
    return [(name, number, chunks, content[number * CHUNK : (number + 1) * CHUNK]) for number in range(chunks)]


def blob_name(content: bytes) -> str:
    """The name of a value: its SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


@cache
def commit_statement(parts: tuple[str, ...], *, keyed: bool) -> Statement:
    """The statement that writes these parts; prepared once per combination."""
    texts = blocks("tierflow_durable", "commit.sql")
    creates = "creates" in parts
    ctes = [texts["held"], *(texts[part] for part in parts)]
    text = "WITH " + ",\n".join(ctes) + "\n" + texts["verdict"]
    text = text.replace("{keyed}", "NOT c.keyed OR c.id IN (SELECT entity_id FROM requested)" if keyed else "true")
    text = text.replace("{won}", "NOT j.is_new OR j.entity_id IN (SELECT id FROM created)" if creates else "true")
    text = text.replace("{created}", "ARRAY(SELECT id FROM created)" if creates else "NULL::uuid[]")
    text = text.replace("{updated}", "(SELECT count(*) FROM updated)" if "updates" in parts else "0")
    return compiled("commit_" + "_".join(parts), text)
