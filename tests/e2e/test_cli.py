"""The command against two coordinators, and what it promises about speed, sameness and draining."""

import asyncio
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from tierflow import Client, Event
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

pytestmark = pytest.mark.slow
ECHO = {"name": "echo-one", "version": "1", "steps": {"echo": {"call": "echo", "with": {"a": 1}}}}
WAITING = 41
HELLO = pathlib.Path(__file__).resolve().parents[2] / "examples/hello.yaml"


def _nap(seconds: float) -> dict[str, Any]:
    return {
        "name": f"nap-{seconds:g}",
        "version": "1",
        "steps": {"nap": {"call": "sleep", "timeout": "10m", "with": {"seconds": seconds}}},
    }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Stack(tmp_path_factory.mktemp("cli"), StackOptions(coordinators=2, slots=8)) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address) as client:
        yield client


async def _tierflow(address: str, *arguments: str) -> str:
    environment = {**os.environ, "TIERFLOW_ADDRESS": address}
    command = (sys.executable, "-m", "tierflow_cli.main", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (arguments, out, err)
    return out.decode()


async def test_what_one_replica_takes_all_show(stack: Stack) -> None:
    """N2, N3, J2: submitted at one replica by a process that is gone, described the same by both."""
    one, two = (service.address for service in stack.coordinators)
    ids = json.loads(await _tierflow(one, "submit", str(HELLO), "-i", "pause=0.01", "--json"))
    await _tierflow(two, "watch", ids["swarm_id"])
    shown = [json.loads(await _tierflow(address, "describe", ids["swarm_id"], "--json")) for address in (one, two)]
    assert shown[0] == shown[1]
    assert shown[0]["swarm"]["state"] == "SWARM_STATE_COMPLETED"
    assert (await _tierflow(two, "logs", ids["run_id"])) == ""


async def test_a_new_process_counts_what_the_engine_has(stack: Stack, client: Client) -> None:
    """N4, Lesson 19, J1, Q14: with 41 swarms under way and 8 slots, any replica reports 41 and 33 steps that wait; many are cancelled by one line."""
    handles = [await client.submit(_nap(300), labels={"of": "the-41"}) for _ in range(WAITING)]

    async def counted() -> Any:
        queues = [json.loads(await _tierflow(service.address, "queue", "--json")) for service in stack.coordinators]
        waiting = queues[0]["runs"].get("waiting_steps", {}).get("sleep")
        return [int(queue["total"]) for queue in queues] == [WAITING, WAITING] and int(waiting or 0) == WAITING - 8

    await eventually(counted)
    listed = json.loads(
        await _tierflow(stack.coordinators[1].address, "swarms", "-l", "of=the-41", "-n", "100", "--json")
    )
    ids = [swarm["context"]["swarm_id"] for swarm in listed]
    assert sorted(ids) == sorted(handle.id for handle in handles)
    answers = json.loads(
        await _tierflow(stack.coordinators[1].address, "cancel", *ids, "--reason", "counted", "--json")
    )
    assert all(answer["applied"] for answer in answers)
    results = await asyncio.gather(*(handle.wait(60) for handle in handles))
    assert {result.outcome for result in results} == {"CANCELLED"}


async def test_submitting_is_quick(client: Client) -> None:
    """J19: the id comes at once: on whatever machine, half of all within half a second."""
    await client.run(ECHO)
    times = []
    for _ in range(40):
        began = time.perf_counter()
        await client.submit(ECHO)
        times.append(time.perf_counter() - began)
    assert statistics.median(times) < 0.5, sorted(times)


async def test_changes_are_seen_at_once(client: Client) -> None:
    """H22: what is committed is pushed to watchers: on whatever machine, half of all within five seconds."""
    lags: list[float] = []

    async def follow() -> None:
        handle = await client.submit(_nap(0.2))
        lags.extend(
            [  # taken as each arrives
                (datetime.now(UTC) - event.time).total_seconds()
                async for event in handle.watch()
                if isinstance(event, Event) and event.seq and event.type != "swarm_created"
            ]
        )

    for _ in range(3):
        await asyncio.gather(*(follow() for _ in range(4)))
    assert len(lags) >= 60
    assert statistics.median(lags) < 5, sorted(lags)[-5:]


async def test_an_executor_in_the_foreground_drains(tmp_path_factory: pytest.TempPathFactory) -> None:
    """N6, Q22: `tierflow executor` performs steps of one's own module; SIGTERM lets what runs finish, and nothing is lost or repeated."""
    directory = tmp_path_factory.mktemp("executor")
    (directory / "mine.py").write_text(
        "import asyncio\nfrom tierflow import handler\n\n\n@handler('mine.nap')\nasync def nap(seconds: float) -> str:\n    await asyncio.sleep(seconds)\n    return 'rested'\n"
    )
    with Stack(directory / "stack", StackOptions()) as stack:
        stack.executors[0].stop()
        port = str(stack.executors[0].port)
        command = (
            sys.executable,
            "-m",
            "tierflow_cli.main",
            "executor",
            "--handlers",
            "mine",
            "--port",
            port,
            "--name",
            "mine-0",
            "--slots",
            "4",
        )
        process = await asyncio.create_subprocess_exec(
            *command, cwd=directory, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with Client(stack.address, patience=60) as client:

            async def offered() -> bool:
                return any(
                    handler.name == "mine.nap" for each in await client.executors() for handler in each.hello.handlers
                )

            await eventually(offered)
            mine = {
                "name": "mine",
                "version": "1",
                "steps": {"nap": {"call": "mine.nap", "with": {"seconds": 1.5}}},
                "output": "${{ steps.nap.output }}",
            }
            handle = await client.submit(mine)
            events = [item async for item in _until(handle.watch(), "step_started")]
            assert events
            process.terminate()
            assert await handle.result(60) == "rested"
            assert await asyncio.wait_for(process.wait(), 60) == 0
            (step,) = [step async for step in client.steps(handle.run_id)]
            assert step.attempts == 1


async def _until(watch: Any, kind: str) -> AsyncIterator[Any]:
    async for item in watch:
        yield item
        if getattr(item, "type", "") == kind:
            return
