"""Writes what this version stores, so that every later one can be shown to read it and to go on with it.

A set is the whole database after real runs on the real system: every kind of event, every state and a snapshot of every journal occur in it, some runs have ended, some
wait for something, one is in flight, schedules have firings that wait; nothing was shut down in an orderly way. tests/component/test_golden.py reads the sets, migrates them, and lets the open runs go on.

Usage: golden.py [NAME]   writes tests/golden/NAME.sql.gz and NAME.json; NAME is the version of the SDK where it is left out
"""

from __future__ import annotations

import asyncio
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import golden_flows as flows
import golden_reading
from golden_schedules import GoldenSchedules
from tierflow import Client, Handle, NotFound
from tierflow_contracts.common.v1.state_pb2 import RunState
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from tierflow_runtime.channels import open_channel
from tierflow_testing import postgres_install
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden"
OPTIONS = StackOptions(
    handlers=["tierflow_executor.handlers", "golden_handlers"],
    executor_environment={"PYTHONPATH": str(ROOT / "tools"), "TIERFLOW_GRACE": "0.5"},
)


class Golden:
    """Drives the runs."""

    def __init__(self, client: Client, stack: Stack) -> None:
        self.client = client
        self.stack = stack
        self.open: dict[str, Handle] = {}

    async def drive(self) -> None:
        """Everything, in the end with runs that are open."""
        await self.endings()
        await self.steering()
        await self.people_and_signals()
        await self.sharing()
        schedules = GoldenSchedules(self.client, self.stack)
        await schedules.drive()
        await self.left_open()
        await schedules.left_open(self.open)

    async def endings(self) -> None:
        """Runs that end by themselves."""
        assert (await (await self.client.submit(flows.PLAIN, {"items": [1, 2, 3]})).wait(60)).state == "COMPLETED"
        assert (await (await self.client.submit(flows.BLOCKS)).wait(60)).state == "FAILED"
        race = await self.client.submit(flows.RACE)
        assert (await race.wait(60)).state == "COMPLETED"
        await self.until(lambda kinds: "late_result" in kinds, race)
        failed = await self.client.submit(flows.FAILS)
        assert (await failed.wait(60)).state == "FAILED"
        await failed.retry("mended")
        assert (await failed.wait(60)).state == "COMPLETED"
        again = await failed.rerun("x")
        assert (await again.wait(60)).state == "FAILED"

    async def steering(self) -> None:
        """A run that is interrupted, changed, stepped through, migrated and skipped; another one that is cancelled, a third that is stopped by force."""
        run = await self.client.submit(flows.STEERED)
        await self.until(lambda kinds: "step_started" in kinds, run)
        await run.pause("stop", interrupt=True)
        await self.state(run, RunState.RUN_STATE_PAUSED)
        await run.update(concurrency=2)
        await run.set_breakpoints("c")
        await self.client.migrate(run.id, flows.STEERED_2)
        await run.resume()
        await run.skip("a", {"by": "hand"})
        await self.state(run, RunState.RUN_STATE_PAUSED)
        await run.step()
        await self.until(lambda kinds: kinds.count("step_completed") == 2, run)
        await self.state(run, RunState.RUN_STATE_PAUSED)
        await run.resume()
        assert (await run.wait(60)).state == "COMPLETED"
        for end in (self.client.cancel, self.client.stop):
            other = await self.client.submit(flows.STEERED)
            await self.until(lambda kinds: "step_started" in kinds, other)
            await end(other.id, "enough", **({"force": True} if end == self.client.stop else {}))
            await self.state(other, RunState.RUN_STATE_CANCELLED)

    async def people_and_signals(self) -> None:
        """Approvals that are escalated; questions; flows within flows that are paused."""
        asked = await self.client.submit(flows.APPROVAL)
        await self.until(lambda kinds: "approval_escalated" in kinds, asked)
        async with Client(self.stack.address, user="kim") as kim:
            await kim.approve(asked.run_id, "ok", "fine")
        assert (await asked.wait(60)).state == "COMPLETED"
        question = await self.client.submit(flows.ASKED)
        await question.ask("change", {"n": 1})
        await self.client.register_flow(flows.INNER)
        outer = await self.client.submit(flows.OUTER)
        child = await self.child(outer)
        await outer.pause("lunch")
        await self.until(lambda kinds: "child_told" in kinds, outer)
        await outer.resume()
        await self.signal(child, "go")
        assert (await outer.wait(60)).state == "COMPLETED"
        document = await self.document()
        await self.until(lambda kinds: "step_waiting" in kinds, document)
        await self.signal(document.run_id, "order.paid", {"amount": 2})
        assert (await document.wait(60)).state == "COMPLETED"

    async def sharing(self) -> None:
        """A swarm with a blackboard that was changed, named and brought back; and long journals, of which there are snapshots. Both stay open."""
        self.open["shared"] = shared = await self.client.submit(flows.WAITS)
        board = shared.blackboard
        await board.write({f"notes/{n}": "note " * 500 for n in range(30)})
        await board.set("far", "apart " * 2000)
        known = await board.context()
        await board.update_context(known.version, goal="to know", policy={"tone": "dry"}, reason="said so")
        await self.client.checkpoint_context(shared.id, "before")
        await board.write({"facts/capital": "Zurich", "far": None})
        await self.client.restore_context(shared.id, "before", reason="that was wrong")
        await board.set("facts/capital", "Bern")
        self.open["long"] = await self.client.submit(flows.LONG, {"items": list(range(40))})
        await self.state(self.open["long"], RunState.RUN_STATE_SUSPENDED)

    async def left_open(self) -> None:
        """Runs that the next version goes on with: each waits for something else, one has an attempt in flight."""
        self.open["waits"] = await self.client.submit(flows.WAITS)
        self.open["sleeps"] = await self.client.submit(flows.SLEEPS)
        self.open["approval"] = await self.client.submit(flows.OPEN_APPROVAL)
        self.open["outer"] = await self.client.submit(flows.OUTER)
        await self.child(self.open["outer"])
        self.open["document"] = await self.document()
        for name in ("waits", "sleeps", "approval", "document"):
            await self.state(self.open[name], RunState.RUN_STATE_SUSPENDED)
        self.open["paused"] = await self.client.submit(flows.STEERED)
        await self.until(lambda kinds: "step_started" in kinds, self.open["paused"])
        await self.open["paused"].pause("for later", interrupt=True)
        await self.state(self.open["paused"], RunState.RUN_STATE_PAUSED)
        self.open["backoff"] = await self.client.submit(flows.BACKOFF)
        await self.until(lambda kinds: "step_retrying" in kinds, self.open["backoff"])
        self.open["undoes"] = await self.client.submit(flows.UNDOES)
        await self.until(lambda kinds: "compensation_began" in kinds, self.open["undoes"])
        self.open["runs"] = await self.client.submit(flows.RUNS)
        await self.until(lambda kinds: kinds.count("step_started") == 2, self.open["runs"])

    async def document(self) -> Handle:
        """A document that is under way."""
        path = self.stack.directory / "document.yaml"
        path.write_text(flows.DOCUMENT)
        return await self.client.submit(str(path))

    async def child(self, outer: Handle) -> str:
        """The run that a step of another asked for, once it waits."""

        async def there() -> str:
            found = [run async for run in self.client.runs(swarm_id=outer.id) if run.flow_name == "golden-inner"]
            waits = [run.context.run_id for run in found if run.state == RunState.RUN_STATE_SUSPENDED]
            return waits[0] if waits else ""

        return await eventually(there, timeout=30)

    async def signal(self, run_id: str, name: str, payload: Any = None) -> None:
        """Sends a signal to a run."""
        request = pb.SignalRunRequest(run_id=run_id, name=name, signal_id=f"{name}-{run_id}")
        request.payload.json = json.dumps(payload)
        async with open_channel(self.stack.orchestrators[0].address) as channel:
            await OrchestratorServiceStub(channel).SignalRun(request, timeout=30)

    async def until(self, condition: Callable[[list[str]], bool], handle: Handle) -> None:
        """Returns when the kinds of a run's events are so."""

        async def look() -> bool:
            try:
                history = (await self.client.events(handle.id, handle.run_id)).events
            except NotFound:  # Tier 2 has not taken it yet
                return False
            return condition([event.WhichOneof("payload") or "" for event in history])

        await eventually(look, timeout=30)

    async def state(self, handle: Handle, state: int) -> None:
        """Returns when a run is in a state."""

        async def look() -> bool:
            try:
                return (await self.client.get_run(handle.run_id)).state == state
            except NotFound:
                return False

        await eventually(look, timeout=30)


async def made(stack: Stack) -> dict[str, Any]:
    """Drives everything and says what there is; the services are dead then."""
    async with Client(stack.address, user="ada", patience=30) as client:
        golden = Golden(client, stack)
        await golden.drive()
    for service in stack.services:
        service.kill()
    open_runs = {name: {"swarm_id": handle.id, "run_id": handle.run_id} for name, handle in golden.open.items()}
    connection = await asyncpg.connect(stack.database_url)
    found = await golden_reading.read(connection)
    await connection.close()
    return {**found.facts(), "open": open_runs}


def write(name: str) -> None:
    """Writes a set."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tierflow-golden-"))
    directory.chmod(0o755)
    GOLDEN.mkdir(exist_ok=True)
    with Stack(directory, OPTIONS) as stack:
        facts = asyncio.run(made(stack))
        program = str(postgres_install.programs() / "pg_dump")
        command = [program, "--inserts", "--no-owner", "-d", stack.postgres.admin_url(stack.options.database)]
        text = subprocess.run(command, capture_output=True, check=True).stdout
    facts = {"made": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
    (GOLDEN / f"{name}.sql.gz").write_bytes(gzip.compress(text, 9, mtime=0))
    (GOLDEN / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(f"tests/golden/{name}: {len(facts['kinds'])} kinds of events, {len(facts['open'])} open runs")
    if lacking := sorted(golden_reading.lacking(facts)):
        print(f"nothing led to these, see tools/golden_flows.py: {', '.join(lacking)}")


if __name__ == "__main__":
    version = tomllib.loads((ROOT / "libs/sdk/pyproject.toml").read_text())["project"]["version"]
    write(sys.argv[1] if len(sys.argv) > 1 else version)
