"""What stands in for the outside within the real applications: installed once per interpreter, each looks at the world that is running."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import asyncpg
import grpc
import tierflow_coordinator.app as coordinator_app
import tierflow_durable.durable
import tierflow_durable.host
import tierflow_executor.app as executor_app
import tierflow_executor.blobs
import tierflow_orchestrator.app as orchestrator_app
import tierflow_orchestrator.flows
import tierflow_orchestrator.link
import tierflow_runtime.channels
from tierflow.handler import describe
from tierflow.registry import Registry
from tierflow_coordinator.schedules import hosting
from tierflow_executor.outbox import Outbox
from tierflow_executor.wire import RESULTS
from tierflow_runtime.telemetry import Telemetry

from simulation import channels, handlers, serving, sessions, stream

PARK_AFTER = 600_000
"""Microseconds; scaled like the lease, so that what waits is parked within a simulation."""

LOUD = frozenset(
    (
        "a defect while deciding", "background call failed", "a loop of the durable library failed", "a row cannot be stored", "call failed by a defect",
        "defect", "loop crashed; it begins again", "an entity is quarantined", "a broken entity cannot be ended", "a result of an unknown swarm",
        "a result says of its run that it has not ended", "somebody waits for a swarm that is not there", "somebody waits for a run that is not there",
    )
)  # fmt: skip
"""Lines of the log that say that something is wrong with the product (V39)."""


def here() -> Any:
    """The process that is running."""
    return asyncio.get_running_loop().process  # type: ignore[attr-defined]


class Nothing:
    """Whatever it is asked, nothing happens."""

    def __call__(self, *_: Any, **__: Any) -> Nothing:
        return self

    def __getattr__(self, name: str) -> Nothing:
        return self


class NoRetention:
    """Stands in for `Retention`: a world ends before anything is old. Dropping partitions is not simulated."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what `Retention` takes."""

    def __getattr__(self, name: str) -> Callable[[], Any]:
        async def nothing() -> None:
            pass

        return nothing


class NoMetrics(Nothing):
    """Stands in for `Metrics`: nobody looks."""

    def __init__(self, *_: Any) -> None:
        """Takes what `Metrics` takes."""

    async def run_sampler(self) -> None:
        await asyncio.Event().wait()


def recorded(cls: type, name: str) -> type:
    """The class, whose objects are found again in their process's `parts`."""

    def __init__(self: Any, *args: Any, **more: Any) -> None:  # noqa: N807
        here().parts[name] = self
        cls.__init__(self, *args, **more)

    return type(cls.__name__, (cls,), {"__init__": __init__, "__module__": cls.__module__})


def _watched(cls: Any) -> type:
    """The dispatcher, with a look at each slot that is taken."""

    def board(self: Any, link: Any, attempt_id: str, *more: Any) -> None:
        cls.board(self, link, attempt_id, *more)
        here().world.checks.boarded(link, attempt_id)

    return type(cls.__name__, (cls,), {"board": board, "__module__": cls.__module__})


def _remembering(put: Callable[..., None]) -> Callable[..., None]:
    """`Outbox.put`, which notes results: some executors say them again."""

    def noting(self: Any, number: int, item: bytes) -> None:
        if number == RESULTS:
            here().parts.setdefault("said", []).append(item)
        put(self, number, item)

    return noting


def _channel(address: str, *_: Any, **__: Any) -> channels.SimChannel:
    return channels.SimChannel(here().world.network, address)


async def _connect(url: str, *, server_settings: dict[str, str], timeout: float, **_: Any) -> sessions.Session:
    return await sessions.connect(here().world.database, server_settings, timeout)


def _pool(
    url: str, *, max_size: int, server_settings: dict[str, str], timeout: float, command_timeout: float, **_: Any
) -> Any:
    async def made() -> sessions.Pool:
        return sessions.Pool(here().world.database, server_settings, max_size, timeout, command_timeout)

    return made()


async def _check_version(url: str, schema: str, *_: Any) -> None:
    session = await sessions.connect(here().world.database, {"search_path": schema}, 5.0)
    session.terminate()


def _messaging(url: str, name: str, *, on_stream: Any = None, **_: Any) -> stream.SimMessaging:
    return stream.SimMessaging(here().world.broker, name, on_stream)


class Lines(logging.Handler):
    """Takes the lines that the services log."""

    def emit(self, record: logging.LogRecord) -> None:
        loop = asyncio._get_running_loop()
        process = None if loop is None else loop.process
        if process is None or process.world.over:
            return
        event = record.getMessage()
        fields = getattr(record, "tierflow", {})
        text = " ".join(f"{name}={value}" for name, value in fields.items())
        process.world.note(process.name, f"log {event}: {text}" if text else f"log {event}")
        if event in LOUD:
            error = record.exc_info[1] if record.exc_info else None
            process.world.defect(f"{process.name}: {event} {text} {'' if error is None else repr(error)}", error)


def _registry() -> Registry:
    registry = Registry()
    registry.add(describe("sim.work", handlers.work))
    registry.add(describe("sim.doubt", handlers.doubt, tool=True))
    registry.add(describe("sim.plan", handlers.plan))
    registry.add(describe("sim.echo", handlers.echo, inline=True, raw=True))
    registry.add(describe("sim.charge", handlers.charge, side_effecting=True, tool=True))
    return registry


def _memoised(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.lru_cache(maxsize=512)(function)


def install(*, verbose: bool) -> None:
    """Puts everything in place. `verbose` writes what services log into the history."""
    grpc.aio.insecure_channel = _channel
    for module in (tierflow_runtime.channels, tierflow_orchestrator.link, tierflow_executor.blobs, coordinator_app):
        module.open_channel = _channel
    asyncpg.connect = _connect
    asyncpg.create_pool = _pool
    tierflow_durable.host.PARK_AFTER = PARK_AFTER
    tierflow_durable.durable.Retention = NoRetention
    tierflow_orchestrator.flows.parse = _memoised(tierflow_orchestrator.flows.parse)
    tierflow_orchestrator.flows.from_canonical = _memoised(tierflow_orchestrator.flows.from_canonical)
    for app in (orchestrator_app, coordinator_app, executor_app):
        app.Server = serving.SimServer
        app.setup_telemetry = lambda *_: Telemetry()
    for app in (orchestrator_app, coordinator_app):
        app.Messaging = _messaging
        app.check_version = _check_version
        app.Durable = recorded(app.Durable, "durable")
    coordinator_app.gc = Nothing()
    coordinator_app.Metrics = executor_app.Metrics = NoMetrics
    registry = _registry()
    executor_app.load_handlers = lambda _: registry
    executor_app.sandbox = executor_app.logs = executor_app.Watchdog = Nothing()
    Outbox.put = _remembering(Outbox.put)  # type: ignore[method-assign]
    executor_app.Engine = recorded(executor_app.Engine, "engine")
    orchestrator_app.Dispatcher = recorded(_watched(orchestrator_app.Dispatcher), "dispatcher")
    orchestrator_app.Sessions = recorded(orchestrator_app.Sessions, "sessions")
    coordinator_app.Engine = recorded(coordinator_app.Engine, "engine")
    hosting.Durable = recorded(hosting.Durable, "schedules")  # type: ignore[misc]
    root = logging.getLogger()
    root.handlers[:] = [Lines()]
    root.setLevel(logging.INFO if verbose else logging.ERROR)
    for noisy in ("asyncio", "grpc", "nats"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
