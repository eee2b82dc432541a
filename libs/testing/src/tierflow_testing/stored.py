"""What a database holds of a tier, whole: for tests that read everything that a version has stored."""

from dataclasses import dataclass
from typing import Any

from tierflow_contracts.events.v1.event_pb2 import EventBatch


@dataclass(frozen=True, slots=True)
class Stored:
    """All entities of a schema, by id.

    Attributes:
        states: The state in each one's row.
        journals: Each one's events, oldest first.
        snapshots: The sequence number and the data of each one's snapshot, where it has one.
    """

    states: dict[str, str]
    journals: dict[str, EventBatch]
    snapshots: dict[str, tuple[int, bytes]]


async def stored(connection: Any, schema: str) -> Stored:
    """Reads a schema with a connection of asyncpg."""
    rows = await connection.fetch(f"SELECT id, state FROM {schema}.entity")
    states = {str(row["id"]): row["state"] for row in rows}
    rows = await connection.fetch(f"SELECT entity_id, seq, data FROM {schema}.snapshot")
    snapshots = {str(row["entity_id"]): (row["seq"], row["data"]) for row in rows}
    journals: dict[str, EventBatch] = {}
    for row in await connection.fetch(f"SELECT entity_id, data FROM {schema}.journal ORDER BY entity_id, seq"):
        journals.setdefault(str(row["entity_id"]), EventBatch()).MergeFromString(row["data"])
    return Stored(states, journals, snapshots)


async def definitions(connection: Any) -> dict[str, str]:
    """The flows of Tier 2 in their canonical form, by hash."""
    rows = await connection.fetch("SELECT hash, definition FROM orchestrator.flow")
    return {row["hash"]: row["definition"] for row in rows}
