"""Reads a tier's entities with their journals, one after the other, in one snapshot of the database: any number of them fits into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from tierflow_contracts.events.v1 import event_pb2

from tierflow_testing.auditing.report import Report

PAGE = 500


@dataclass(slots=True)
class History:
    """An entity: its row and the events of its journal, in order."""

    row: asyncpg.Record
    events: list[event_pb2.Event] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["id"])


async def histories(connection: asyncpg.Connection[Any], schema: str, report: Report) -> AsyncIterator[History]:
    """Every entity of a schema, by id, with its events. Within a transaction. Reports rows that contradict each other."""
    noted = f"EXISTS (SELECT 1 FROM {schema}.unacknowledged u WHERE u.id = entity.id)"
    entities = f"SELECT *, unacknowledged OR {noted} AS owed FROM {schema}.entity ORDER BY id"
    rows = connection.cursor(entities, prefetch=PAGE).__aiter__()
    entity = await anext(rows, None)
    current = History(entity) if entity is not None else None
    journal = f"SELECT entity_id, first_seq, seq, data FROM {schema}.journal ORDER BY entity_id, seq"
    async for line in connection.cursor(journal, prefetch=PAGE):
        while current is not None and current.row["id"] < line["entity_id"]:
            yield current
            entity = await anext(rows, None)
            current = History(entity) if entity is not None else None
        if current is None or current.row["id"] != line["entity_id"]:
            report.problem("journal without an entity (R3)", f"{schema} {line['entity_id']}")
            continue
        current.events += _events(line, report)
    while current is not None:
        yield current
        entity = await anext(rows, None)
        current = History(entity) if entity is not None else None


def _events(line: asyncpg.Record, report: Report) -> Sequence[event_pb2.Event]:
    events = event_pb2.EventBatch.FromString(line["data"]).events
    found = [event.seq for event in events]
    report.expect(
        found == list(range(line["first_seq"], line["seq"] + 1)),
        "a journal row does not hold what it says (R6)",
        f"{line['entity_id']}: {line['first_seq']} to {line['seq']} holds {found}",
    )
    return events
