"""The network between all parts is bad: connections are cut, refused, late, held up in one direction, or dead in silence (O7, K1, H3, H4)."""

import asyncio
import pathlib
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator

import harness
import pytest
from evidence import Evidence
from scraping import metric
from steering_load import SteeredLoad
from tierflow import Client
from tierflow_testing.cables import Cables
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
MakeStack = Callable[..., Stack]

ROUTES = [
    "orchestrator-postgres",
    "coordinator-postgres",
    "services-nats",
    "coordinator-orchestrator",
    "orchestrator-executor",
    "client-coordinator",
]
CUTS = 6
RULES = pathlib.Path(__file__).resolve().parents[2] / "k8s" / "components" / "alerts" / "tierflow.rules.yaml"
BOUND = float(re.search(r"tierflow_events_lag > (\d+)", RULES.read_text())[1])  # type: ignore[index]
"""Of the alert."""
PROMISED = "every run ends right, nothing is lost or executed again, no process ends, no event is missing"


@pytest.fixture
def cables() -> Iterator[Cables]:
    with Cables() as made:
        yield made


class Net:
    """A stack whose parts meet over cables, under load that is steered."""

    def __init__(self, stack: Stack, cables: Cables, client: Client, executions: pathlib.Path) -> None:
        self.stack = stack
        self.cables = cables
        self.load = SteeredLoad(client, harness.flow(seconds=0.1), in_flight=80)
        self.executions = executions
        self.restarts = {service.name: service.restarts for service in stack.services}
        self.slowest = 0.0

    async def moves(self, patience: float = 60.0, count: int = 30) -> float:
        """Seconds until further runs have ended; what ended meanwhile may have been told late, hence so many."""
        done, began = self.load.done, time.monotonic()
        await eventually(lambda: self.load.done >= done + count, patience, message="runs end again")
        return time.monotonic() - began

    async def mended(self, route: str) -> None:
        """The network is good again, and so is the work."""
        await asyncio.to_thread(self.cables.mend, route)
        self.slowest = max(self.slowest, await self.moves())

    async def settle(self, evidence: Evidence, fault: str, times: int, promised: str, seen: str) -> None:
        """Asks the auditor, notes the evidence, and fails where something does not hold."""
        report = await harness.examined(self.stack, self.executions, executors_lived=True, patience=120)
        again = report.counts["executions_again"]
        restarted = [service.name for service in self.stack.services if service.restarts > self.restarts[service.name]]
        holds = not self.load.wrong and report.ok and not restarted and not again
        numbers = (
            f"{self.load.done} runs, of these {self.load.paused} paused and {self.load.cancelled} cancelled, {len(self.load.wrong)} wrong, "
            f"{len(report.problems)} problems, {again} executions again; {seen}"
        )
        evidence.add("network", fault, times, promised, numbers, holds=holds)
        assert self.load.wrong == []
        assert report.problems == []
        assert again == 0
        assert restarted == []
        assert "\n".join(harness.complaints(self.stack)) == ""


@pytest.fixture
async def net(make_stack: MakeStack, cables: Cables, tmp_path: pathlib.Path) -> AsyncIterator[Net]:
    executions = tmp_path / "executions"
    stack = make_stack(**harness.options(executions, executors=2, via=cables.through))
    address = cables.through("client-coordinator", stack.address)
    async with Client(address, timeout=30, patience=300) as client:
        await harness.ready(client)
        yield Net(stack, cables, client, executions)


@pytest.mark.parametrize("route", ROUTES)
async def test_connections_are_bad(net: Net, evidence: Evidence, route: str) -> None:
    """O7, K1, H4, S13, R4, R7, R25, R28: between any two parts connections are cut, refused, late, held up and dead in silence, under load that is steered."""
    cables, chance = net.cables, random.Random(route)
    stranded = 0.0

    async def told(order: Callable[..., None], *arguments: object, **more: object) -> None:
        await asyncio.to_thread(order, route, *arguments, **more)

    async def faults() -> list[harness.Fault]:
        nonlocal stranded
        await eventually(lambda: net.load.done > 20, 60)
        for _ in range(CUTS):
            await harness.lasts(chance.uniform(0.1, 0.7))
            await told(cables.cut)
        await told(cables.cut, refuse=True)
        await harness.lasts(4)
        await net.mended(route)
        await told(cables.delay, 0.15)
        await harness.lasts(4)
        await told(cables.throttle, 100_000)
        await harness.lasts(2)
        await net.mended(route)
        for direction in ("there", "back"):
            await told(cables.hold, direction)
            await harness.lasts(4)
            await net.mended(route)
        await told(cables.strand)
        stranded = await net.moves(count=120)
        return []

    await harness.under_load(net.load, 100, faults())
    seen = (
        f"{cables.broken(route)} connections broken; work went on {net.slowest:.1f} s after the network was good again at the latest, "
        f"{stranded:.1f} s after connections had died in silence"
    )
    fault = f"{route}: cut {CUTS} times, refused 4 s, 150 ms late and 100 kB/s, held up 4 s in each direction, dead in silence"
    await net.settle(evidence, fault, CUTS + 6, PROMISED, seen)


async def test_acknowledgements_are_lost(net: Net, evidence: Evidence) -> None:
    """H3, H4, R19, R20: JetStream takes events, and its acknowledgements and then its connections are lost: the lag shows it, the alert would fire, nothing is missing."""
    cables = net.cables
    owners = [*net.stack.coordinators, *net.stack.orchestrators]
    seen: list[str] = []

    async def lag() -> float:
        return max([await metric(service, "tierflow_events_lag") for service in owners])

    async def high() -> bool:
        return await lag() > BOUND

    async def low() -> bool:
        return await lag() < 200

    async def faults() -> list[harness.Fault]:
        await eventually(lambda: net.load.done > 20, 60)
        await eventually(low, 20)
        for _ in range(3):
            began = time.monotonic()
            await asyncio.to_thread(cables.mute, "services-nats")
            await eventually(high, 60, interval=0.2)
            rose = time.monotonic() - began
            most = await lag()
            began = time.monotonic()
            await asyncio.to_thread(cables.cut, "services-nats")
            await eventually(low, 60, interval=0.2)
            seen.append(f"lag {most:.0f} after {rose:.1f} s, below 200 again {time.monotonic() - began:.1f} s later")
        return []

    await harness.under_load(net.load, 100, faults())
    promised = "the lag rises above the bound of the alert and falls again; afterwards no event is missing"
    await net.settle(
        evidence, "services-nats: acknowledgements lost, then connections cut", 3, promised, "; ".join(seen)
    )
