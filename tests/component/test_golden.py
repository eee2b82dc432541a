"""Databases that earlier versions left behind (tools/golden.py): everything in them is read, and what was open goes on."""

import contextlib
import gzip
import json
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from tierflow import Client
from tierflow.errors import Conflict
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from tierflow_coordinator.machine import SwarmMachine
from tierflow_flow.parsing import from_canonical
from tierflow_orchestrator.core import dump, load
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.machine import RunMachine
from tierflow_runtime.channels import open_channel
from tierflow_runtime.subjects import CATALOGUE
from tierflow_testing import postgres_install
from tierflow_testing.auditor import audit
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.stack import Stack, StackOptions

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETS = sorted(path.stem for path in (ROOT / "tests/golden").glob("*.json"))
MACHINES: dict[str, Any] = {"coordinator": SwarmMachine(), "orchestrator": RunMachine()}


def facts_of(name: str) -> dict[str, Any]:
    """What the set says of itself: the kinds of events in it, and its open runs."""
    facts: dict[str, Any] = json.loads((ROOT / f"tests/golden/{name}.json").read_text())
    return facts


@pytest.fixture(params=SETS)
def restored(request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """Name of a set, and of a database that is as that version left it."""
    database = f"golden_{request.node.originalname.rpartition('_')[2]}"
    url = postgres_server.create_database(database)
    text = gzip.decompress((ROOT / f"tests/golden/{request.param}.sql.gz").read_bytes())
    command = [str(postgres_install.programs() / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", url]
    subprocess.run(command, input=text, check=True, capture_output=True)
    yield request.param, database
    postgres_server.drop_database(database)


async def histories(connection: Any, schema: str) -> dict[str, event_pb2.EventBatch]:
    """The journals of all entities of a tier."""
    found: dict[str, event_pb2.EventBatch] = {}
    for row in await connection.fetch(f"SELECT entity_id, data FROM {schema}.journal ORDER BY entity_id, seq"):
        found.setdefault(str(row["entity_id"]), event_pb2.EventBatch()).MergeFromString(row["data"])
    return found


async def test_everything_is_read(restored: tuple[str, str], postgres_server: EmbeddedPostgres) -> None:
    """Q23, A12, K7, V12: each event of every kind is decoded, and encoded again it is the same; journals give the states and snapshots that were stored."""
    name, database = restored
    connection = await asyncpg.connect(postgres_server.url(database))
    kinds: set[str] = set()
    flows = {
        row["hash"]: from_canonical(row["definition"])
        for row in await connection.fetch("SELECT hash, definition FROM orchestrator.flow")
    }
    for schema, machine in MACHINES.items():
        states = {str(row["id"]): row for row in await connection.fetch(f"SELECT id, state, name FROM {schema}.entity")}
        snapshots = {
            str(row["entity_id"]): row
            for row in await connection.fetch(f"SELECT entity_id, seq, data FROM {schema}.snapshot")
        }
        for entity_id, batch in (await histories(connection, schema)).items():
            state = machine.fresh(entity_id)
            for message, (seq, time, event) in zip(
                batch.events, machine.decode(batch.SerializeToString()), strict=True
            ):
                kinds.add(message.WhichOneof("payload") or "")
                again = event_pb2.Event.FromString(machine.encode(event, seq, time))
                assert again == message, f"{name}: {message.WhichOneof('payload')}"
                if isinstance(state, Run) and message.HasField("run_created"):
                    state.flow = flows.get(message.run_created.flow.hash)
                machine.evolve(state, event, time)
                if (kept := snapshots.get(entity_id)) is not None and kept["seq"] == seq:
                    assert machine.dump(machine.load(kept["data"])) == machine.dump(state)
            assert state.state == states[entity_id]["state"]
            if isinstance(state, Run):
                assert dump(load(dump(state))) == dump(state)
    await connection.close()
    assert kinds == set(facts_of(name)["kinds"])
    assert kinds <= set(CATALOGUE)


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
            children = [
                run
                async for run in client.runs(swarm_id=opened["outer"]["swarm_id"])
                if run.flow_name == "golden-inner"
            ]
            await client.signal(opened["waits"]["swarm_id"], "go", 5)
            await signalled(stack, children[0].context.run_id, "go")
            await signalled(stack, opened["document"]["run_id"], "order.paid", {"amount": 3})
            await client.approve(opened["approval"]["run_id"], "ok")
            await client.resume(opened["paused"]["swarm_id"])
            await client.skip(opened["paused"]["swarm_id"], "a")
            with contextlib.suppress(Conflict):  # its hour may be over
                await client.skip(opened["sleeps"]["swarm_id"], "w")
            for what, ids in opened.items():
                result = await client.handle(ids["swarm_id"]).wait(90)
                assert result.state == "COMPLETED", f"{what}: {result}"
            assert await client.handle(opened["waits"]["swarm_id"]).result() == {"end": {"n": 5}}
            assert await client.handle(opened["document"]["swarm_id"]).result() == {"status": 1, "paid": 3}
        report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.ok, report


async def signalled(stack: Stack, run_id: str, name: str, payload: Any = None) -> None:
    """Sends a signal to a run."""
    request = pb.SignalRunRequest(run_id=run_id, name=name, signal_id=f"again-{run_id}")
    request.payload.json = json.dumps(payload)
    async with open_channel(stack.orchestrators[0].address) as channel:
        await OrchestratorServiceStub(channel).SignalRun(request, timeout=30)
