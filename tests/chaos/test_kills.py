"""Every tier is killed while it works: nothing is lost, nothing is done twice that need not be (K1, S7, J3, J4)."""

import asyncio
import os
import pathlib
import random
from collections.abc import Callable, Sequence

import harness
import pytest
from evidence import Evidence
from tierflow import Client
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import Stack

MakeStack = Callable[..., Stack]
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "20"))


@pytest.mark.parametrize("orchestrators", [1, 2])
async def test_each_tier_dies_once(make_stack: MakeStack, tmp_path: pathlib.Path, orchestrators: int) -> None:
    """K1, Q1, J4, R12, R16, R25, R28: kill -9 of each tier at random moments under load; every run ends right, the auditor finds nothing."""
    executions = tmp_path / "executions"
    stack = make_stack(**harness.options(executions, orchestrators=orchestrators))
    chance = random.Random(orchestrators)
    async with Client(stack.address, timeout=120, patience=120) as client:
        await harness.ready(client)
        load = harness.Load(client, harness.flow())
        await harness.under_load(load, 60, harness.at_random(stack.services, chance, (0.2, 0.8)))
    report = await harness.examined(stack, executions)
    assert load.wrong == []
    assert report.problems == []
    assert report.counts["runs"] == load.submitted + 1
    assert harness.complaints(stack) == []


async def test_adoption_repeats_nothing(make_stack: MakeStack, tmp_path: pathlib.Path) -> None:
    """S7, R25, J4: as long as executors live, attempts started are attempts needed, whoever else is killed."""
    executions = tmp_path / "executions"
    stack = make_stack(**harness.options(executions))
    async with Client(stack.address, timeout=120, patience=120) as client:
        await harness.ready(client)
        load = harness.Load(client, harness.flow(seconds=0.2))
        victims = [*stack.orchestrators, *stack.coordinators]
        await harness.under_load(load, 60, harness.at_random(victims, random.Random(3), (0.2, 0.8)))
    report = await harness.examined(stack, executions, executors_lived=True)
    assert load.wrong == []
    assert report.problems == []
    assert report.counts["attempts_again"] == 0


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victims", ["all", "not executors", "together"])
async def test_rounds(make_stack: MakeStack, tmp_path: pathlib.Path, evidence: Evidence, victims: str) -> None:
    """K1, S7, S13, Q1, J3: round after round in which one process of each tier is killed at a random moment, 200 runs of 10 steps under way."""
    executions = tmp_path / "executions"
    stack = make_stack(**harness.options(executions, coordinators=2, orchestrators=2, executors=2))
    chance = random.Random(victims)
    lived = victims == "not executors"
    tiers: list[Sequence[ServiceProcess]] = [stack.coordinators, stack.orchestrators]
    tiers += [] if lived else [stack.executors]

    async def rounds() -> list[harness.Fault]:
        faults: list[harness.Fault] = []
        for _ in range(ROUNDS):
            one_of_each = [chance.choice(tier) for tier in tiers]
            if victims == "together":
                await asyncio.sleep(chance.uniform(0.5, 3.0))
                faults += await asyncio.gather(*(harness.kill(service) for service in one_of_each))
            else:
                faults += await harness.at_random(one_of_each, chance, (0.2, 2.0))
        return faults

    async with Client(stack.address, timeout=300, patience=300) as client:
        await harness.ready(client)
        load = harness.Load(client, harness.flow(seconds=0.5), in_flight=200)
        happened = await harness.under_load(load, 200, rounds())
    report = await harness.examined(stack, executions, executors_lived=lived, patience=120)
    back = max(fault.back for fault in happened)
    seen = (
        f"{load.done} runs of 10 steps, {len(load.wrong)} wrong, {len(report.problems)} problems, {report.counts['executions_again']} executions again, "
        f"slowest process back after {back:.1f} s, longest run {load.longest:.1f} s"
    )
    again = "no attempt again" if lived else "only attempts of dead executors again"
    name = {
        "all": "kill -9 of one process of each tier, one after the other",
        "not executors": "kill -9 of one process of Tier 1 and of Tier 2, executors live",
        "together": "kill -9 of one process of each tier at once",
    }
    holds = not load.wrong and report.ok
    evidence.add(
        "processes", name[victims], len(happened), f"every run ends right, no event missing, {again}", seen, holds=holds
    )
    assert load.wrong == []
    assert report.problems == []
