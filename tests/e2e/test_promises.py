"""What is promised of the whole system, each looked at as somebody outside would."""

import asyncio
import json
import pathlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from tierflow import Client, ExecutionFailed, Handle, NotFound
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1.coordinator_service_pb2_grpc import CoordinatorServiceStub
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as runs_api
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from tierflow_runtime.channels import open_channel
from tierflow_runtime.wire import RUN_STATES, STEP_STATES, SWARM_STATES
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

HERE = pathlib.Path(__file__).parent
MANY = 1_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = StackOptions(
        coordinators=2, orchestrators=2, handlers=["promise_handlers", "gate_handlers"], executor_environment={"PYTHONPATH": str(HERE)},
        supervised=True,
    )  # fmt: skip
    with Stack(tmp_path_factory.mktemp("promises"), options) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address, patience=60) as client:
        yield client


def flow(name: str, **steps: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "steps": steps}


def nap(seconds: float, *needs: str) -> dict[str, Any]:
    return {"call": "sleep", "with": {"seconds": seconds}, "needs": list(needs)}


def held(gate: pathlib.Path, *needs: str) -> dict[str, Any]:
    """A step that ends once the gate is there."""
    return {"call": "t.gate", "with": {"path": str(gate)}, "needs": list(needs)}


async def at_work(client: Client, handle: Handle, *running: str, done: Sequence[str] = ()) -> None:
    """Returns when these steps are RUNNING at the same time, those COMPLETED, and no other has begun."""
    wanted = dict.fromkeys(running, "RUNNING") | dict.fromkeys(done, "COMPLETED")

    async def there() -> bool:
        try:
            states = {step.step_id: STEP_STATES.name(step.state) async for step in client.steps(handle.run_id)}
        except NotFound:  # its request is on the way to Tier 2
            return False
        return {name: state for name, state in states.items() if state in ("RUNNING", "COMPLETED")} == wanted

    await eventually(there)


def value_of(payload: Payload) -> Any:
    """What a payload says, in whichever form it came."""
    return json.loads(payload.json) if payload.HasField("json") else MessageToDict(payload)["value"]


async def shown_and_stored(stack: Stack, swarm_id: str, run_id: str) -> tuple[str, str, str, str]:
    """The states of a swarm and its run as every replica shows them, and as they are in Postgres. A change in between is looked at again."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        while True:
            stored = [await connection.fetchval(f"SELECT state FROM {schema}.entity WHERE id = $1", entity_id) for schema, entity_id in (("coordinator", swarm_id), ("orchestrator", run_id))]  # fmt: skip
            if None in stored:  # the run's request is on its way to Tier 2
                await asyncio.sleep(0.01)
                continue
            shown = set()
            for tier1, tier2 in zip(stack.coordinators, stack.orchestrators, strict=True):
                async with open_channel(tier1.address) as one, open_channel(tier2.address) as two:
                    swarm = await CoordinatorServiceStub(one).GetSwarm(api.GetSwarmRequest(swarm_id=swarm_id))
                    run = await OrchestratorServiceStub(two).GetRun(runs_api.GetRunRequest(run_id=run_id))
                    shown.add((SWARM_STATES.name(swarm.swarm.state), RUN_STATES.name(run.run.state)))
            again = [await connection.fetchval(f"SELECT state FROM {schema}.entity WHERE id = $1", entity_id) for schema, entity_id in (("coordinator", swarm_id), ("orchestrator", run_id))]  # fmt: skip
            if stored == again:
                assert len(shown) == 1
                return (*shown.pop(), *stored)
    finally:
        await connection.close()


async def test_the_state_that_is_shown_is_the_state_that_is_stored(
    stack: Stack, client: Client, tmp_path: pathlib.Path
) -> None:
    """C1, N3, Lesson 8: through all its states a swarm and its run are shown by each replica as they are in Postgres."""
    seen: set[tuple[str, str]] = set()

    async def look(handle: Any, swarm: str, run: str) -> None:
        async def there() -> bool:
            shown = await shown_and_stored(stack, handle.id, handle.run_id)
            assert shown[:2] == shown[2:]
            return shown[:2] == (swarm, run)

        await eventually(there, message=f"{swarm} {run}")
        seen.add((swarm, run))

    busy = await client.submit(flow("busy", a=held(tmp_path / "a"), b=held(tmp_path / "b", "a")))
    await look(busy, "RUNNING", "RUNNING")
    await client.pause(busy.id)
    (tmp_path / "a").touch()  # what runs ends, then the run stands still
    await look(busy, "PAUSED", "PAUSED")
    await client.resume(busy.id)
    await look(busy, "RUNNING", "RUNNING")
    await client.cancel(busy.id)
    await look(busy, "STOPPED", "CANCELLED")
    waits = await client.submit(flow("waits", w={"wait": "1h"}))
    await look(waits, "RUNNING", "SUSPENDED")
    await client.cancel(waits.id)
    await look(waits, "STOPPED", "CANCELLED")
    await look(await client.submit(flow("ends", e={"call": "echo", "with": {}})), "COMPLETED", "COMPLETED")
    await look(await client.submit(flow("breaks", b={"call": "p.breaks", "with": {"n": 1}})), "FAILED", "FAILED")
    assert len(seen) == 6


async def test_a_result_is_there_when_its_end_is_told(client: Client) -> None:
    """C8, H20: whoever hears that an execution has completed can read its result, and its progress is 100."""
    for number in range(20):
        handle = await client.submit(flow("told", e={"call": "echo", "with": {"n": number}}))
        async for event in handle.watch():
            if event.type == "run_ended":
                run = await client.get_run(handle.run_id)
                assert (run.percent, run.state) == (100, state_pb2.RUN_STATE_COMPLETED)
                assert value_of(run.output) == {"e": {"n": number}}
            if event.type == "swarm_ended":
                swarm = await handle.describe()
                assert swarm.state == state_pb2.SWARM_STATE_COMPLETED
                assert value_of(swarm.output) == {"e": {"n": number}}


async def test_steps_start_when_their_needs_are_done(client: Client, tmp_path: pathlib.Path) -> None:
    """E3, E4, Lesson 15: both ways of a diamond are gone at the same time, and nothing else; a chain beside a slow step does not wait for it."""
    gates = [tmp_path / name for name in ("ab", "c", "d", "slow")]
    ab, c, d, slow = gates
    diamond = flow("diamond", a=nap(0), b=held(ab, "a"), c=held(c, "a"), d=held(d, "b", "c"))
    handle = await client.submit(diamond)
    await at_work(client, handle, "b", "c", done=["a"])
    ab.touch()
    await at_work(client, handle, "c", done=["a", "b"])
    c.touch()
    await at_work(client, handle, "d", done=["a", "b", "c"])
    d.touch()
    await handle.result(60)
    at = {step.step_id: (step.started_at.ToMicroseconds(), step.ended_at.ToMicroseconds()) async for step in client.steps(handle.run_id)}  # fmt: skip
    assert at["a"][1] <= min(at["b"][0], at["c"][0])
    assert max(at["b"][1], at["c"][1]) <= at["d"][0]
    beside = await client.submit(flow("beside", slow=held(slow), x=nap(0), y=nap(0, "x"), z=nap(0, "y")))
    await at_work(client, beside, "slow", done=["x", "y", "z"])
    slow.touch()
    await beside.result(60)


async def cancelled(client: Client, other: Client) -> float:
    """Seconds from the cancel of a tree with fifteen steps at work to its end, at another replica than the one that took it. Nothing runs below what has STOPPED."""
    groups = {f"g{number}": {"map": list(range(5)), "call": "sleep", "with": {"seconds": 600}} for number in range(3)}
    handle = await client.submit(flow("tree", **groups))

    async def all_run() -> bool:
        try:
            states = [step.state async for step in client.steps(handle.run_id)]
        except NotFound:  # its request is on the way to Tier 2
            return False
        return states.count(STEP_STATES.number("RUNNING")) >= 15

    await eventually(all_run)
    began = time.monotonic()
    assert await other.cancel(handle.id)
    result = await other.handle(handle.id).wait()
    took = time.monotonic() - began
    assert result.state == "STOPPED"
    states = {step.step_id: STEP_STATES.name(step.state) async for step in client.steps(handle.run_id)}
    assert set(states.values()) == {"CANCELLED"}
    return took


async def test_a_cancel_stops_everything_below_it(stack: Stack, client: Client) -> None:
    """G1, G2, G4, C7, Lesson 5, Lesson 32: cancelled through another replica than took it, minutes before it would end; nothing runs below what has STOPPED."""
    async with Client(stack.coordinators[1].address, patience=60) as other:
        assert await cancelled(client, other) < 60
    async with open_channel(stack.orchestrators[0].address) as channel:
        queue = await OrchestratorServiceStub(channel).GetRunQueue(runs_api.GetRunQueueRequest())
    assert queue.attempts == 0


async def test_one_broken_execution_among_a_hundred(client: Client) -> None:
    """F1, F27, F28: a handler with a defect fails its own execution, typed, with record and event; the other 99 complete."""
    handles = [await client.submit(flow("sound", e={"call": "echo", "with": {"n": n}})) for n in range(50)]
    broken = await client.submit(flow("broken", b={"call": "p.breaks", "with": {"n": 1}}))
    handles += [await client.submit(flow("sound", e={"call": "echo", "with": {"n": n}})) for n in range(49)]
    with pytest.raises(ExecutionFailed) as failed:
        await broken.result(60)
    assert failed.value.failure.code != "INTERNAL"
    results = await asyncio.gather(*(handle.wait() for handle in handles))
    assert {result.state for result in results} == {"COMPLETED"}
    kinds = [event.type async for event in broken.watch()]
    assert {"step_failed", "run_ended", "swarm_ended"} <= set(kinds)
    (step,) = [step async for step in client.steps(broken.run_id)]
    assert STEP_STATES.name(step.state) == "FAILED"


async def test_a_retry_survives_the_death_of_its_orchestrators(
    stack: Stack, client: Client, tmp_path: pathlib.Path
) -> None:
    """F10, Q1, Lesson 11: every process of Tier 2 dies while an attempt waits for its delay: it is made once, not before its time."""
    notes = tmp_path / "attempts"
    step = {"call": "p.second", "with": {"path": str(notes)}, "retry": {"max_attempts": 3, "initial_delay": "3s"}}
    began = time.monotonic()
    handle = await client.submit(flow("second", s=step))
    await eventually(lambda: notes.exists() and notes.read_text() == "1\n")
    for service in stack.orchestrators:
        await asyncio.to_thread(service.kill)
    result = await handle.wait()
    assert result.state == "COMPLETED"
    assert notes.read_text() == "1\n2\n"
    assert time.monotonic() - began > 2.4  # 3 s less a fifth


async def test_a_thousand_watches_are_ready_first(stack: Stack, client: Client) -> None:
    """H8, H9: a thousand watches are opened while work goes on: each is READY before anything else, and sees the end."""
    handles = [await client.submit(flow("watched", n=nap(0.2))) for _ in range(20)]
    async with open_channel(stack.coordinators[0].address) as channel:
        tier1 = CoordinatorServiceStub(channel)

        async def watch(number: int) -> tuple[str, bool]:
            kinds: list[str] = []
            ended = False
            request = api.WatchSwarmRequest(swarm_id=handles[number % len(handles)].id)
            async for message in tier1.WatchSwarm(request, timeout=240):
                kinds.append(str(message.WhichOneof("kind")))
                ended = ended or any(event.HasField("swarm_ended") for event in message.batch.events)
            return kinds[0], ended

        async def watched(number: int) -> tuple[str, bool]:
            while True:
                try:
                    return await watch(number)
                except grpc.aio.AioRpcError as error:  # a thousand at once wait for six sessions of the database
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise

        seen = await asyncio.gather(*(watched(number) for number in range(MANY)))
    assert seen == [("ready", True)] * MANY


async def test_a_service_does_not_start_on_another_schema(stack: Stack) -> None:
    """I16: with a migration missing, or one that it does not know, a service ends with 78 and says what to do; it makes and changes nothing."""
    service = stack.coordinators[1]
    connection = await asyncpg.connect(stack.postgres.admin_url(stack.options.database))
    await asyncio.to_thread(service.stop)
    service.supervised = False
    try:
        await connection.execute("INSERT INTO coordinator.migration (name) VALUES ('9999_of_a_later_build')")
        await asyncio.to_thread(service.spawn)
        assert await asyncio.to_thread(service.wait_exit, 60) == 78
        assert any("9999_of_a_later_build" in str(line) for line in service.lines(since_start=True))
    finally:
        await asyncio.to_thread(service.stop)
        await connection.execute("DELETE FROM coordinator.migration WHERE name = '9999_of_a_later_build'")
        await connection.close()
        service.supervised = True
        await asyncio.to_thread(service.start)
