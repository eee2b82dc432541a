"""An earlier version is replaced by this one, process by process, with runs under way: `make chaos FROM=commit` (Q23)."""

import asyncio
import io
import os
import pathlib
import subprocess
import tarfile
from collections.abc import Callable, Iterator

import harness
import pytest
from evidence import ROOT, Evidence
from test_weather import Scene
from tierflow import Client
from tierflow_testing.stack import Stack, migrate
from tierflow_testing.waiting import eventually

FROM = os.environ.get("CHAOS_FROM", "")
pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FROM, reason="no earlier commit is named: make chaos FROM=commit"),
]
MakeStack = Callable[..., Stack]


@pytest.fixture
def earlier(tmp_path: pathlib.Path) -> str:
    """PYTHONPATH of the earlier version's sources, out of git: they go before those that are installed."""
    archive = subprocess.run(["git", "archive", FROM, "libs", "services"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(tmp_path / "earlier", filter="data")
    return ":".join(map(str, sorted((tmp_path / "earlier").glob("*/*/src"))))


@pytest.fixture
async def scene(
    make_stack: MakeStack, tmp_path: pathlib.Path, earlier: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    """The earlier version, serving, on a database that it has migrated itself; what starts later is this version."""
    executions = tmp_path / "executions"
    options = harness.options(executions, coordinators=2, orchestrators=2, executors=2)
    options["executor_environment"]["PYTHONPATH"] = f"{harness.HERE}:{earlier}"
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", earlier)
        stack = make_stack(own_servers=True, **options)
    for service in stack.executors:
        service.configure(PYTHONPATH=str(harness.HERE))
    client = Client(stack.address, timeout=300, patience=300)
    await harness.ready(client)
    yield Scene(stack, executions, client)
    await client.close()


def is_earlier(pid: int, earlier: str) -> bool:
    """Whether a process was started with the earlier version's sources."""
    return earlier.encode() in pathlib.Path(f"/proc/{pid}/environ").read_bytes()


async def test_rolling_upgrade(scene: Scene, evidence: Evidence, earlier: str) -> None:
    """Q23, A12, Q22: the database is migrated under the old version, then one process after the other is replaced; between any two of them both versions work together on new runs: no call fails, no attempt is repeated."""
    services = scene.stack.services
    assert all(is_earlier(service.pid, earlier) for service in services)

    async def fault() -> str:
        mixed = 0
        await asyncio.to_thread(migrate, scene.stack.database_url, scene.stack.directory / "logs")
        for service in services:
            assert await asyncio.to_thread(service.stop, 60)
            assert service.exit_code == 0
            await asyncio.to_thread(service.start)
            assert not is_earlier(service.pid, earlier)
            done = scene.load.done
            await eventually(lambda done=done: scene.load.done > done + 150, 120)
            mixed += scene.load.done - done
        return f"{mixed} runs ended between two replacements, longest run {scene.load.longest:.1f} s"

    seen = await scene.under_load(fault)
    fault_name = f"rolling upgrade of 2 coordinators, 2 orchestrators, 2 executors from {FROM[:12]}"
    promised = "the old version goes on with the migrated database; no call fails, no attempt is repeated"
    await scene.settle(evidence, "deployments", fault_name, promised, seen)
