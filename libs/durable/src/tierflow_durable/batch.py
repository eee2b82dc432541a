"""A group commit's rows, and the one statement that writes them (rule R1)."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import orjson
from tierflow_runtime.values import Micros

from tierflow_durable.chain import checksum
from tierflow_durable.columns import number_array, text_array
from tierflow_durable.entity import Entity, Pending
from tierflow_durable.machine import Header
from tierflow_durable.sqlfile import Statement, blocks, compiled

CHUNK = 256 * 1024
"""Bytes to a row of a blob."""

ROW_BYTES = 256 * 1024
"""A journal row holds whole events up to about this; an entity's further events go to further rows, so that each fits a JetStream message."""


class Write:
    """What one entity brings to one batch."""

    __slots__ = ("create", "entity", "header", "pending", "release", "request", "rows", "snapshot", "update")

    def __init__(self, entity: Entity[Any], pending: Pending | None, header: Header) -> None:
        self.entity = entity
        self.pending = pending
        self.header = header
        self.create = entity.birth is not None
        self.request = entity.birth.request if entity.birth is not None else None
        self.update = False
        self.release = False
        self.snapshot: bytes | None = None
        self.rows: list[Row] = []


BY_ID = operator.attrgetter("entity.id")


class Row:
    """One journal row: the events first_seq … seq as the fields of an EventBatch."""

    __slots__ = ("chain", "classes", "data", "first_seq", "parts", "position", "seq")

    def __init__(self, first_seq: int, parts: Sequence[bytes], classes: Sequence[str]) -> None:
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.chain = b""
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

    __slots__ = ("acknowledgements", "arguments", "statement", "updated", "writes")

    def __init__(self, writes: list[Write], acknowledgements: list[tuple[str, int]], me: str, now: Micros) -> None:
        writes.sort(key=BY_ID)
        self.writes = writes
        self.acknowledgements = acknowledgements
        sections: tuple[tuple[str, dict[str, Kind], list[tuple[Any, ...]]], ...] = (
            ("requests", _REQUEST, _request_rows(writes, now)),
            ("creates", _CREATE, _create_rows(writes)),
            ("updates", _UPDATE, _update_rows(writes)),
            ("endings", _ENDING, _ending_rows(writes)),
            ("acknowledgements", _ACKNOWLEDGEMENT, sorted(acknowledgements + _withdrawn(writes))),
            ("journal", _JOURNAL, _journal_rows(writes)),
            ("snapshots", _SNAPSHOT, _snapshot_rows(writes)),
            ("blobs", _BLOB, _blob_rows(writes)),
        )
        self.updated = len(sections[2][2])
        """How many rows its updates must hit."""
        values: dict[str, Any] = {"me": me}
        parts: list[str] = []
        for part, columns, rows in sections:
            if rows:
                parts.append(part)
                for (name, kind), column in zip(columns.items(), zip(*rows, strict=True), strict=True):
                    values[f"{part[0]}_{name}"] = kind(column)
        self.statement = commit_statement(tuple(parts), keyed="requests" in parts)
        self.arguments = self.statement.arguments(**values)


Kind: TypeAlias = Callable[[Sequence[Any]], Any]
_T: Kind = text_array
_N: Kind = number_array
_B: Kind = list

_REQUEST = {"tenant": _T, "request_id": _T, "body_hash": _B, "entity_id": _T, "created_at": _N}
_CREATE = {
    "id": _T, "keyed": _N, "labels": _T, "seq": _N, "release": _N, "wake_at": _N, "tenant": _T, "user_id": _T, "state": _T, "reason": _T, "name": _T,
    "version": _T, "parent_id": _T, "trace_id": _T, "correlation_id": _T, "outcome": _T, "generation": _N, "created_at": _N, "ended_at": _N,
}  # fmt: skip
_UPDATE = {
    "id": _T, "seq": _N, "release": _N, "wake_at": _N, "state": _T, "reason": _T, "outcome": _T, "generation": _N, "ended_at": _N,
}  # fmt: skip
_ENDING = {"id": _T, "generation": _N, "ended_at": _N, "new": _N}
_ACKNOWLEDGEMENT = {"id": _T, "generation": _N}
_JOURNAL = {"entity_id": _T, "new": _N, "seq": _N, "first_seq": _N, "position": _N, "data": _B, "chain": _B}
_SNAPSHOT = {"entity_id": _T, "seq": _N, "data": _B, "chain": _B, "checksum": _B}
_BLOB = {"sha256": _B, "chunk": _N, "chunks": _N, "data": _B}


def _request_order(write: Write) -> tuple[str, str]:
    """Two instances that insert the same request ids do so in one order (rule R3)."""
    return (write.request.tenant, write.request.request_id) if write.request is not None else ("", "")


def _request_rows(writes: list[Write], now: Micros) -> list[tuple[Any, ...]]:
    keyed = sorted((write for write in writes if write.request is not None), key=_request_order)
    return [
        (write.request.tenant, write.request.request_id, write.request.body_hash, write.entity.id, now)
        for write in keyed
        if write.request is not None
    ]


def _wake_at(write: Write) -> Micros | None:
    """Only who is let go and has not ended is woken by its row."""
    return write.header.wake_at if write.release and write.header.ended_at is None else None


def _create_rows(writes: list[Write]) -> list[tuple[Any, ...]]:
    return [_create_row(write) for write in writes if write.create]


def _update_rows(writes: list[Write]) -> list[tuple[Any, ...]]:
    return [_update_row(write) for write in writes if write.update and not write.create]


def _create_row(write: Write) -> tuple[Any, ...]:
    h = write.header
    labels = orjson.dumps(h.labels).decode() if h.labels else "{}"
    return (
        write.entity.id, write.request is not None, labels, write.entity.seq, write.release, _wake_at(write), h.tenant, h.user_id, h.state, h.reason,
        h.name, h.version, h.parent_id, h.trace_id, h.correlation_id, h.outcome, h.generation, h.created_at, h.ended_at,
    )  # fmt: skip


def _update_row(write: Write) -> tuple[Any, ...]:
    h = write.header
    return (
        write.entity.id, write.entity.seq, write.release, _wake_at(write), h.state, h.reason, h.outcome, h.generation, h.ended_at,
    )  # fmt: skip


def _ending_rows(writes: list[Write]) -> list[tuple[Any, ...]]:
    """What the tier above has to acknowledge from now on (rule R28)."""
    return [
        (write.entity.id, write.header.generation, write.header.ended_at, write.create)
        for write in writes
        if write.header.unacknowledged and (write.update or write.create)
    ]


def _withdrawn(writes: list[Write]) -> list[tuple[str, int]]:
    """What it need not acknowledge any more, because it goes on or was settled otherwise."""
    return [
        (write.entity.id, write.header.generation)
        for write in writes
        if write.update
        and not write.header.unacknowledged
        and (write.entity.header is None or write.entity.header.unacknowledged)
        and not write.create
    ]


def _journal_rows(writes: list[Write]) -> list[tuple[Any, ...]]:
    return [_journal_row(write, row) for write in writes for row in write.rows]


def _journal_row(write: Write, row: Row) -> tuple[Any, ...]:
    return write.entity.id, write.create, row.seq, row.first_seq, row.position, row.data, row.chain


def _snapshot_rows(writes: list[Write]) -> list[tuple[Any, ...]]:
    return [
        (
            write.entity.id,
            write.entity.seq,
            write.snapshot,
            write.entity.chain,
            checksum(write.entity.seq, write.snapshot),
        )
        for write in writes
        if write.snapshot is not None
    ]


def _blob_rows(writes: list[Write]) -> list[tuple[Any, ...]]:
    blobs = {
        name: content for write in writes if write.pending is not None for name, content in write.pending.blobs.items()
    }
    return [row for name in sorted(blobs) for row in blob_rows(name, blobs[name])]


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
    text = text.replace("{born}", "NOT e.is_new OR e.id IN (SELECT id FROM created)" if creates else "true")
    text = text.replace("{created}", "ARRAY(SELECT id FROM created)" if creates else "NULL::uuid[]")
    text = text.replace("{updated}", "(SELECT count(*) FROM updated)" if "updates" in parts else "0")
    return compiled("commit_" + "_".join(parts), text)
