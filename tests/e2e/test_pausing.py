"""Pause, resume and stop through the whole system: what stands still, what goes on, and what is kept of why."""

import asyncio
import os
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tierflow import Client
from tierflow.errors import ExecutionFailed, NotFound
from tierflow.handle import Handle
from tierflow_contracts.common.v1.state_pb2 import RunState, StepState, SwarmState
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH", ""))))
    options = StackOptions(
        orchestrators=2,
        handlers=["steering_handlers", "gate_handlers", "tierflow_executor.handlers"],
        executor_environment={"PYTHONPATH": path},
    )
    with Stack(tmp_path_factory.mktemp("pausing"), options) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address, user="ada", patience=60) as client:
        yield client


def chain(tmp_path: pathlib.Path, *, soon: float = 0) -> dict[str, Any]:
    """Three steps one after the other, the first of which ends when `gate` is there, and beside them a timer."""
    begun, gate = str(tmp_path / "begun"), str(tmp_path / "gate")
    steps: dict[str, Any] = {
        "a": {"call": "t.gate", "with": {"path": gate, "begun": begun}},
        "b": {"call": "t.long", "with": {"path": begun, "seconds": 0}, "needs": ["a"]},
        "c": {"call": "t.long", "with": {"path": begun, "seconds": 0}, "needs": ["b", "soon"]},
        "soon": {"wait": f"{soon}s"},
    }
    return {"name": "chain", "version": f"{soon}", "steps": steps}


async def begins(handle: Handle, begun: pathlib.Path) -> None:
    """Returns when the first step runs, and Tier 1 knows it."""

    async def there() -> bool:
        state = (await handle.describe()).state
        return state == SwarmState.SWARM_STATE_RUNNING and begun.exists()  # noqa: ASYNC240 - one look

    await eventually(there)


async def paused(client: Client, handle: Handle) -> Any:
    """The run, once it is paused."""

    async def look() -> Any:
        run = await client.get_run(handle.run_id)
        return run if run.state == RunState.RUN_STATE_PAUSED else None

    return await eventually(look)


async def told(client: Client, handle: Handle) -> list[tuple[int, str]]:
    """The run's history: numbers and kinds of its events."""
    return [
        (event.seq, event.WhichOneof("payload")) for event in (await client.events(handle.id, handle.run_id)).events
    ]


async def test_a_pause_over_the_restart_of_everything(stack: Stack, client: Client, tmp_path: pathlib.Path) -> None:
    """G6, G7, K7, Lesson 18: what runs ends, nothing begins, a timer that comes due waits; every service restarted, it is PAUSED still; resumed, it completes and no step ran twice."""
    begun = tmp_path / "begun"
    for soon in (1.5, 6.0, 24.0):  # the first is enough, unless the timer comes due on a slow machine before the pause
        handle = await client.submit(chain(tmp_path, soon=soon))
        await begins(handle, begun)
        assert await handle.pause("lunch")
        (tmp_path / "gate").touch()
        run = await paused(client, handle)
        if run.counts.completed == 1:
            break
        await handle.cancel("too slow")
        await handle.wait(60)
        begun.unlink()
        (tmp_path / "gate").unlink()
    assert (run.counts.completed, run.reason) == (1, "lunch")
    before = await told(client, handle)
    assert [kind for _, kind in before][-2:] == ["step_completed", "run_state_changed"]
    await client.run(
        {"name": "later", "version": "1", "steps": {"w": {"wait": f"{soon + 0.1}s"}}}
    )  # longer than the timer of the paused run
    assert await told(client, handle) == before
    for service in stack.services:
        await asyncio.to_thread(service.kill if service is stack.orchestrators[0] else service.stop)
    for service in stack.services:
        service.spawn()
    for service in stack.services:
        await asyncio.to_thread(service.wait_ready)
    await paused(client, handle)
    assert await told(client, handle) == before
    assert begun.read_text().split() == ["a"]
    assert await handle.resume()
    assert sorted(await handle.result(60)) == ["c"]
    assert begun.read_text().split() == ["a", "b", "c"]
    assert (await client.get_run(handle.run_id)).usage.attempts == 3
    assert (await told(client, handle))[: len(before)] == before


async def test_a_graceful_stop(client: Client, tmp_path: pathlib.Path) -> None:
    """G8: the step that runs ends and keeps its result, none begins, the swarm is STOPPED; who stopped it and why is in its state, its last event and the run's history."""
    begun = tmp_path / "begun"
    handle = await client.submit(chain(tmp_path))
    await begins(handle, begun)
    assert await client.stop(handle.id, "the shop closes")
    (tmp_path / "gate").touch()
    ended = await handle.wait(60)
    assert (ended.state, begun.read_text().split()) == ("STOPPED", ["a"])
    steps = {step.step_id: step.state async for step in client.steps(handle.run_id)}
    assert steps["a"] == StepState.STEP_STATE_COMPLETED
    assert steps["b"] == steps["c"] == StepState.STEP_STATE_CANCELLED
    await reasons_kept(client, handle, "the shop closes")


async def test_a_forced_stop(stack: Stack, client: Client, tmp_path: pathlib.Path) -> None:
    """G8, G1, Lesson 32: TERMINATED at once, before the run below has ended; the attempt is stopped all the same; the reason is kept."""
    begun = tmp_path / "begun"
    handle = await client.submit(chain(tmp_path))
    await begins(handle, begun)
    assert await client.stop(handle.id, "fire", force=True)
    assert (await handle.describe()).state == SwarmState.SWARM_STATE_TERMINATED

    async def cancelled() -> bool:
        return (await client.get_run(handle.run_id)).state == RunState.RUN_STATE_CANCELLED

    await eventually(cancelled)
    assert begun.read_text().split() == ["a"]
    await reasons_kept(client, handle, "fire")
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


DOCUMENT = """
document: {{dsl: 1.0.3, namespace: test, name: steered, version: 1.0.0}}
do:
  - hear: {{listen: {{to: {{one: {{with: {{type: go}}}}}}}}}}
  - note: {{call: t.long, with: {{path: "{begun}", seconds: 0}}}}
  - read: {{call: t.needs, with: {{path: "{there}", value: 5}}}}
  - say: {{set: {{read: '${{ . }}'}}}}
"""


async def test_a_document_is_held_and_retried(client: Client, tmp_path: pathlib.Path) -> None:
    """C9, C12, R31: its run waits at a breakpoint, fails, and is retried in both tiers; what was done is not done twice."""
    begun, there, path = tmp_path / "begun", tmp_path / "there", tmp_path / "steered.yaml"
    path.write_text(DOCUMENT.format(begun=begun, there=there))
    handle = await client.submit(str(path))

    async def in_state(state: int) -> bool:
        try:
            return (await client.get_run(handle.run_id)).state == state
        except NotFound:  # Tier 2 has not taken it yet
            return False

    await eventually(lambda: in_state(RunState.RUN_STATE_SUSPENDED))
    assert await handle.set_breakpoints("read")
    assert await client.signal(handle.id, "go")
    assert (await paused(client, handle)).reason == "BREAKPOINT: /do/2/read"
    assert await handle.resume()
    with pytest.raises(ExecutionFailed):
        await handle.result(60)
    there.touch()
    assert await handle.retry("it is there now") == 2
    assert (await paused(client, handle)).reason == "BREAKPOINT: /do/2/read"
    assert await handle.resume()
    assert await handle.result(60) == {"read": 5}
    assert begun.read_text().split() == ["/do/1/note"]


async def reasons_kept(client: Client, handle: Handle, reason: str) -> None:
    """Whether state, last event and history say who and why."""
    assert (await handle.describe()).reason == reason
    events = (await client.events(handle.id)).events
    last = events[-1].swarm_ended
    assert (last.reason, last.actor) == (reason, "ada")
    asked = [e.command_received for e in events if e.HasField("command_received")]
    assert [(one.reason, one.actor) for one in asked] == [(reason, "ada")]
