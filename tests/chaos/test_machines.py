"""The machine is bad: the disk confirms late or is full, clocks jump by an hour (Q1, R9, R10, R17, R25, L6)."""

import asyncio
import pathlib
import time
from collections.abc import Callable

import harness
import machines
import pytest
from evidence import Evidence
from scraping import metric
from steering_load import SteeredLoad
from tierflow import Client
from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
HOUR = 3600.0
MOST_LAG = 200
"""Events that are usually on their way under this load, and some."""
LASTS = 8.0
"""Seconds for which the machine is bad."""


class Machine:
    """A stack under load, and what is demanded of it afterwards."""

    def __init__(self, stack: Stack, executions: pathlib.Path, client: Client) -> None:
        self.stack = stack
        self.executions = executions
        self.load = SteeredLoad(client, harness.flow(seconds=0.1), in_flight=60)
        self.restarts = {service.name: service.restarts for service in stack.services}

    async def moves(self, patience: float = 60.0, count: int = 40) -> float:
        """Seconds until further runs have ended."""
        done, began = self.load.done, time.monotonic()
        await eventually(lambda: self.load.done >= done + count, patience, message="runs end again")
        return time.monotonic() - began

    async def settle(self, evidence: Evidence, section: str, fault: str, promised: str, seen: str) -> None:
        """Asks the auditor, notes the evidence, and fails where something does not hold."""
        report = await harness.examined(self.stack, self.executions, executors_lived=True, patience=90)
        restarted = [service.name for service in self.stack.services if service.restarts > self.restarts[service.name]]
        holds = not self.load.wrong and report.ok and not restarted
        numbers = (
            f"{self.load.done} runs, of these {self.load.paused} paused and {self.load.cancelled} cancelled, {len(self.load.wrong)} wrong, "
            f"{len(report.problems)} problems, {report.counts['executions_again']} executions again, {len(restarted)} processes ended; {seen}"
        )
        evidence.add(section, fault, 1, promised, numbers, holds=holds)
        assert self.load.wrong == []
        assert report.problems == []
        assert restarted == []


async def _on(
    server_directory: pathlib.Path,
    tmp_path: pathlib.Path,
    work: Callable[[Machine], object],
    *,
    postgres: EmbeddedPostgres | None = None,
    nats: EmbeddedNats | None = None,
    **more: object,
) -> None:
    """Does `work` on a stack with these servers; the servers are started and stopped here."""
    executions = tmp_path / "executions"
    servers = [server for server in (postgres, nats) if server is not None]
    for server in servers:
        await asyncio.to_thread(server.start)
    stack = Stack(
        server_directory / tmp_path.name,
        StackOptions(**harness.options(executions, **more)),
        postgres=postgres,
        nats=nats,
    )
    try:
        await asyncio.to_thread(stack.start)
        async with Client(stack.address, timeout=60, patience=300) as client:
            await harness.ready(client)
            await work(Machine(stack, executions, client))
    finally:
        await asyncio.to_thread(stack.stop, 10.0)
        for server in servers:
            await asyncio.to_thread(server.stop)


async def test_disk_confirms_late(
    server_directory: pathlib.Path, tmp_path: pathlib.Path, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q1, R1, R9: each fsync of Postgres takes 300 ms longer, then 2 s: work is slow, nobody is fenced, nothing is lost."""
    directory = server_directory / f"shim-{tmp_path.name}"
    directory.mkdir(mode=0o755)
    weather = machines.Weather(machines.shim(directory), directory / "weather")
    with monkeypatch.context() as patch:
        for name, value in weather.environment.items():
            patch.setenv(name, value)
        postgres = EmbeddedPostgres(directory / "postgres")
        await asyncio.to_thread(postgres.start)

    async def work(machine: Machine) -> None:
        async def faults() -> list[harness.Fault]:
            await eventually(lambda: machine.load.done > 20, 60)
            for seconds in (0.3, 2.0):
                weather.slow_disk(seconds)
                await harness.lasts(LASTS)
            before = machine.load.done
            weather.slow_disk(0)
            seen.append(
                f"{before} runs had ended by then; work went on {await machine.moves():.1f} s after the disk was good again"
            )
            return []

        seen: list[str] = []
        await harness.under_load(machine.load, 60, faults())
        fault = f"each fsync of Postgres 300 ms late, then 2 s, {LASTS:.0f} s each (a shim in the server's processes)"
        await machine.settle(evidence, "disk", fault, "work is slow; nobody is fenced, nothing is lost", seen[0])

    await _on(server_directory, tmp_path, work, postgres=postgres)


async def test_disk_of_postgres_is_full(
    server_directory: pathlib.Path, tmp_path: pathlib.Path, evidence: Evidence
) -> None:
    """Q1, L6, F25, H4, R5: the disk is full, under load: services say so typed and wait; when there is space again everything goes on."""
    place = server_directory / f"disk-{tmp_path.name}"
    with machines.small_disk(place, 600):
        settings = {"wal_recycle": "off", "max_wal_size": "64MB", "min_wal_size": "32MB", "shared_buffers": "32MB"}
        postgres = EmbeddedPostgres(place / "postgres", settings=settings)

        async def work(machine: Machine) -> None:
            async def faults() -> list[harness.Fault]:
                await eventually(lambda: machine.load.done > 20, 60)
                hog = await asyncio.to_thread(machines.fill, place)
                before = machine.load.done
                await harness.lasts(LASTS)
                during = machine.load.done - before
                await asyncio.to_thread(hog.unlink)
                if not postgres.running:
                    await asyncio.to_thread(postgres.start)
                again = await machine.moves()
                seen.append(f"{during} runs ended while it was full; work went on {again:.1f} s after there was space")
                return []

            seen: list[str] = []
            await harness.under_load(machine.load, 60, faults())
            kinds = _kinds(machine.stack)
            fault = f"the disk of Postgres full for {LASTS:.0f} s (a small file system in memory)"
            promised = "services say so, wait, and go on when there is space; nothing is lost"
            await machine.settle(
                evidence, "disk", fault, promised, f"{seen[0]}; logged as {', '.join(kinds) or 'nothing'}"
            )

        await _on(server_directory, tmp_path, work, postgres=postgres)


TICK = {
    "name": "tick",
    "version": "1",
    "input": {"at": {"type": "string"}},
    "steps": {"say": {"call": "echo", "with": {"at": "${{ input.at }}"}}},
}
"""What a schedule starts."""

RETURNS: dict[str, Callable[[EmbeddedNats], object]] = {
    "": lambda nats: None,
    ", then restarted": lambda nats: nats.restart(),
    ", then restarted without its data": lambda nats: nats.wipe(),
}


@pytest.mark.parametrize("returns", RETURNS)
async def test_disk_of_nats_is_full(
    server_directory: pathlib.Path, tmp_path: pathlib.Path, evidence: Evidence, returns: str
) -> None:
    """R20, R21, O7: the disk of NATS is full, under load: work goes on; when there is space again every event of the journals is on the stream, whether or not NATS is restarted."""
    place = server_directory / f"disk-{tmp_path.name}"
    with machines.small_disk(place, 600):
        nats = EmbeddedNats(place / "nats")

        async def work(machine: Machine) -> None:
            async def faults() -> list[harness.Fault]:
                await eventually(lambda: machine.load.done > 20, 60)
                hog = await asyncio.to_thread(machines.fill, place)
                before = machine.load.done
                await harness.lasts(LASTS)
                during = machine.load.done - before
                await asyncio.to_thread(hog.unlink)
                await asyncio.to_thread(RETURNS[returns], nats)
                began = time.monotonic()
                await eventually(caught_up, 180, interval=0.5, message="events are on the stream again")
                seen.append(
                    f"{during} runs ended while it was full; the lag of events was below {MOST_LAG} again "
                    f"{time.monotonic() - began:.0f} s after there was space"
                )
                return []

            async def caught_up() -> bool:
                return await _lag(machine.stack) < MOST_LAG

            seen: list[str] = []
            await harness.under_load(machine.load, 60, faults())
            fault = f"the disk of NATS full for {LASTS:.0f} s{returns} (a small file system in memory)"
            promised = "work goes on; afterwards every event is on the stream, which is made anew where it has to be"
            await machine.settle(evidence, "disk", fault, promised, seen[0])

        await _on(server_directory, tmp_path, work, nats=nats)


async def _lag(stack: Stack) -> float:
    """Events that are committed and not on the stream, of the service that has most of them."""
    return max(
        [await metric(service, "tierflow_events_lag") for service in (*stack.coordinators, *stack.orchestrators)]
    )


async def test_disk_of_nats_is_slow(server_directory: pathlib.Path, tmp_path: pathlib.Path, evidence: Evidence) -> None:
    """R20, R21, O7: NATS takes and confirms what it gets in short bursts with seconds in between, as over a slow disk: work goes on, nothing is missing, the stream stays the same one."""
    nats = EmbeddedNats(server_directory / f"slow-{tmp_path.name}")

    async def work(machine: Machine) -> None:
        async def faults() -> list[harness.Fault]:
            await eventually(lambda: machine.load.done > 20, 60)
            before, until = machine.load.done, time.monotonic() + 2 * LASTS
            while time.monotonic() < until:
                await asyncio.to_thread(nats.pause)
                await harness.lasts(2.0)
                await asyncio.to_thread(nats.resume)
                await harness.lasts(0.2)
            during, began = machine.load.done - before, time.monotonic()
            await eventually(caught_up, 120, interval=0.2, message="events are on the stream again")
            took = time.monotonic() - began
            seen.append(f"{during} runs ended meanwhile; the lag was below {MOST_LAG} {took:.1f} s afterwards")
            return []

        async def caught_up() -> bool:
            return await _lag(machine.stack) < MOST_LAG

        seen: list[str] = []
        await harness.under_load(machine.load, 60, faults())
        made_anew = sum(
            "a stream" in str(line.get("event")) for each in machine.stack.services for line in each.lines()
        )
        assert made_anew == 0, "a stream that is slow is not a stream that is lost"
        fault = f"NATS confirms in bursts of 0.2 s with 2 s in between, for {2 * LASTS:.0f} s (stopped and continued: what a slow disk looks like from outside)"
        await machine.settle(evidence, "disk", fault, "work goes on; no event is missing", seen[0])

    await _on(server_directory, tmp_path, work, nats=nats)


def _kinds(stack: Stack) -> list[str]:
    """Kinds of trouble with the database that services logged."""
    return sorted({str(line["kind"]) for service in stack.services for line in service.lines() if "kind" in line})


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize(
    "whose",
    ["the coordinator's machine", "the orchestrator's machine", "the executors' machine", "the database's machine"],
)
async def test_clocks_jump(
    server_directory: pathlib.Path,
    tmp_path: pathlib.Path,
    evidence: Evidence,
    monkeypatch: pytest.MonkeyPatch,
    whose: str,
    hours: int,
) -> None:
    """R9, R17, R25, Lesson 29: a wall clock jumps by an hour under load, with schedules and deadlines. Time is the database's: elsewhere nothing happens; there timers follow it, and no lease and no timer is lost."""
    directory = server_directory / f"shim-{tmp_path.name}"
    directory.mkdir(mode=0o755)
    weather = machines.Weather(machines.shim(directory), directory / "weather")
    postgres = None
    more: dict[str, object] = {}
    if "database" in whose:
        with monkeypatch.context() as patch:
            for name, value in weather.environment.items():
                patch.setenv(name, value)
            postgres = EmbeddedPostgres(directory / "postgres")
            await asyncio.to_thread(postgres.start)
    elif "executors" not in whose:
        more["coordinator_environment" if "coordinator" in whose else "orchestrator_environment"] = weather.environment
    waiting = {
        "name": "waiting", "version": "1",
        "steps": {"w": {"wait": "6s"}, "s": {"call": "echo", "needs": ["w"], "with": {"n": "${{ input.n }}"}}},
        "output": {"n": "${{ steps.s.output.n }}"},
    }  # fmt: skip

    async def work(machine: Machine) -> None:
        early: list[float] = []
        ticks: list[tuple[float, int]] = []

        async def timed(number: int) -> None:
            began = time.monotonic()
            output = await machine.load.client.run(waiting, {"n": number}, timeout="60s")
            early.append(time.monotonic() - began)
            if output != {"n": number}:
                machine.load.wrong.append(f"waiting {number}: {output}")

        async def faults() -> list[harness.Fault]:
            await eventually(lambda: machine.load.done > 20, 60)
            timers = asyncio.gather(*(timed(number) for number in range(20)))
            client = machine.load.client
            await client.register_flow(TICK)
            began = time.monotonic()
            await client.schedules.create("tick", "tick", {"at": "${{ schedule.time }}"}, every=1, overlap="allow")
            await harness.lasts(1.0)
            weather.clock(hours * HOUR)
            await machine.moves()
            await harness.lasts(LASTS)
            weather.clock(0)
            await machine.moves()
            await asyncio.wait_for(timers, 90)
            await client.schedules.pause("tick", "enough")
            ticks.append((time.monotonic() - began, (await client.schedules.get("tick")).counts.fired))

            async def all_over() -> bool:
                return not (await client.schedules.get("tick")).open

            await eventually(all_over, 60)
            return []

        await harness.under_load(machine.load, 60, faults())
        shortest, longest = min(early), max(early)
        if "database" not in whose:
            assert shortest >= 5.5, "a timer fired early"
            assert abs(ticks[0][1] - ticks[0][0]) <= 5, "a schedule of a second has another number of firings"
        seen = f"20 timers of 6 s took {shortest:.1f} to {longest:.1f} s; a schedule of 1 s fired {ticks[0][1]} times in {ticks[0][0]:.0f} s"
        fault = f"the wall clock of {whose} jumps by {hours:+d} h and back (a shim in its processes)"
        promised = "nothing but timers follows it, and these only the database's clock; nothing is lost"
        await machine.settle(evidence, "clocks", fault, promised, seen)

    if "executors" in whose:
        environment = {
            "PYTHONPATH": str(harness.HERE), "CHAOS_EXECUTIONS": str(tmp_path / "executions"), **weather.environment
        }  # fmt: skip
        more["executor_environment"] = environment
    await _on(server_directory, tmp_path, work, postgres=postgres, **more)
