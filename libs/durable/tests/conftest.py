"""Nodes of the toy tier for the tests of the durable library."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tierflow_durable.migrations import migrate
from tierflow_testing.counter import Node

Start = Callable[..., Awaitable[Node]]


@pytest.fixture
async def toy(database: str) -> str:
    """The address of a database with the toy tier's schema."""
    await migrate(database, "toy")
    return database


@pytest.fixture
async def start_node(toy: str) -> AsyncIterator[Start]:
    """`start_node("a", lease=1.0, publisher=…)`: a running node; closed after the test."""
    nodes: list[Node] = []

    async def make(name: str = "a", **options: object) -> Node:
        node = Node(options.pop("url", toy), name, **options)
        await node.durable.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        await node.durable.close()
