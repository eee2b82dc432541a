"""What the curves share: a running system, bursts of load, and points."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from tierflow import Client
from tierflow_testing import children
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

from benchmarks import measuring
from benchmarks.workloads import CHAIN, ONE_STEP, ready

ROOT = pathlib.Path(__file__).resolve().parents[2]
Point = dict[str, Any]
Amount = TypeVar("Amount")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: tiny for smoke tests, usual, or full, which takes long."""

    smoke: bool = False
    full: bool = False

    def pick(self, smoke: Amount, usual: Amount, full: Amount | None = None) -> Amount:
        """The amount that belongs to this size; the usual one where there is no other for full."""
        if self.smoke:
            return smoke
        return full if self.full and full is not None else usual


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a curve: a figure of the points against another, a line for each value of `series`."""

    x: str
    y: str
    title: str
    series: str = ""
    log_x: bool = False
    log_y: bool = False
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """A measurement that yields points, and how they are shown."""

    measure: Callable[[Size], AsyncIterator[Point]]
    panels: Sequence[Panel]


@contextlib.asynccontextmanager
async def system(*, audited: bool = True, **options: Any) -> AsyncIterator[Stack]:
    """A fresh system in a directory of its own, removed afterwards.

    Args:
        audited: Ask the auditor at the end, when everything must have ended; a measurement of wrong results ends the program.
        **options: Fields of `StackOptions`; our handlers are there.
    """
    directory = place()
    given = {
        "slots": 1024,
        "handlers": ["benchmarks.curves.handlers"],
        "executor_environment": {"PYTHONPATH": str(ROOT)},
        **options,
    }
    stack = Stack(directory, StackOptions(**given))
    try:
        await asyncio.to_thread(stack.start)
        yield stack
        if audited:
            report = await audit(stack.database_url, stack.nats.url, settled=True)
            if report.problems:
                raise SystemExit("\n".join(map(str, report.problems[:20])))
    finally:
        await asyncio.to_thread(stack.stop, 5.0)
        shutil.rmtree(directory, ignore_errors=True)


def place() -> pathlib.Path:
    """A new directory that Postgres, who is somebody else, can go into."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tierflow-curve-"))
    directory.chmod(0o755)
    return directory


@contextlib.asynccontextmanager
async def client_of(stack: Stack) -> AsyncIterator[Client]:
    """A client of all coordinators, once the tiers have met and the flows are registered."""
    addresses = ",".join(service.address for service in stack.coordinators)
    async with Client(f"ipv4:{addresses}" if len(stack.coordinators) > 1 else addresses, patience=60.0) as client:
        await ready(client)
        for flow in (ONE_STEP, CHAIN):
            await client.register_flow(flow)
        await burst(stack, client, W1, 50, 25)
        yield client


def processes(stack: Stack) -> dict[str, int]:
    """Pids of everything but the client, by name. Raises `SystemExit` where a service has died: its figures would be those of nobody."""
    if dead := [service for service in stack.services if not service.running]:
        raise SystemExit(
            "\n".join(f"{one.name} has died; the end of its log:\n{children.tail(one.log)}" for one in dead)
        )
    servers = {"postgres": stack.postgres.process_id, "nats": stack.nats.process_id}
    return {**{service.name: service.pid for service in stack.services}, **servers}


def memory(stack: Stack) -> dict[str, float]:
    """Memory of everything but the client, in MiB, by name."""
    return {name: measuring.memory_mib(pid) for name, pid in processes(stack).items()}


@dataclass(frozen=True, slots=True)
class Work:
    """A registered flow, its steps, and the input of its run of a number."""

    flow: str
    steps: int
    given: Callable[[int], Any]


W1 = Work("bench-one@1", 1, lambda number: {"i": number})
W2 = Work("bench-chain@1", 10, lambda number: {"i": number})


async def burst(stack: Stack, client: Client, work: Work, count: int, at_once: int) -> Point:
    """Performs runs in a closed loop; rates, latencies and processor time for each step, all processes and the client together."""
    numbers = iter(range(count))
    latencies: list[float] = []

    async def lane() -> None:
        for number in numbers:
            began = time.perf_counter()
            await client.run(work.flow, work.given(number))
            latencies.append(time.perf_counter() - began)

    before = _cpu(stack)
    began = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(min(at_once, count))))
    seconds = time.perf_counter() - began
    cpu = measuring.spent(before, _cpu(stack), count * work.steps)
    return {
        "runs_per_s": round(count / seconds, 1),
        "steps_per_s": round(count * work.steps / seconds, 1),
        "us_per_step": round(seconds / count / work.steps * 1e6, 2),
        **measuring.milliseconds(latencies),
        "cpu_us_per_step": round(sum(cpu.values()), 1),
        "cpu_us": cpu,
    }


async def standard(stack: Stack, client: Client, size: Size, *, repeat: int = 3) -> AsyncIterator[Point]:
    """W1 and W2 as they are measured everywhere; the medians of some bursts each."""
    for name, work, count, at_once in [
        ("w1", W1, size.pick(20, 2000), size.pick(8, 256)),
        ("w2", W2, size.pick(4, 200), size.pick(2, 32)),
    ]:
        points = [await burst(stack, client, work, count, at_once) for _ in range(size.pick(1, repeat))]
        yield {"workload": name, **median(points)}


def median(points: Sequence[Point]) -> Point:
    """The median of every figure; what is a mapping is taken from the last."""
    found: Point = dict(points[-1])
    for name, value in points[-1].items():
        if isinstance(value, int | float):
            found[name] = round(statistics.median(point[name] for point in points), 3)
    return found


async def idle_cpu(stack: Stack, seconds: float) -> dict[str, float]:
    """Processor time that is used while nothing is asked, in percent of one processor, by name."""
    before = measuring.cpu_of(processes(stack))
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    after = measuring.cpu_of(processes(stack))
    return {name: round((after[name] - before[name]) / took * 100, 2) for name in before}


WAITING = {
    "name": "bench-waiting",
    "version": "1",
    "defaults": {"retry": {"initial_delay": "1d", "max_delay": "1d", "jitter": 0}},
    "steps": {"refused": {"call": "bench.not_now"}, "after": {"call": "echo", "needs": ["refused"]}},
}
"""A run that waits a day for its second attempt."""

ASLEEP = "SELECT count(*) FROM orchestrator.entity WHERE owner IS NULL AND ended_at IS NULL"
AWAKE = "SELECT (SELECT count(*) FROM orchestrator.entity WHERE owner IS NOT NULL) + (SELECT count(*) FROM coordinator.entity WHERE owner IS NOT NULL)"


async def fill_asleep(stack: Stack, count: int, *, paused: bool = False) -> None:
    """Submits runs that wait for a day, paused by an operator or not; returns when all of them have left memory, in both tiers."""
    numbers = iter(range(count))
    before = await asked(stack, ASLEEP)
    async with Client(stack.address) as client:
        await client.register_flow(WAITING)

        async def lane() -> None:
            for _ in numbers:
                handle = await client.submit("bench-waiting@1")
                if paused:
                    await handle.pause()

        await asyncio.gather(*(lane() for _ in range(128)))

    async def all_asleep() -> bool:
        return await asked(stack, ASLEEP) >= before + count and not await asked(stack, AWAKE)

    await eventually(all_asleep, 120 + count / 100, interval=0.5, message="all runs have left memory")


async def asked(stack: Stack, query: str) -> int:
    """A number out of the database."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


def levels(values: Sequence[int]) -> list[tuple[int, int]]:
    """Each level with what has to be added to the one before."""
    return [(after, after - before) for before, after in itertools.pairwise([0, *values])]


def total(values: Mapping[str, float], *names: str) -> float:
    """The sum over the processes whose names begin with one of the names; over all where none is given."""
    return round(sum(value for name, value in values.items() if not names or name.startswith(names)), 2)


def _cpu(stack: Stack) -> dict[str, float]:
    return {**measuring.cpu_of(processes(stack)), "client": measuring.own_cpu()}
