"""The tables of one schema, as dictionaries."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


class Tables:
    """What is committed. Changed by `Transaction.write` only."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.instance: dict[str, Row] = {}
        self.fence: dict[str | None, Row] = {}
        self.watermark: dict[str, Row] = {}
        self.entity: dict[str, Row] = {}
        self.unowned: dict[str, Row] = {}
        """Entities without an owner that have not ended: the index on wake times."""
        self.unacknowledged: dict[str, Row] = {}
        self.journal: dict[str, list[Row]] = {}
        self.keys: dict[tuple[str, int], Row] = {}
        """The journal's primary key."""
        self.by_instance: dict[str, list[Row]] = {}
        self.snapshot: dict[str, Row] = {}
        self.request: dict[tuple[str, str], Row] = {}
        self.blob: dict[bytes, dict[int, bytes]] = {}
        self.dead_letter: dict[tuple[str, int, str, int], Row] = {}
        self.audit: dict[str, Row] = {}
        self.event_stream: dict[str, Row] = {}
        self.flow: dict[str, Row] = {}
        self.step_cache: dict[tuple[str, str], Row] = {}
        self.version: dict[tuple[str, str, str], Row] = {}

    def change_entity(self, entity_id: str, change: Row) -> None:
        """Puts a new version of a row in the place of the old one, which readers may still hold."""
        row = self.entity[entity_id] = {**self.entity.get(entity_id, {}), **change}
        if row["owner"] is None and row["wake_at"] is not None:
            self.unowned[entity_id] = row
        else:
            self.unowned.pop(entity_id, None)

    def add_journal(self, row: Row) -> None:
        self.journal.setdefault(row["entity_id"], []).append(row)
        self.keys[row["entity_id"], row["seq"]] = row
        self.by_instance.setdefault(row["instance"], []).append(row)

    def put_chunk(self, name: bytes, chunk: int, data: bytes) -> None:
        self.blob.setdefault(name, {}).setdefault(chunk, data)
