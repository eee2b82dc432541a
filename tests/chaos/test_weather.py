"""What the services stand on goes away and comes back: the database, the event stream, the processor (L6, H4, B11, J5, Q22)."""

import asyncio
import os
import pathlib
import time
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import harness
import pytest
from evidence import Evidence
from tierflow import Client
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
MakeStack = Callable[..., Stack]
OUTAGE = float(os.environ.get("CHAOS_OUTAGE", "20"))
"""Seconds for which the database is away; the event stream is away three times as long."""


class Scene:
    """A stack under load, and what is demanded of it afterwards."""

    def __init__(self, stack: Stack, executions: pathlib.Path, client: Client) -> None:
        self.stack = stack
        self.executions = executions
        self.load = harness.Load(client, harness.flow(seconds=0.1), in_flight=100)
        self.stateful = [*stack.coordinators, *stack.orchestrators]
        self.restarts = {service.name: service.restarts for service in stack.services}

    async def under_load(self, fault: Callable[[], Awaitable[str]]) -> str:
        """Causes a fault when work is well under way; returns what was seen of it."""
        said: list[str] = []

        async def happen() -> list[harness.Fault]:
            await eventually(lambda: self.load.done > 20, 60)
            said.append(await fault())
            return []

        await harness.under_load(self.load, 50, happen())
        return said[0]

    def restarted(self) -> list[str]:
        """Services that ended and were started again."""
        return [service.name for service in self.stack.services if service.restarts > self.restarts[service.name]]

    async def owned_by(self, service: ServiceProcess) -> int:
        """Runs that an orchestrator owns now."""
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            query = "SELECT count(*) FROM orchestrator.entity JOIN orchestrator.instance ON instance.id = owner WHERE instance.name = $1"
            return int(await connection.fetchval(query, service.name))
        finally:
            await connection.close()

    async def settle(
        self,
        evidence: Evidence,
        section: str,
        fault: str,
        promised: str,
        seen: str,
        *,
        executors_lived: bool = True,
        expected: Sequence[str] = (),
    ) -> None:
        """Asks the auditor, notes the evidence, and fails where something does not hold; `expected` are codes that services may have ended with."""
        report = await harness.examined(self.stack, self.executions, executors_lived=executors_lived, patience=120)
        holds = not self.load.wrong and report.ok
        numbers = f"{self.load.done} runs, {len(self.load.wrong)} wrong, {len(report.problems)} problems; {seen}"
        evidence.add(section, fault, 1, promised, numbers, holds=holds)
        assert self.load.wrong == []
        assert report.problems == []
        assert harness.complaints(self.stack, expected) == []


@pytest.fixture
async def scene(make_stack: MakeStack, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Scene:
    executions = tmp_path / "executions"
    marker = request.node.get_closest_marker("stack")
    stack = make_stack(own_servers=True, **harness.options(executions, **(marker.kwargs if marker else {})))
    client = Client(stack.address, timeout=300, patience=300)
    await harness.ready(client)
    yield Scene(stack, executions, client)
    await client.close()


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_database_goes_away(scene: Scene, evidence: Evidence, how: str) -> None:
    """L6, K11, F31, R5, R9, R10, Lesson 29: writers wait, readiness says so, liveness stays; nobody is fenced, nothing is lost, nothing is repeated."""
    postgres = scene.stack.postgres

    async def fault() -> str:
        await asyncio.to_thread(postgres.kill if how == "killed" else postgres.pause)
        began = time.monotonic()
        red = await harness.until_health(scene.stateful, False, 15)
        assert [await harness.serving(service, "liveness") for service in scene.stateful] == [True] * len(
            scene.stateful
        )
        await asyncio.sleep(max(0.0, OUTAGE - (time.monotonic() - began)))
        await asyncio.to_thread(postgres.start if how == "killed" else postgres.resume)
        green = await harness.until_health(scene.stateful, True, 30)
        done = scene.load.done
        moved = time.monotonic()
        await eventually(lambda: scene.load.done > done + 20, 60)
        return f"not ready after {red:.1f} s, ready {green:.1f} s after its return, work done {time.monotonic() - moved:.1f} s later"

    seen = await scene.under_load(fault)
    promised = "work waits and goes on; health tells it; no process ends, nothing is lost or repeated"
    await scene.settle(evidence, "servers", f"Postgres {how} for {OUTAGE:.0f} s", promised, seen)
    assert scene.restarted() == []


async def test_event_stream_goes_away(scene: Scene, evidence: Evidence) -> None:
    """H4, B11, R19, R21: without NATS work goes on as fast and services stay ready; afterwards no event is missing."""

    async def fault() -> str:
        await asyncio.to_thread(scene.stack.nats.kill)
        before = scene.load.done
        await asyncio.sleep(3 * OUTAGE)
        assert [await harness.serving(service) for service in scene.stateful] == [True] * len(scene.stateful)
        done = scene.load.done - before
        assert done > 50
        await asyncio.to_thread(scene.stack.nats.start)
        return f"{done} runs ended meanwhile, services stayed ready"

    seen = await scene.under_load(fault)
    promised = "work goes on, services stay ready, every event is there afterwards"
    await scene.settle(evidence, "servers", f"NATS killed for {3 * OUTAGE:.0f} s", promised, seen)
    assert scene.restarted() == []


@pytest.mark.parametrize("also", ["", "coordinator", "orchestrator", "everybody"])
async def test_event_stream_is_lost(scene: Scene, evidence: Evidence, also: str) -> None:
    """R20, Lesson 41: a stream that comes back empty is filled again from the journals, also where those who knew the old one died with it."""

    async def fault() -> str:
        await asyncio.to_thread(scene.stack.nats.kill)
        victims = [
            service for service in scene.stateful if also == "everybody" or (also and service.name.startswith(also))
        ]
        faults = asyncio.gather(*(harness.kill(service) for service in victims))
        await asyncio.to_thread(scene.stack.nats.wipe)
        await asyncio.to_thread(scene.stack.nats.start)
        await faults
        return f"{len(victims)} processes killed at the same time"

    seen = await scene.under_load(fault)
    await scene.settle(
        evidence,
        "servers",
        f"NATS killed and its data deleted{f', {also} killed too' if also else ''}",
        "every event of the journals is on the stream again",
        seen,
    )


@pytest.mark.stack(
    orchestrators=2, orchestrator_environment={"TIERFLOW_LEASE_SECONDS": "4", "TIERFLOW_HEARTBEAT_SECONDS": "1"}
)
async def test_frozen_past_its_lease(scene: Scene, evidence: Evidence) -> None:
    """J5, K8, R1, R7, R10 to R12, R25: an orchestrator that sleeps past its lease is fenced; awake again it writes nothing, tells executors nothing, and ends with 75."""
    frozen, other = scene.stack.orchestrators

    async def fault() -> str:
        # New runs go to whoever has fewest, and it may have connected last: it freezes with work in its hands.
        await eventually(
            lambda: _at_least(scene.owned_by(frozen), 20), 60, message="the one that is to freeze has runs"
        )
        frozen.supervised = False
        await asyncio.to_thread(frozen.pause)
        began = time.monotonic()
        await eventually(
            lambda: any("adopting" in line["event"] for line in other.lines()), 30, message="adopted by the peer"
        )
        adopted = time.monotonic() - began
        assert adopted < 7  # the lease, one interval, and what the machine's load makes of them
        await asyncio.to_thread(frozen.resume)
        code = await asyncio.to_thread(frozen.wait_exit, 30)
        assert code == 75
        frozen.supervised = True
        await asyncio.to_thread(frozen.start)
        return f"its runs were taken over after {adopted:.1f} s; it ended with exit code {code}"

    seen = await scene.under_load(fault)
    await scene.settle(
        evidence,
        "frozen",
        "an orchestrator frozen past its lease",
        "fenced; nothing of it is written or repeated",
        seen,
        expected=["FENCED"],
    )


async def _at_least(count: Awaitable[int], least: int) -> bool:
    return await count >= least


@pytest.mark.stack(executors=2, supervised=False, orchestrator_environment={"TIERFLOW_EXECUTOR_LOST_SECONDS": "5"})
async def test_executor_dies_for_good(scene: Scene, evidence: Evidence) -> None:
    """R26, K8: what a dead executor had is lost after a stated time and done elsewhere; what others had is not touched."""

    async def fault() -> str:
        await asyncio.to_thread(scene.stack.executors[0].kill)
        before, began = scene.load.done, time.monotonic()
        await eventually(lambda: scene.load.done > before + 150, 60)
        return f"150 further runs ended within {time.monotonic() - began:.1f} s"

    seen = await scene.under_load(fault)
    promised = "its attempts are made elsewhere after executor_lost, others go on"
    await scene.settle(evidence, "processes", "an executor killed for good", promised, seen, executors_lived=False)


@pytest.mark.stack(coordinators=2, orchestrators=2, executors=2)
async def test_rolling_restart(scene: Scene, evidence: Evidence) -> None:
    """Q22, M13, N6, Lesson 24: every process is told to stop and started anew, one after the other: no call fails, no attempt is repeated."""

    async def fault() -> str:
        slowest = 0.0
        for service in scene.stack.services:
            began = time.monotonic()
            assert await asyncio.to_thread(service.stop, 60)
            assert service.exit_code == 0
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.to_thread(service.start)
        return f"slowest drain {slowest:.1f} s, longest run {scene.load.longest:.1f} s"

    seen = await scene.under_load(fault)
    await scene.settle(evidence, "deployments", "rolling restart of all", "no call fails, no attempt is repeated", seen)
