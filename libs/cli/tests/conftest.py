"""A scripted Tier 1 beside the command, which runs as a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from tierflow_testing.fake_coordinator import FakeCoordinator


@dataclass
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Said]]


@pytest.fixture
async def fake() -> AsyncIterator[FakeCoordinator]:
    fake = FakeCoordinator()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def tierflow(fake: FakeCoordinator) -> Command:
    async def run(*arguments: str, address: str = "", stdin: str = "") -> Said:
        environment = {**os.environ, "TIERFLOW_ADDRESS": address or fake.address, "TZ": "UTC"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tierflow_cli.main", *arguments),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        return Said(process.returncode or 0, out.decode(), err.decode())

    return run
