"""Executors to test: one in this process for most, real processes where it is about processes."""

from __future__ import annotations

import logging
import pathlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from tierflow.handler import describe
from tierflow.registry import Registry
from tierflow_executor import logs
from tierflow_executor.app import load_handlers
from tierflow_executor.engine import Engine
from tierflow_executor.observing import Observer
from tierflow_executor.service import NAME, ExecutorService, add_to_server
from tierflow_executor.settings import ExecutorSettings
from tierflow_runtime.metrics import Metrics
from tierflow_runtime.serving import Server
from tierflow_runtime.telemetry import Telemetry
from tierflow_testing.processes import ServiceProcess


class Served:
    """An executor in this process, with its address."""

    def __init__(self, settings: ExecutorSettings, registry: Registry, telemetry: Telemetry) -> None:
        self.metrics = Metrics("executor")
        observer = Observer(self.metrics, telemetry, "test")
        self.engine = Engine(registry, settings, observer, executor_id="test-process", version="test")
        self.server = Server(settings, tier=3, component="executor")
        self.server.add(NAME, add_to_server, ExecutorService(self.engine))

    @property
    def address(self) -> str:
        return self.server.address

    async def start(self) -> None:
        await self.server.start()
        await self.server.announce_ready()

    async def stop(self) -> None:
        await self.engine.close()
        await self.server.drain(0.1)


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts executors for a test, which says what they offer and how they are set."""
    served: list[Served] = []

    async def start(
        handlers: dict[str, Callable[..., Any]] | None = None,
        options: dict[str, dict[str, Any]] | None = None,
        telemetry: Telemetry | None = None,
        **settings: Any,
    ) -> Served:
        registry = load_handlers(())
        for name, function in (handlers or {}).items():
            registry.add(describe(name, function, **(options or {}).get(name, {})))
        one = Served(ExecutorSettings(name="executor-1", port=0, **settings), registry, telemetry or Telemetry())
        served.append(one)
        await one.start()
        return one

    yield start
    for one in served:
        await one.stop()


@pytest.fixture
def capture() -> Iterator[Callable[[], None]]:
    """A function after which what handlers print goes to their attempts, as in a real process."""
    before: list[Any] = []

    def start() -> None:  # within the test: pytest changes the streams between its phases
        before.extend((sys.stdout, sys.stderr))
        logs.capture()

    yield start
    sys.stdout, sys.stderr = before
    records = logging.getLogger()
    records.handlers[:] = [each for each in records.handlers if type(each).__module__ != logs.__name__]


@pytest.fixture
def executor_process(tmp_path: pathlib.Path) -> Iterator[Callable[..., ServiceProcess]]:
    """Starts real executors: `executor_process(TIERFLOW_SLOTS="4")`. What still runs afterwards is killed."""
    started: list[ServiceProcess] = []

    def start(name: str = "executor-1", **variables: str) -> ServiceProcess:
        process = ServiceProcess(name, "tierflow_executor", variables, directory=tmp_path)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()
