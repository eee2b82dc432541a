"""A copy of sound records of both tiers, to be falsified in one way at a time."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg
from tierflow_contracts.events.v1 import event_pb2


@dataclass(slots=True)
class Forged:
    """The copy: two swarms, one run each."""

    connection: asyncpg.Connection[Any]
    executions: pathlib.Path
    swarm: str
    run: str
    other_swarm: str
    url: str
    settled: bool = True
    open: list[asyncpg.Connection[Any]] = field(default_factory=list)

    async def sql(self, statement: str, *values: Any) -> None:
        """Changes rows."""
        await self.connection.execute(statement, *values)

    async def events(self, entity_id: str) -> list[event_pb2.Event]:
        """The events of an entity's journal."""
        rows = await self.connection.fetch(
            f"SELECT data FROM {self._schema(entity_id)}.journal WHERE entity_id = $1 ORDER BY seq", entity_id
        )
        return [event for row in rows for event in event_pb2.EventBatch.FromString(row["data"]).events]

    async def write(self, entity_id: str, events: list[event_pb2.Event]) -> None:
        """Puts other events in the place of an entity's, in one row of its journal; its own row says that it ends with the last."""
        table = f"{self._schema(entity_id)}.journal"
        row = await self.connection.fetchrow(
            f"SELECT * FROM {table} WHERE entity_id = $1 ORDER BY seq DESC LIMIT 1", entity_id
        )
        await self.sql(f"DELETE FROM {table} WHERE entity_id = $1", entity_id)
        await self.sql(
            f"INSERT INTO {table} (entity_id, seq, first_seq, instance, position, data) VALUES ($1, $2, $3, $4, $5, $6)",
            entity_id, events[-1].seq, events[0].seq, row["instance"], row["position"],
            event_pb2.EventBatch(events=events).SerializeToString(),
        )  # fmt: skip
        await self.sql(f"UPDATE {self._schema(entity_id)}.entity SET seq = $2 WHERE id = $1", entity_id, events[-1].seq)

    async def edit(self, entity_id: str, kind: str, change: Callable[[Any, event_pb2.Event], None]) -> None:
        """Changes the first event of a kind: `change` is given its payload and the event."""
        events = await self.events(entity_id)
        event = next(event for event in events if event.WhichOneof("payload") == kind)
        change(getattr(event, kind), event)
        await self.write(entity_id, events)

    async def add(self, entity_id: str, kind: str) -> None:
        """Repeats the first event of a kind at the end."""
        events = await self.events(entity_id)
        again = event_pb2.Event()
        again.CopyFrom(next(event for event in events if event.WhichOneof("payload") == kind))
        again.seq = events[-1].seq + 1
        again.time.CopyFrom(events[-1].time)
        await self.write(entity_id, [*events, again])

    async def drop(self, entity_id: str, kind: str) -> None:
        """Takes the first event of a kind out, and numbers the others anew."""
        events = await self.events(entity_id)
        events.remove(next(event for event in events if event.WhichOneof("payload") == kind))
        for seq, event in enumerate(events, 1):
            event.seq = seq
        await self.write(entity_id, events)

    def facts(self) -> list[dict[str, Any]]:
        """What handlers noted."""
        return [json.loads(line) for line in self.executions.read_text().splitlines()]

    def noted(self, facts: list[dict[str, Any]]) -> None:
        """Puts other notes in their place."""
        self.executions.write_text("".join(json.dumps(fact) + "\n" for fact in facts))

    def _schema(self, entity_id: str) -> str:
        return "orchestrator" if entity_id == self.run else "coordinator"


Falsify: TypeAlias = Callable[[Forged], Awaitable[None]]
