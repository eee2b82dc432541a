"""New executions made of old ones, and the places at which they may begin (K2, K3, K6)."""

import json
import pathlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tierflow import Client
from tierflow.errors import InvalidRequest, NotFound
from tierflow_contracts.common.v1.state_pb2 import RunState
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    options = StackOptions(
        handlers=("steering_handlers", "tierflow_executor.handlers"),
        executor_environment={"PYTHONPATH": str(pathlib.Path(__file__).parent)},
    )
    with Stack(tmp_path_factory.mktemp("lineage"), options) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address, patience=60) as client:
        yield client


def tierflow(stack: Stack, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "tierflow_cli.main", *arguments, "--address", stack.address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def four(path: pathlib.Path) -> dict[str, Any]:
    """Four steps, one after the other; each notes that it was performed."""
    note = {"call": "t.needs", "with": {"path": str(path), "value": "${{ input.n }}"}}
    names = ["one", "two", "three", "four"]
    steps = {name: {**note, "needs": names[i - 1 : i] if i else []} for i, name in enumerate(names)}
    return {"name": "four", "version": "1", "steps": steps, "output": "${{ steps.four.output }}"}


def performed(path: pathlib.Path) -> int:
    return len(pathlib.Path(f"{path}.ran").read_text().split())


async def test_what_was_made_of_what_is_told_everywhere(stack: Stack, client: Client, tmp_path: pathlib.Path) -> None:
    """K2, K3, Q9: a rerun from step 3 takes over 1 and 2, a replay executes all; GetSwarm, GetRun, both lists, filters by origin and the command say of what they were made."""
    path = tmp_path / "there"
    path.touch()
    first = await client.submit(four(path), {"n": 7})
    assert await first.result(60) == 7
    again = await first.rerun("three")
    assert await again.result(60) == 7
    assert performed(path) == 6
    steps = {step.step_id: step.reused_from async for step in client.steps((await again.describe()).run_ids[0])}
    assert steps == {"one": first.run_id, "two": first.run_id, "three": "", "four": ""}
    replayed = await first.replay()
    assert await replayed.result(60) == 7
    assert performed(path) == 10

    for made, kind, kept in ((again, "rerun", ["one", "two"]), (replayed, "replay", [])):
        swarm = await made.describe()
        run = await client.get_run(swarm.run_ids[0])
        for origin in (swarm.origin, run.reuse):
            assert (origin.swarm_id, origin.run_id, origin.kind) == (first.id, first.run_id, kind)
            assert list(origin.step_ids) == kept
        listed = [one async for one in client.list() if one.context.swarm_id == made.id]
        assert (listed[0].origin.swarm_id, listed[0].origin.kind) == (first.id, kind)
        runs = [one async for one in client.runs(swarm_id=made.id)]
        assert (runs[0].reuse.swarm_id, runs[0].reuse.kind) == (first.id, kind)
        assert f"{kind} of {first.id}" in tierflow(stack, "describe", made.id)
        assert f"{kind} of {first.id}" in tierflow(stack, "runs")
    offspring = {one.context.swarm_id async for one in client.list(labels={"tierflow.origin": first.id})}
    assert offspring == {again.id, replayed.id}
    with pytest.raises(InvalidRequest, match="reserved"):
        await client.submit(four(path), {"n": 1}, labels={"tierflow.origin": first.id})


async def test_a_rerun_begins_at_a_checkpoint(stack: Stack, client: Client, tmp_path: pathlib.Path) -> None:
    """K2, K6, Q9: the results count as of then, though the run went on; the plan says so first; bad names are told; over the death of the orchestrator."""
    path = tmp_path / "there"
    path.touch()
    first = await client.submit(four(path), {"n": 1})
    assert await first.result(60) == 1
    whole = await first.checkpoint("whole")
    assert (whole.run.seq, len(whole.run.hash), whole.run.actor) == (
        (await client.get_run(first.run_id)).seq,
        64,
        "dev",
    )

    held = await client.submit(four(path), {"n": 2})
    await held.set_breakpoints("three")

    async def at_breakpoint() -> Any:
        try:
            run = await client.get_run(held.run_id)
        except NotFound:  # Tier 2 has not taken it yet
            return None
        return run if run.state == RunState.RUN_STATE_PAUSED else None

    await eventually(at_breakpoint)
    made = json.loads(tierflow(stack, "checkpoint", held.id, "before three", "--reason", "risky", "--json"))
    await held.set_breakpoints()
    await held.resume()
    assert await held.result(60) == 2
    assert (await held.checkpoint("before three")).run.hash == made["run"]["hash"]
    assert "risky" in tierflow(stack, "checkpoints", held.id)
    stack.orchestrators[0].kill()
    stack.orchestrators[0].start()
    done = performed(path)
    plan = await client.plan_rerun(held.id, checkpoint="before three")
    assert ([one.step_id for one in plan.executed], list(plan.reused)) == (["three", "four"], ["one", "two"])
    again = await held.rerun(checkpoint="before three")
    assert await again.result(60) == 2
    assert performed(path) == done + 2
    origin = (await again.describe()).origin
    assert (origin.checkpoint, origin.at_seq) == ("before three", int(made["run"]["seq"]))
    assert "at before three (event" in tierflow(stack, "describe", again.id)
    forked = await held.fork(checkpoint="before three", input={"n": 5})
    assert await forked.result(60) == 5
    with pytest.raises(NotFound, match="There is no checkpoint"):
        await held.rerun(checkpoint="never")
    with pytest.raises(InvalidRequest, match="COMPLETED"):
        await held.fork("four", checkpoint="before three")
    with pytest.raises(InvalidRequest, match="characters"):
        await held.checkpoint("")
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report
