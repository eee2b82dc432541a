"""The auditor finds what it says it finds: sound records are falsified in one way after the other."""

import ast
import asyncio
import inspect
import pathlib
import re
import shutil
from collections.abc import Callable

import asyncpg
import nats
import pytest
from falsifications import BROKEN_RUN, CASES
from forged import Falsify, Forged
from tierflow import Client
from tierflow_contracts.events.v1 import event_pb2
from tierflow_durable.ids import uuid7
from tierflow_testing import auditor
from tierflow_testing.auditing import executions, reading, runs, stream, swarms
from tierflow_testing.auditor import Report, audit
from tierflow_testing.stack import Stack

FLOW = {
    "name": "audited",
    "version": "1",
    "defaults": {"retry": {"max_attempts": 2, "initial_delay": "10ms"}},
    "steps": {
        "a": {"call": "audited.work", "with": {"given": "${{ input.n }}"}},
        "b": {"call": "audited.flaky", "with": {"given": "${{ steps.a.output }}"}},
    },
    "output": "${{ steps.b.output }}",
}


async def publish(url: str, change: Callable[[event_pb2.EventBatch], None], subject: str = "") -> None:
    """Publishes the stream's first message again, changed."""
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        first = await jetstream.get_msg("TIERFLOW_EVENTS", seq=1)
        batch = event_pb2.EventBatch.FromString(first.data or b"")
        change(batch)
        await jetstream.publish(subject or str(first.subject), batch.SerializeToString())
    finally:
        await client.close()


# --- all of them ---


class Original:
    """Sound records, and whose they are."""

    def __init__(self, stack: Stack, notes: pathlib.Path) -> None:
        self.stack = stack
        self.notes = notes
        self.ids: dict[str, str] = {}

    async def produce(self) -> None:
        """Two swarms run to their ends; then every service stops."""
        async with Client(self.stack.address, patience=60) as client:
            for name in ("one", "two"):
                handle = await client.submit(FLOW, {"n": 1}, request_id=name)
                await handle.result()
        report = await audit(self.stack.database_url, self.stack.nats.url, settled=True, executions=self.notes, executors_lived=True)  # fmt: skip
        assert report.problems == []
        for service in reversed(self.stack.services):
            await asyncio.to_thread(service.stop, 30)
        connection = await asyncpg.connect(self.stack.database_url)
        rows = await connection.fetch(
            "SELECT request_id, r.entity_id::text AS swarm, e.id::text AS run FROM coordinator.request r JOIN orchestrator.entity e ON e.parent_id = r.entity_id"
        )
        await connection.close()
        self.ids = {row["request_id"]: (row["swarm"], row["run"]) for row in rows}

    async def examined(self, falsify: Falsify | None, place: pathlib.Path, *, with_stream: bool) -> Report:
        """What the auditor says of a copy that was falsified."""
        name = f"forged_{uuid7().replace('-', '')}"
        postgres = self.stack.postgres
        url = await asyncio.to_thread(postgres.create_database, name, template=self.stack.options.database)
        notes = place / name
        shutil.copy(self.notes, notes)
        connection = await asyncpg.connect(url)
        (swarm, run), (other, _) = self.ids["one"], self.ids["two"]
        records = Forged(connection, notes, swarm, run, other, url)
        try:
            if falsify is not None:
                await falsify(records)
            return await audit(
                url, self.stack.nats.url if with_stream else None, settled=records.settled, executions=notes,
                executors_lived=True, patience=0.0,
            )  # fmt: skip
        finally:
            for each in (*records.open, connection):
                await each.close()
            await asyncio.to_thread(postgres.drop_database, name)


@pytest.fixture
async def original(make_stack: Callable[..., Stack], tmp_path: pathlib.Path) -> Original:
    notes = tmp_path / "executions"
    environment = {"PYTHONPATH": str(pathlib.Path(__file__).parent), "EXECUTIONS": str(notes)}
    stack = make_stack(own_servers=True, handlers=["audited_handlers"], executor_environment=environment)
    made = Original(stack, notes)
    await made.produce()
    return made


def claimed() -> set[str]:
    """Every kind of problem that the auditor's code names."""
    found: set[str] = {BROKEN_RUN}
    for module in (auditor, executions, reading, runs, stream, swarms):
        tree = ast.parse(inspect.getsource(module))
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        found |= {text for text in texts if re.fullmatch(r"[a-z][^{}\n]* \([A-Z]\d+(, [A-Z]\d+)*\)", text)}
    return found


def kinds(report: Report) -> set[str]:
    return set(report.as_dict()["problems_by_kind"])


@pytest.mark.timeout(300)
async def test_every_kind_of_corruption_is_found(original: Original, tmp_path: pathlib.Path) -> None:
    """S13, Lesson 45, H18, A14, S7: whatever the auditor claims to find is put into sound records, and is found; sound records have no problem."""
    sound = await original.examined(None, tmp_path, with_stream=True)
    assert sound.problems == []
    seen: set[str] = set()
    missed: dict[str, set[str]] = {}
    for name, (falsify, expected) in CASES.items():
        report = await original.examined(
            falsify, tmp_path, with_stream=any("(H4)" in kind or "(R21)" in kind for kind in expected)
        )
        seen |= kinds(report)
        if not set(expected) <= kinds(report):
            missed[name] = set(expected) - kinds(report)
    assert missed == {}

    def other_content(batch: event_pb2.EventBatch) -> None:
        batch.events[0].time.seconds += 1

    await publish(original.stack.nats.url, other_content)
    await publish(original.stack.nats.url, lambda _: None, "tierflow.v1.default.someone.-.lifecycle")
    on_the_stream = kinds(await original.examined(None, tmp_path, with_stream=True))
    assert {"two events with one number (R20)", "an event on another's subject (H10)"} <= on_the_stream
    assert len(claimed()) > 40
    assert claimed() - seen - on_the_stream == set()
