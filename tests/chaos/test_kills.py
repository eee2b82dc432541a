"""Every tier is killed while it works: nothing is lost, nothing is done twice that need not be (K1, S7, J3, J4)."""

import asyncio
import pathlib
import random
from collections.abc import Callable

import harness
import pytest
from tierflow import Client
from tierflow_testing.stack import Stack

MakeStack = Callable[..., Stack]


@pytest.mark.parametrize("orchestrators", [1, 2])
async def test_each_tier_dies_once(make_stack: MakeStack, tmp_path: pathlib.Path, orchestrators: int) -> None:
    """K1, Q1, J4, R12, R16, R25, R28: kill -9 of each tier at random moments under load; every run ends right, the auditor finds nothing."""
    executions = tmp_path / "executions"
    stack = make_stack(**harness.options(executions, orchestrators=orchestrators))
    chance = random.Random(orchestrators)
    async with Client(stack.address, timeout=120, patience=120) as client:
        await harness.ready(client)
        load = harness.Load(client, harness.flow())
        over = asyncio.Event()

        async def faults() -> list[harness.Fault]:
            try:
                return await harness.at_random(stack.services, chance, (0.2, 0.8))
            finally:
                over.set()

        async def work() -> None:
            await load.run(60)
            await load.until(over.is_set)

        happened = await harness.during(work(), faults())
    report = await harness.examined(stack, executions)
    print(report, happened, load.longest)
    assert load.wrong == []
    assert report.problems == []
    assert report.counts["runs"] == load.submitted + 1
    assert harness.complaints(stack) == []
