"""Processes: the real applications, started, crashed, frozen and started again as a supervisor would."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import asyncpg
import tierflow_coordinator.app as coordinator_app
import tierflow_executor.app as executor_app
import tierflow_orchestrator.app as orchestrator_app
from tierflow_coordinator.settings import CoordinatorSettings
from tierflow_executor.settings import ExecutorSettings
from tierflow_orchestrator.settings import OrchestratorSettings
from tierflow_runtime.process import root_of
from tierflow_runtime.values import FailureError

from simulation.clocks import Skew
from simulation.loop import Loop

LEASE = 3.0
HEARTBEAT = 0.75
LOST = 4.0
"""Seconds after which an executor is lost."""

DATABASE = "postgresql://sim@database:5432/sim"
RESTART = 0.3
"""Seconds after which a supervisor starts a process again that has ended."""


class Process:
    """One place where a process runs: name, address and clocks stay over all its incarnations."""

    def __init__(self, world: Any, name: str, main: Callable[[Incarnation, asyncio.Event], Any]) -> None:
        self.world = world
        self.kind = name[0]
        self.name = name
        self.main = main
        self.skew = Skew()
        self.current: Incarnation | None = None
        self.all: list[Incarnation] = []
        """What was of incarnations that ended is kept, so that nothing of theirs runs as it is freed."""

    def start(self) -> None:
        """A new incarnation, where there is none."""
        if self.current is None or self.current.loop.dead:
            self.current = Incarnation(self, len(self.all) + 1)
            self.all.append(self.current)
            self.current.start()

    def abandon(self) -> Incarnation | None:
        """The supervisor believes that the process is gone, and may start another; it goes on, perhaps."""
        old, self.current = self.current, None
        return old

    def ended(self, incarnation: Incarnation) -> None:
        """An incarnation has ended by itself: the supervisor starts another."""
        if incarnation is self.current:
            self.world.after(RESTART, self.start)


class Incarnation:
    """One process from its start to its end; what code finds as `loop.process`."""

    def __init__(self, process: Process, number: int) -> None:
        self.process = process
        self.number = number
        self.world = process.world
        self.name = process.name
        self.kind = process.kind
        self.skew = process.skew
        self.parts: dict[str, Any] = {}
        self.serving = False
        self.expected = False
        """Its end was asked for."""
        self.stop: asyncio.Event | None = None
        self.loop: Loop = self.world.loop(process.name)
        self.loop.process = self

    @property
    def key(self) -> str:
        return f"{self.name}#{self.number}"

    @property
    def alive(self) -> bool:
        return not self.loop.dead

    def start(self) -> None:
        self.world.note(self.key, "starts")
        self.loop.deliver(self.world.now, self._begin)

    def _begin(self) -> None:
        self.loop.create_task(self._run(), name="main")

    def ready(self) -> None:
        """It serves."""
        self.serving = True
        self.world.note(self.key, "is ready")

    async def _run(self) -> None:
        self.stop = asyncio.Event()
        if self.expected:
            self.stop.set()
        try:
            await self.process.main(self, self.stop)
            why = "drained"
            if not self.expected:
                self.world.defect(f"{self.key} ended without being told", None)
        except FailureError as error:
            why = self._why(error)
        except Exception as error:  # noqa: BLE001 - whatever ends a process is looked at
            root = root_of(error)
            if isinstance(root, FailureError):
                why = self._why(root)
            elif (
                isinstance(root, asyncpg.PostgresError | asyncpg.InterfaceError | OSError | TimeoutError)
                and not self.serving
            ):
                why = f"could not start: {root}"
            else:
                why = f"defect {type(root).__name__}: {root}"
                self.world.defect(f"{self.key} ended by {type(root).__name__}: {root}", root)
        self.world.note(self.key, f"ended: {why}")
        self._bury(silent=False)
        self.process.ended(self)

    def _why(self, error: FailureError) -> str:
        failure = error.failure
        if failure.code == "FENCED":
            self.world.checks.ended_fenced(self, failure.message)
        elif failure.code not in ("CONFIGURATION", "UNAVAILABLE", "DATABASE_UNAVAILABLE"):
            self.world.defect(f"{self.key} ended by {failure.code}: {failure.message} {failure.detail}", error)
        return f"{failure.code}: {failure.message}"

    def crash(self, *, silent: bool) -> None:
        """Everything that it was is gone, in the middle of whatever it did."""
        if self.alive:
            self.world.note(self.key, "crashes" + (" silently" if silent else ""))
            self._bury(silent=silent)

    def _bury(self, *, silent: bool) -> None:
        world = self.world
        self.loop.kill()
        world.network.died(self.loop, silent=silent)
        for session in list(world.database.sessions.values()):
            if session.loop is self.loop:
                world.after(world.database.delay(), session.abandoned)

    def drain(self) -> None:
        """Told to stop, as by SIGTERM; killed where it takes too long."""
        if self.alive:
            self.world.note(self.key, "is told to stop")
            self.expected = True
            if self.stop is not None:
                self.loop.deliver(self.world.now, self.stop.set)
            self.world.after(20.0, lambda: (self.crash(silent=False), self.process.ended(self)) if self.alive else None)


def _nats(*, nats: bool) -> dict[str, Any]:
    return {"nats_url": "nats://broker:4222"} if nats else {}


@functools.cache
def _orchestrator_settings(name: str, executors: tuple[str, ...], nats: bool) -> OrchestratorSettings:
    return OrchestratorSettings(
        name=name, port=2, advertise=address(name), database_url=DATABASE, executors=executors,
        lease_seconds=LEASE, heartbeat_seconds=HEARTBEAT, executor_lost_seconds=LOST, drain_timeout=6.0,
        **_nats(nats=nats),
    )  # fmt: skip


@functools.cache
def _coordinator_settings(name: str, orchestrators: tuple[str, ...], nats: bool, park: float) -> CoordinatorSettings:
    return CoordinatorSettings(
        name=name, port=1, advertise=address(name), database_url=DATABASE, orchestrators=orchestrators,
        lease_seconds=LEASE, heartbeat_seconds=HEARTBEAT, drain_timeout=6.0, park_seconds=park, **_nats(nats=nats),
    )  # fmt: skip


@functools.cache
def _executor_settings(name: str, slots: int) -> ExecutorSettings:
    return ExecutorSettings(
        name=name, port=3, advertise=address(name), slots=slots, drain_timeout=4.0, grace=0.5, held_seconds=600
    )


def address(name: str) -> str:
    """Where a process is reached."""
    return f"{name}:7700"


def orchestrator(executors: tuple[str, ...], *, nats: bool) -> Callable[[Incarnation, asyncio.Event], Any]:
    """Tier 2."""
    targets = tuple(address(name) for name in executors)
    return lambda process, stop: orchestrator_app.main(_orchestrator_settings(process.name, targets, nats), stop)


def coordinator(
    orchestrators: tuple[str, ...], *, nats: bool, park: float
) -> Callable[[Incarnation, asyncio.Event], Any]:
    """Tier 1."""
    targets = tuple(address(name) for name in orchestrators)
    return lambda process, stop: coordinator_app.serve(_coordinator_settings(process.name, targets, nats, park), stop)


def executor(slots: int) -> Callable[[Incarnation, asyncio.Event], Any]:
    """Tier 3."""
    return lambda process, stop: executor_app.main(_executor_settings(process.name, slots), stop)
