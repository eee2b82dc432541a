"""Executors come and go at changing addresses behind one name, as pods do behind a headless Service (R25, R26, O7)."""

import asyncio
import pathlib

import harness
import machines
import pytest
from evidence import Evidence
from steering_load import SteeredLoad
from tierflow import Client
from tierflow_testing.ports import free_port
from tierflow_testing.processes import ServiceProcess
from tierflow_testing.stack import EXECUTOR, Stack, StackOptions
from tierflow_testing.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
AWAY = 8.0
"""Seconds for which the name server is away: longer than between two looks at it."""


class Pods:
    """Executors at addresses of this machine's own net, all on one port."""

    def __init__(self, directory: pathlib.Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self.port = free_port()
        self.all: list[ServiceProcess] = []

    def start(self, name: str, host: str) -> ServiceProcess:
        """An executor of that name at that address; returns when it serves."""
        environment = {
            **self._environment,
            "TIERFLOW_NAME": name,
            "TIERFLOW_HOST": host,
            "TIERFLOW_PORT": str(self.port),
            "TIERFLOW_ADVERTISE": f"{host}:{self.port}",
        }
        pod = ServiceProcess(f"{name}-{len(self.all)}", EXECUTOR, environment, directory=self._directory)
        self.all.append(pod)
        pod.start()
        return pod

    def stop(self) -> None:
        """Ends all."""
        for pod in self.all:
            if pod.running:
                pod.stop(5.0)


@pytest.fixture
def names(server_directory: pathlib.Path, tmp_path: pathlib.Path) -> tuple[pathlib.Path, dict[str, str]]:
    """The file of the name server, and the variables of those who ask it."""
    directory = server_directory / f"names-{tmp_path.name}"
    directory.mkdir(mode=0o755)
    library = machines.shim(directory, pathlib.Path(__file__).with_name("names.c"))
    file = directory / "names"
    return file, {"LD_PRELOAD": str(library), "NAMES_FILE": str(file)}


async def test_addresses_change(
    server_directory: pathlib.Path,
    tmp_path: pathlib.Path,
    evidence: Evidence,
    names: tuple[pathlib.Path, dict[str, str]],
) -> None:
    """R25, R26, L6, O7: an executor restarts at another address, another takes its old one, the name server goes away, one drains after it was taken off the list: only what died is made again."""
    file, asks = names
    executions = tmp_path / "executions"
    directory = server_directory / tmp_path.name
    pods = Pods(
        directory / "pods",
        {
            "TIERFLOW_HANDLERS": "chaos_handlers", "TIERFLOW_SLOTS": "256",
            "PYTHONPATH": str(harness.HERE), "CHAOS_EXECUTIONS": str(executions),
        },
    )  # fmt: skip
    options = StackOptions(
        executors=0, guests=[f"dns:///executors.test:{pods.port}"], orchestrator_environment=asks, supervised=True
    )
    stack = Stack(directory, options)
    file.write_text("127.0.0.2\n127.0.0.3\n")
    moved: list[str] = []

    async def started(name: str, host: str) -> ServiceProcess:
        return await asyncio.to_thread(pods.start, name, host)

    async def moves(count: int = 40) -> None:
        done = load.done
        await eventually(lambda: load.done >= done + count, 90, message="runs end again")

    async def faults() -> list[harness.Fault]:
        nonlocal first
        await moves()
        file.write_text("!")
        await harness.lasts(AWAY)
        await moves()
        moved.append("the name server away")
        file.write_text("127.0.0.3\n127.0.0.4\n")
        await asyncio.to_thread(first.kill)
        first = await started("executor-a", "127.0.0.4")
        await moves()
        moved.append("a process of the same name at a new address")
        await asyncio.to_thread(second.kill)
        await started("executor-c", "127.0.0.3")
        await started("executor-b", "127.0.0.2")
        file.write_text("127.0.0.2\n127.0.0.3\n127.0.0.4\n")
        await moves()
        moved.append("an address taken by another, its owner at a third")
        file.write_text("127.0.0.2\n127.0.0.3\n")
        await harness.lasts(AWAY)
        await asyncio.to_thread(first.stop, 60.0)
        await moves()
        moved.append("one drained after it was off the list")
        return []

    try:
        first = await started("executor-a", "127.0.0.2")
        second = await started("executor-b", "127.0.0.3")
        await asyncio.to_thread(stack.start)
        async with Client(stack.address, timeout=60, patience=300) as client:
            await harness.ready(client)
            load = SteeredLoad(client, harness.flow(seconds=0.1), in_flight=40)
            await harness.under_load(load, 60, faults())
            report = await harness.examined(stack, executions, patience=90)
    finally:
        await asyncio.to_thread(stack.stop, 10.0)
        await asyncio.to_thread(pods.stop)
    holds = not load.wrong and report.ok
    seen = f"{load.done} runs, {len(load.wrong)} wrong, {len(report.problems)} problems, {report.counts['executions_again']} executions again"
    fault = f"addresses of executors change behind a name: {', '.join(moved)}"
    promised = "every run ends right, only attempts of dead executors again"
    evidence.add("network", fault, len(moved), promised, seen, holds=holds)
    assert load.wrong == []
    assert report.problems == []
