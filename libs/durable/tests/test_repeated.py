"""Batches that are sent again while their first copy is still under way in the server (rule R4), against a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tierflow_durable.ids import uuid7
from tierflow_durable.migrations import migrate
from tierflow_testing.counter import Add, Node


class Hang:
    """Group commits of a node wait in the server until they are let go; meanwhile its connection breaks."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._blocker: asyncpg.Connection[Any]
        self._watcher: asyncpg.Connection[Any]

    async def __aenter__(self) -> "Hang":
        url = self._node.durable.database.url
        self._blocker, self._watcher = await asyncpg.connect(url), await asyncpg.connect(url)
        await self._blocker.execute("BEGIN")
        await self._blocker.execute("SELECT FROM toy.fence WHERE id = $1 FOR UPDATE", self._node.durable.instance_id)
        return self

    async def copies(self, wanted: int) -> None:
        """Waits until so many statements wait in the server."""
        while (
            await self._watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            < wanted
        ):
            await asyncio.sleep(0.01)

    async def send_again(self) -> None:
        """The connection breaks, and the batch is sent again."""
        await self.copies(1)
        self._node.host.writer._connection.terminate()
        await self.copies(2)

    async def __aexit__(self, *_: object) -> None:
        await self._blocker.execute("ROLLBACK")
        await self._blocker.close()
        await self._watcher.close()


@pytest.fixture
async def node(database: str) -> AsyncIterator[Node]:
    await migrate(database, "toy")
    made = Node(database, "a", lease=60.0)
    await made.durable.start()
    yield made
    await made.durable.close()


async def test_an_update_is_stored_once(node: Node) -> None:
    """R4, R5, Lesson 25: rows that the first copy has written are found, and nobody is to blame for them."""
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    async with Hang(node) as hang:
        asked = asyncio.ensure_future(node.durable.router.command(entity_id, Add(n=2)))
        await hang.send_again()
    assert await asyncio.wait_for(asked, 5) == 3
    assert [row.seq for row in await node.durable.reader.events(entity_id, 0)] == [1, 2]
    assert await node.durable.router.command(entity_id, Add(n=1)) == 4
    assert entity_id in node.host.entities


async def test_a_create_is_not_lost_to_itself(node: Node) -> None:
    """R3, R4: a new entity that the first copy has made is this instance's, and stays in its memory."""
    entity_id = uuid7()
    async with Hang(node) as hang:
        asked = asyncio.ensure_future(node.host.create(entity_id, Add(n=1)))
        await hang.send_again()
    made = await asyncio.wait_for(asked, 5)
    assert made.created
    assert entity_id in node.host.entities
    assert await node.durable.router.command(entity_id, Add(n=1)) == 2


async def test_letting_go_twice_is_no_fence(node: Node, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4, R15: an entity that is let go without an event leaves no row to be found; its owner does not take itself for fenced."""
    entity_id = uuid7()
    await node.host.create(entity_id, Add(n=1))
    prepare = node.host.writer._prepare

    class Unanswered:
        """The statement is carried out, and the connection breaks before its answer."""

        async def fetchrow(self, *arguments: Any) -> None:
            monkeypatch.undo()
            writer = node.host.writer
            await (await prepare(writer._connection, self.batch)).fetchrow(*arguments)
            raise ConnectionResetError("the answer is lost")

    async def unanswered(_: Any, batch: Any) -> Unanswered:
        lost = Unanswered()
        lost.batch = batch
        return lost

    monkeypatch.setattr(node.host.writer, "_prepare", unanswered)
    entity = node.host.entities[entity_id]
    entity.state.parked = True
    node.host.touch(entity)
    await asyncio.wait({entity.wait_released(), node.fenced}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert not node.fenced.done()
    assert await node.durable.router.command(entity_id, Add(n=1)) == 2
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT count(*) FROM toy.fence WHERE fenced") == 0
    await connection.close()
