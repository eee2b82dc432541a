"""Many at once: executions, connections, watchers, and those who look at the numbers."""

import asyncio
import pathlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import grpc
import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from tierflow import Client, Event
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1.coordinator_service_pb2_grpc import CoordinatorServiceStub
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as runs_api
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from tierflow_runtime.channels import open_channel
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

POOL = 6
FIXED = 3
"""Sessions beside the pool: the writer's, the heartbeat's, and retention's now and then."""

MANY = 120
LOOKS = 1000
PATIENCE = 90
"""Seconds for a fact, on a slow machine; no test takes them."""
HELD = {"name": "held", "version": "1", "steps": {"held": {"call": "t.gate", "with": {"path": "${{ input.gate }}"}}}}
FAN = {
    "name": "fan",
    "version": "1",
    "steps": {
        "wait": {"call": "t.gate", "with": {"path": "${{ input.gate }}"}},
        "all": {
            "needs": ["wait"],
            "map": list(range(400)),
            "call": "echo",
            "with": {"item": "${{ item }}", "text": "x" * 500},
        },
    },
}

MakeGate = Callable[[], "Gate"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = StackOptions(
        orchestrators=2,
        executors=2,
        slots=64,
        handlers=["gate_handlers"],
        executor_environment={"PYTHONPATH": str(pathlib.Path(__file__).parent)},
    )
    with Stack(tmp_path_factory.mktemp("many"), options) as stack:
        yield stack


class Gate:
    """Holds runs of `HELD` until the test lets them go."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.input = {"gate": str(path)}

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def make_gate(tmp_path: pathlib.Path) -> Iterator[Callable[[], Gate]]:
    """Gates that open after the test at the latest: nothing is left for the next one, whatever failed."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(tmp_path / f"gate-{len(made)}"))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address, patience=60, timeout=60) as client:
        yield client


@pytest.fixture
async def connection(stack: Stack) -> AsyncIterator[Any]:
    made = await asyncpg.connect(stack.postgres.admin_url(stack.options.database))
    yield made
    await made.close()


def _connections(service: ServiceProcess, port: int) -> int:
    """Connections of a process to a port of this machine."""
    inodes = set()
    for link in pathlib.Path(f"/proc/{service.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = pathlib.Path(f"/proc/{service.pid}/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" and row[9] in inodes for row in rows)


async def test_more_than_a_hundred_at_once(stack: Stack, client: Client, connection: Any, make_gate: MakeGate) -> None:
    """J14, J15, J16, P9: 120 executions are under way at the same moment, under many reads; each process has its one pool and its one NATS connection."""
    gate = make_gate()
    handles = await asyncio.gather(*(client.submit(HELD, gate.input) for _ in range(MANY)))

    async def all_at_once() -> bool:
        counts = await asyncio.gather(*(_attempts(each) for each in stack.orchestrators))
        return sum(counts) == MANY

    await eventually(all_at_once, PATIENCE)
    reading = asyncio.gather(*(client.events(handle.id, handle.run_id) for handle in handles * 3))
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'tierflow'"
    stateful = [*stack.coordinators, *stack.orchestrators]
    sessions = []
    while not reading.done():
        sessions.append(await connection.fetchval(query))
        for service in stateful:
            assert _connections(service, stack.postgres.port) <= POOL + FIXED
            assert _connections(service, stack.nats.port) == 1
        await asyncio.sleep(0.02)
    await reading
    assert max(sessions) <= len(stateful) * (POOL + FIXED)
    assert max(sessions) > 2 * len(stateful)  # the pools were used
    gate.open()
    results = await asyncio.gather(*(handle.wait(PATIENCE) for handle in handles))
    assert {result.state for result in results} == {"COMPLETED"}
    for executor in stack.executors:
        assert _connections(executor, stack.postgres.port) == _connections(executor, stack.nats.port) == 0


async def _attempts(orchestrator: ServiceProcess) -> int:
    async with open_channel(orchestrator.address) as channel:
        queue = await OrchestratorServiceStub(channel).GetRunQueue(runs_api.GetRunQueueRequest())
    return int(queue.attempts)


async def test_watching_numbers_costs_nothing(
    stack: Stack, client: Client, connection: Any, make_gate: MakeGate
) -> None:
    """J17, N4: hundreds of looks at the queue, in both tiers, lead to one counting statement a second in each process, however much is stored."""
    gate = make_gate()
    held = await client.submit(HELD, gate.input)
    async with open_channel(stack.orchestrators[0].address) as channel:
        tier2 = OrchestratorServiceStub(channel)

        async def look() -> tuple[int, int]:
            queue, runs = await asyncio.gather(client.queue(), tier2.GetRunQueue(runs_api.GetRunQueueRequest()))
            return queue.total, sum(each.count for each in runs.runs)

        async def only_this_one() -> bool:
            return await look() == (1, 1)

        await eventually(only_this_one, PATIENCE)  # it has come to Tier 2, and what was before is gone
        await connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        await connection.execute("SELECT pg_reload_conf()")
        try:
            mark = stack.postgres.log.stat().st_size
            looks, began = 0, time.monotonic()
            while time.monotonic() - began < 3.2 or looks < LOOKS:
                seen = await asyncio.gather(*(look() for _ in range(10)))
                looks += 2 * len(seen)
                assert set(seen) == {(1, 1)}
            seconds = time.monotonic() - began
            with stack.postgres.log.open("rb") as log:
                log.seek(mark)
                statements = re.findall(r"execute \S+: (.{60})", log.read().decode().replace("\n", " "))
        finally:
            await connection.execute("ALTER SYSTEM RESET log_statement")
            await connection.execute("SELECT pg_reload_conf()")
    gate.open()
    assert (await held.wait(PATIENCE)).state == "COMPLETED"
    counting = [text for text in statements if text.startswith("SELECT state, count(*)")]
    processes = len(stack.coordinators) + len(stack.orchestrators)
    assert 1 <= len(counting) <= processes * (seconds + 1) + 1  # the coordinator counts for itself every five seconds
    assert len(statements) < looks


async def test_stuck_watchers_slow_nothing(stack: Stack, client: Client, make_gate: MakeGate) -> None:
    """H6, H26: twenty watchers that read nothing, and a consumer of the stream that acknowledges nothing: the work takes as long; later they have all of it."""
    before = await _timed(client, 0, stack, make_gate())
    with_stuck = await _timed(client, 20, stack, make_gate())
    assert with_stuck < 10 * before + 10, (before, with_stuck)


async def _timed(client: Client, stuck: int, stack: Stack, gate: Gate) -> float:
    """Seconds for a run of 400 items whose events more than fill what lies between server and watcher."""
    handle = await client.submit(FAN, gate.input)
    async with open_channel(stack.address) as channel:
        stub = CoordinatorServiceStub(channel)
        watches = [stub.WatchSwarm(api.WatchSwarmRequest(swarm_id=handle.id)) for _ in range(stuck)]
        for watch in watches:
            assert (await watch.read()).HasField("ready")
        consumer = await _stuck_consumer(stack) if stuck else None
        began = time.monotonic()
        gate.open()
        result = await handle.wait(PATIENCE)
        seconds = time.monotonic() - began
        assert result.state == "COMPLETED"
        if watches:
            journal = await client.events(handle.id, handle.run_id)
            late = []
            while (message := await watches[0].read()) is not grpc.aio.EOF:
                if message.batch.source.run_id:
                    late += [event.seq for event in message.batch.events]
            assert late == [event.seq for event in journal.events]
        for watch in watches:
            watch.cancel()
        if consumer is not None:
            await consumer.close()
    facts = [event async for event in handle.watch() if isinstance(event, Event) and event.type == "step_completed"]
    assert len(facts) == 402
    return seconds


async def _stuck_consumer(stack: Stack) -> Any:
    """A push consumer of everything that takes one message and never acknowledges it."""
    connection = await nats.connect(stack.nats.url)
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1)
    await connection.jetstream().subscribe("tierflow.v1.>", config=config, manual_ack=True)
    return connection
