"""One simulation: a world with its processes, clients and faults, from the first moment to the verdict."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from simulation import clocks, standins
from simulation.checks import Checks, Violated
from simulation.commits import Engine
from simulation.committed import schema_of
from simulation.database import Server
from simulation.faults import Faults
from simulation.final import Final
from simulation.loop import World
from simulation.network import Network
from simulation.processes import Incarnation, Process, coordinator, executor, orchestrator
from simulation.scenario import FAULTS_UNTIL, Scenario
from simulation.serving import SimServer
from simulation.stream import Broker
from simulation.workload import Clients

LIMIT = 150.0
"""Seconds, virtual, within which everything must have come to its end (V38): faults stop after about fifteen."""


class Outcome:
    """What came of a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self.seed = simulation.scenario.seed
        self.scenario = simulation.scenario
        self.violations = list(simulation.violations)
        self.history = simulation.history
        self.seconds = simulation.now
        self.handled = simulation.handled
        self.left_out: frozenset[str] = frozenset()
        """What was left out of the scenario to make it smaller."""

    @property
    def ok(self) -> bool:
        return not self.violations

    def lines(self) -> list[str]:
        """The history, readable."""
        return [f"{moment:9.4f} {name:8} {text}" for moment, name, text in self.history]

    @property
    def invariant(self) -> str:
        """The first that does not hold."""
        return self.violations[0].partition(" ")[0] if self.violations else ""

    def digest(self) -> str:
        """A hash of the history: same seed, same digest."""
        digest = hashlib.blake2b(digest_size=16)
        for line in self.lines():
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()


class Simulation(World):
    """Everything of one seed."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario.seed + (scenario.chance << 40))
        self.scenario = scenario
        self.history: list[tuple[float, str, str]] = []
        self.violations: list[str] = []
        self.finished = False
        self.checks = Checks(self)
        self.network = Network(self)
        self.network.on_send = self.checks.sent
        self.database = Server(self, Engine())
        self.database.on_commit = self.checks.commit
        self.database.on_fault = lambda text: self.note("database", text)
        self.broker = Broker(self)
        self.processes: dict[str, Process] = {}
        self.faults = Faults(self)
        self._clients_loop = self.loop("client")
        self._clients_loop.process = _Client(self)
        self.clients = Clients(self)
        self.final = Final(self)

    # --- what others ask ---

    def names(self, kind: str) -> list[str]:
        """Processes of a kind: c, o, e."""
        count = {"c": self.scenario.coordinators, "o": self.scenario.orchestrators, "e": self.scenario.executors}[kind]
        return [f"{kind}{n}" for n in range(count)]

    def stateful(self, schema: str) -> list[Incarnation]:
        """Living processes of a tier with a journal."""
        return [
            one
            for process in self.processes.values()
            if process.kind != "e" and schema_of(process.kind) == schema
            for one in process.all
            if one.alive and "durable" in one.parts
        ]

    def living(self) -> list[Incarnation]:
        return [one for process in self.processes.values() for one in process.all if one.alive]

    def note(self, name: str, text: str) -> None:
        """Writes a line of the history."""
        self.history.append((self.now, name, text))

    def violated(self, invariant: str, text: str) -> None:
        """An invariant does not hold: the simulation ends here."""
        if len(self.violations) < 3:
            self.violations.append(f"{invariant} {text}")
            self.note("VIOLATED", f"{invariant} {text}")
        self.finished = True

    def defect(self, text: str, error: BaseException | None) -> None:
        """The product says of itself that something is wrong."""
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            text += " at " + " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
        self.violated("V40", text)

    def no_loss(self, attempt_id: str, why: str) -> None:
        """An attempt was given up; where executors were left in peace, that must not be."""
        if self.scenario.gentle:
            self.violated("V32", f"{attempt_id} is given up ({why}), although its executor lives and answers")

    # --- the run of it ---

    def play(self) -> Outcome:
        """From the beginning to the verdict."""
        clocks.install(self)
        SimServer.network = self.network
        try:
            self._populate()
            self.faults.plan()
            self._clients_loop.deliver(0.0, self._start_clients)
            self.after(0.5, self._look)
            if not self.run(LIMIT, lambda: self.finished) and not self.violations:
                self.final.unfinished()
            if not self.violations:
                self.final.verdict()
            self.violations += [f"V40 {text}" for text in self.errors]
            return Outcome(self)
        except Violated:
            return Outcome(self)
        finally:
            self._end()

    def _start_clients(self) -> None:
        self._clients_loop.create_task(_call(self.clients.start))

    def _populate(self) -> None:
        scenario = self.scenario
        executors = tuple(self.names("e"))
        orchestrators = tuple(self.names("o"))
        mains: dict[str, Callable[..., Any]] = {name: executor(scenario.slots) for name in executors}
        mains |= {name: orchestrator(executors, nats=scenario.nats) for name in orchestrators}
        mains |= {name: coordinator(orchestrators, nats=scenario.nats, park=scenario.park) for name in self.names("c")}
        for name, main in mains.items():
            process = self.processes[name] = Process(self, name, main)
            process.skew.boot = 1000 + self.random.random() * 100_000
            process.skew.rate = 1 + (self.random.random() - 0.5) * 2e-4
            process.skew.wall = (self.random.random() - 0.5) * 4
            self.at(self.random.random() * 0.2, process.start)

    def _look(self) -> None:
        """Whether everything has come to its end."""
        if (self.now > FAULTS_UNTIL and not self.faults.open and self.final.is_quiet()) or (
            not self.faults.open and not self.clients.open and self.final.is_quiet()
        ):
            self.finished = True
        else:
            self.after(0.2, self._look)

    def _end(self) -> None:
        """Everything is let go, and nothing of it runs any more."""
        self.over = True
        for loop in self.loops:
            loop.dead = True
        asyncio._set_running_loop(None)
        clocks.remove()


class _Client:
    """The clients' process."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.name = "client"
        self.skew = clocks.Skew()
        self.parts: dict[str, Any] = {}


async def _call(function: Callable[[], None]) -> None:
    function()


def prepare(*, verbose: bool = False) -> None:
    """Once per interpreter."""
    standins.install(verbose=verbose)
    sys.unraisablehook = _unraisable
    sys.set_asyncgen_hooks(finalizer=_finalize)
    warnings.simplefilter("ignore")
    gc.collect()
    gc.freeze()
    gc.disable()  # Worlds end with processes in the middle of things; when their remains are freed must not depend on anything: see `sweep`.


def sweep() -> None:
    """Frees what past worlds left."""
    gc.collect()


def play(scenario: Scenario) -> Outcome:
    """One simulation."""
    return Simulation(scenario).play()


def _finalize(generator: Any) -> None:
    """An async generator that was left is closed by its loop, as asyncio's loops do."""
    loop = asyncio._get_running_loop()
    if loop is not None and not loop.dead:  # type: ignore[attr-defined]
        loop.call_soon(loop.create_task, generator.aclose())


def _unraisable(_: Any) -> None:
    """What belonged to processes that died complains as it is freed."""
