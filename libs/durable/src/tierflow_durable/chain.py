"""Histories that show when they were changed (S12): each journal row holds a hash over the row before it and its own data; the first begins with the entity's id.

Whoever can write to the database can also compute hashes: a chain shows accidents and careless hands by itself, and everything else once its head was written down
elsewhere, which `tierflow verify` prints for that purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from tierflow_contracts.common.v1 import history_pb2
from tierflow_contracts.events.v1 import event_pb2

from tierflow_durable.database import Database

PAGE = 500


def first_link(entity_id: str) -> bytes:
    """What the first row is chained to."""
    return bytes.fromhex(entity_id.replace("-", ""))


def next_link(before: bytes, data: bytes) -> bytes:
    """The hash of a row, given that of the row before it: SHA-256, 32 bytes."""
    return hashlib.sha256(before + data).digest()


def checksum(seq: int, data: bytes) -> bytes:
    """The hash of a snapshot: SHA-256 over the sequence number (8 bytes, big-endian) and the data."""
    return hashlib.sha256(seq.to_bytes(8) + data).digest()


def is_sound(row: Any) -> bool:
    """Whether a stored snapshot is as it was written; those of before there were checksums count as sound."""
    stored = row["checksum"]
    return stored is None or bytes(stored) == checksum(row["seq"], row["data"])


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of an entity's history."""

    rows: int
    events: int
    head: bytes
    """The hash of the last row, up to which all is sound."""
    unproven: int = 0
    """Events at the beginning that were stored before there was a chain."""
    broken_at: int | None = None
    """Sequence number of the first event that is not as it was written, or is not there; None where all is."""
    problem: str = ""


def check_message(entity_id: str, found: Verified) -> history_pb2.HistoryCheck:
    """What was found, as a message."""
    return history_pb2.HistoryCheck(
        entity_id=entity_id,
        intact=found.broken_at is None and not found.unproven,
        events=found.events,
        rows=found.rows,
        head=found.head.hex(),
        unproven_events=found.unproven,
        broken_at=found.broken_at or 0,
        problem=found.problem,
    )


async def verify(database: Database, entity_id: str, last_seq: int) -> Verified:
    """Reads the whole history of an entity and computes its hashes anew.

    Args:
        database: The tier's database.
        entity_id: The entity.
        last_seq: Sequence number that the history must reach; what is committed meanwhile goes further.

    Raises:
        FailureError: DATABASE_UNAVAILABLE.
    """
    link, rows, seq, unproven = first_link(entity_id), 0, 0, 0
    async for row in _rows(database, entity_id):
        if wrong := _wrong(row, link, seq, chained=rows > 0 and unproven < seq):
            return Verified(rows=rows, events=seq, head=link, unproven=unproven, broken_at=wrong[0], problem=wrong[1])
        if row["chain"] is None:
            unproven = row["seq"]
        else:
            link = bytes(row["chain"])
        rows, seq = rows + 1, row["seq"]
    if seq < last_seq:
        problem = f"the history ends at event {seq}; there were {last_seq}"
        return Verified(rows=rows, events=seq, head=link, unproven=unproven, broken_at=seq + 1, problem=problem)
    stored = await database.fetch_patiently("snapshots_of", ids=[entity_id])
    if stored and not is_sound(stored[0]):
        at = stored[0]["seq"]
        problem = f"the snapshot at event {at} is not as it was written; it is not used"
        return Verified(rows=rows, events=seq, head=link, unproven=unproven, broken_at=at, problem=problem)
    return Verified(rows=rows, events=seq, head=link, unproven=unproven)


def _wrong(row: Any, link: bytes, seq: int, *, chained: bool) -> tuple[int, str] | None:
    """The place of what is wrong with a row, and what it is; None where nothing is."""
    first = row["first_seq"]
    if first != seq + 1:
        return seq + 1, f"events {seq + 1} to {first - 1} are missing"
    stored = row["chain"]
    if stored is None:
        return (first, f"the row of events {first} to {row['seq']} has lost its hash") if chained else None
    if next_link(link, row["data"]) != bytes(stored):
        return (
            first,
            f"the row of events {first} to {row['seq']} is not as it was written, or one before it was exchanged",
        )
    try:
        numbers = [event.seq for event in event_pb2.EventBatch.FromString(row["data"]).events]
    except ValueError:
        numbers = []
    if numbers != list(range(first, row["seq"] + 1)):
        return first, f"the row of events {first} to {row['seq']} holds others"
    return None


async def _rows(database: Database, entity_id: str) -> AsyncIterator[Any]:
    after = 0
    while rows := await database.fetch_patiently("journal_of", id=entity_id, after=after, limit=PAGE):
        for row in rows:
            yield row
        after = rows[-1]["seq"]
