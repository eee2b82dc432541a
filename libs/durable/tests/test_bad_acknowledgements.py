"""Acknowledgements that cannot be stored, among what can, and those that a version before kept elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from tierflow_durable.ids import uuid7
from tierflow_durable.migrations import migrate
from tierflow_testing.counter import Add, Node


@pytest.fixture
async def node(database: str) -> AsyncIterator[Node]:
    await migrate(database, "toy")
    node = Node(database, "a")
    await node.durable.start()
    yield node
    await node.durable.close()


async def test_they_harm_nobody(node: Node, database: str) -> None:
    """F27, R5: a batch with acknowledgements that name nothing stores its entities and its sound acknowledgements; they were set aside for it."""
    writer = node.host.writer
    known = uuid7()
    await node.host.create(known, Add(n=1))
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO toy.unacknowledged (id, generation, ended_at) VALUES ($1, 1, 1)", known)
    writer.acknowledge("NaN", 1)
    writer.acknowledge(uuid7(), 2**31)
    writer.acknowledge(known, 1)
    ids = [uuid7() for _ in range(20)]
    made = await asyncio.gather(*(node.host.create(entity_id, Add(n=1)) for entity_id in ids))
    await writer.flushed()
    assert all(one.created for one in made)
    assert await connection.fetchval("SELECT count(*) FROM toy.entity WHERE reason <> ''") == 0
    assert not await connection.fetchval("SELECT count(*) FROM toy.unacknowledged WHERE id = $1", known)
    await connection.close()
    assert await node.durable.router.command(ids[0], Add(n=1)) == 2


async def test_what_the_version_before_noted_is_taken_up(node: Node, database: str) -> None:
    """Q23, R28: a process of the version before notes in the entity's row what is not acknowledged; a later look finds it, and its acknowledgement holds."""
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE toy.entity SET unacknowledged = true, ended_at = 1 WHERE id = $1", entity_id)

    async def look() -> list[str]:
        rows = await node.durable.database.fetch("unacknowledged", before=2, after=str(UUID(int=0)), limit=10)
        return [str(row["id"]) for row in rows]

    await look()
    assert await look() == [entity_id]
    node.host.writer.acknowledge(entity_id, 1)
    await node.host.writer.flushed()
    assert await look() == []
    assert not await connection.fetchval("SELECT unacknowledged FROM toy.entity WHERE id = $1", entity_id)
    await connection.close()
