"""A scripted Tier 1 and a client of it."""

from collections.abc import AsyncIterator

import pytest
from tierflow import Client
from tierflow_testing.fake_coordinator import FakeCoordinator


@pytest.fixture
async def fake() -> AsyncIterator[FakeCoordinator]:
    fake = FakeCoordinator()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def client(fake: FakeCoordinator) -> AsyncIterator[Client]:
    async with Client(fake.address) as client:
        yield client
