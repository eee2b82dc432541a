"""Databases that earlier versions left behind (tools/golden.py): everything in them is read, and what was open goes on."""

import contextlib
import gzip
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from tierflow import Client
from tierflow.errors import Conflict
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from tierflow_runtime.channels import open_channel
from tierflow_runtime.subjects import CATALOGUE
from tierflow_testing import postgres_install
from tierflow_testing.auditor import audit
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import golden_reading  # noqa: E402 - the tool's folder is no package

SETS = sorted(path.stem for path in (ROOT / "tests/golden").glob("*.json"))
SINCE: frozenset[str] = frozenset({"tool_call_began", "tool_call_ended", "plan_decided", "hold_charged"})
"""What this version stores and the last release did not: kinds of events by name, states as `run PAUSED`. `make golden` at the next release empties it."""
ENDS = {"undoes": "FAILED"}
"""How open runs end, where not well."""


def facts_of(name: str) -> dict[str, Any]:
    """What the set says of itself: the kinds of events, the states and the snapshots in it, and its open runs."""
    facts: dict[str, Any] = json.loads((ROOT / f"tests/golden/{name}.json").read_text())
    return facts


@pytest.fixture(params=SETS)
def restored(request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """Name of a set, and of a database that is as that version left it."""
    database = f"golden_{request.node.originalname.rpartition('_')[2]}"
    url = postgres_server.create_database(database)
    text = gzip.decompress((ROOT / f"tests/golden/{request.param}.sql.gz").read_bytes())
    command = [str(postgres_install.programs() / "psql"), "-Xq1", "-v", "ON_ERROR_STOP=1", "-d", url]
    subprocess.run(command, input=text, check=True, capture_output=True)
    yield request.param, database
    postgres_server.drop_database(database)


async def test_everything_is_read(restored: tuple[str, str], postgres_server: EmbeddedPostgres) -> None:
    """Q23, A12, K7, V12: each event of every kind is decoded, and encoded again it is the same; journals of swarms, runs and schedules give the states and snapshots that were stored."""
    name, database = restored
    connection = await asyncpg.connect(postgres_server.url(database))
    found = (await golden_reading.read(connection)).facts()
    await connection.close()
    facts = facts_of(name)
    assert {what: facts[what] for what in found if what in facts} == {
        what: found[what] for what in found if what in facts
    }
    assert set(found["kinds"]) <= set(CATALOGUE)


def test_the_newest_set_has_everything() -> None:
    """Q23: every kind of event, every state and a snapshot of every journal is in the set of the last release, but for what is listed here as newer; so nothing is stored that no test of an upgrade has seen."""
    newest = max((facts_of(name) for name in SETS), key=lambda facts: str(facts.get("made", "")))
    lacking = golden_reading.lacking(newest)
    assert lacking - SINCE == set(), (
        "new since the last release? Then it belongs into SINCE, and a flow that leads to it into tools/golden_flows.py"
    )
    assert lacking >= SINCE, "what the newest set has is no longer new"


async def test_what_was_open_goes_on(
    restored: tuple[str, str],
    postgres_server: EmbeddedPostgres,
    tmp_path: pathlib.Path,
) -> None:
    """Q23, K7, R12, R26: the database is migrated, this version takes over what the other left, runs that waited get what they wait for, one that was in flight is tried again; all complete."""
    name, database = restored
    options = StackOptions(
        database=database,
        handlers=["tierflow_executor.handlers", "golden_handlers"],
        executor_environment={"PYTHONPATH": str(ROOT / "tools")},
        orchestrator_environment={"TIERFLOW_EXECUTOR_LOST_SECONDS": "1"},
    )
    opened = facts_of(name)["open"]
    with Stack(tmp_path, options, postgres=postgres_server) as stack:
        async with Client(stack.address, user="ada", patience=60) as client:
            await answered(client, stack, opened)
            for what, ids in opened.items():
                result = await client.handle(ids["swarm_id"]).wait(90)
                assert result.state == ENDS.get(what, "COMPLETED"), f"{what}: {result}"
            assert await client.handle(opened["waits"]["swarm_id"]).result() == {"end": {"n": 5}}
            assert await client.handle(opened["document"]["swarm_id"]).result() == {"status": 1, "paid": 3}
            if "long" in opened:
                assert await client.handle(opened["long"]["swarm_id"]).result() == {"end": {"n": 39}}
            if "backfill" in opened:
                await schedules_go_on(client)
        report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


async def answered(client: Client, stack: Stack, opened: dict[str, Any]) -> None:
    """Gives the open runs of a set what they wait for."""
    outer = client.runs(swarm_id=opened["outer"]["swarm_id"])
    children = [run async for run in outer if run.flow_name == "golden-inner"]
    await client.signal(opened["waits"]["swarm_id"], "go", 5)
    await signalled(stack, children[0].context.run_id, "go")
    await signalled(stack, opened["document"]["run_id"], "order.paid", {"amount": 3})
    await client.approve(opened["approval"]["run_id"], "ok")
    await client.resume(opened["paused"]["swarm_id"])
    await client.skip(opened["paused"]["swarm_id"], "a")
    with contextlib.suppress(Conflict):  # its hour may be over
        await client.skip(opened["sleeps"]["swarm_id"], "w")
    if "long" in opened:
        await shared_again(client, opened["shared"]["swarm_id"])
        for what in ("long", "shared", "backfill"):
            await client.signal(opened[what]["swarm_id"], "go", what)


async def shared_again(client: Client, swarm_id: str) -> None:
    """K7: what a swarm shared is there by key and version, its checkpoint can be gone back to, and its context changed."""
    board = client.blackboard(swarm_id)
    assert await board.get("facts/capital") == "Bern"
    assert await board.get("far") == "apart " * 2000
    known = await board.context()
    assert (known.goal, known.policy) == ("to know", {"tone": "dry"})
    await board.update_context(known.version, policy={"tone": "kind"})
    await client.restore_context(swarm_id, "before")
    assert (await board.context()).policy == {"tone": "dry"}
    assert await board.get("facts/capital") is None
    assert len([item async for item in board.keys("notes/")]) == 30


async def schedules_go_on(client: Client) -> None:
    """Q23: the second swarm of a backfill is made when the first has ended; the schedule is told of both, and can be changed, fired and deleted."""

    async def second() -> str:
        one = await client.schedules.get("past")
        running = [firing.swarm_id for firing in one.open if firing.swarm_id]
        return running[0] if one.counts.succeeded == 1 and running else ""

    swarm_id = await eventually(second, timeout=60)
    await client.signal(swarm_id, "go")
    assert (await client.handle(swarm_id).wait(60)).state == "COMPLETED"

    async def both() -> bool:
        return (await client.schedules.get("past")).counts.succeeded == 2

    await eventually(both, timeout=60)
    await client.schedules.update("past", flow="golden-soon-over")
    fired = await client.schedules.trigger("past")
    assert (await client.handle(fired.swarm_id).wait(60)).state == "COMPLETED"
    for name in ("past", "needy"):
        await client.schedules.delete(name)


async def signalled(stack: Stack, run_id: str, name: str, payload: Any = None) -> None:
    """Sends a signal to a run."""
    request = pb.SignalRunRequest(run_id=run_id, name=name, signal_id=f"again-{run_id}")
    request.payload.json = json.dumps(payload)
    async with open_channel(stack.orchestrators[0].address) as channel:
        await OrchestratorServiceStub(channel).SignalRun(request, timeout=30)
