"""Every product with the settings it did best with, and how its servers and loads are started: fresh, empty, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tierflow_testing import children
from tierflow_testing.auditor import audit
from tierflow_testing.ports import free_port
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.stack import Stack, StackOptions

from benchmarks.peers.install import ROOT, python_of, restate_server
from benchmarks.peers.load import Load

START_PATIENCE = 60.0
EVERYTHING = ("w1", "w2", "w3", "w3big")


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a product, and the workloads that it is good at."""

    label: str
    operations: Sequence[str] = EVERYTHING
    processes: int = 1
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Running:
    """A product that runs: pids of its servers by name, its loads, and what is to be checked when the measurement is over."""

    servers: dict[str, int]
    loads: list[Load]
    check: Callable[[], list[str]] = list

    def processes(self) -> dict[str, int]:
        """Everything that takes part."""
        return {**self.servers, **{f"load-{number}": load.pid for number, load in enumerate(self.loads)}}


Start = Callable[[contextlib.ExitStack, pathlib.Path, Variant], Running]


@dataclass(frozen=True, slots=True)
class Product:
    """A product under test."""

    name: str
    start: Start
    variants: Sequence[Variant]


def start_tierflow(stack: contextlib.ExitStack, directory: pathlib.Path, _: Variant) -> Running:
    """All three tiers, Postgres and NATS; afterwards the auditor reads everything that was stored and published."""
    system = stack.enter_context(Stack(directory, StackOptions(slots=1024)))
    loads = _loads(stack, pathlib.Path(sys.executable), "tierflow", [{"address": system.address}], directory)
    servers = {service.name: service.pid for service in system.services}
    servers |= {"postgres": system.postgres.process_id, "nats": system.nats.process_id}

    def check() -> list[str]:
        report = asyncio.run(audit(system.database_url, system.nats.url, settled=True))
        return [str(problem) for problem in report.problems]

    return Running(servers, loads, check)


def start_restate(stack: contextlib.ExitStack, directory: pathlib.Path, variant: Variant) -> Running:
    """Its server with fsync as it comes, one service process, and a load over HTTP."""
    ports = [free_port() for _ in range(4)]
    node, ingress, admin, service = (f"127.0.0.1:{port}" for port in ports)
    config = directory / "restate.toml"
    config.write_text(
        f'base-dir = "{directory / "restate"}"\ncluster-name = "bench"\nlisten-mode = "tcp"\nbind-ip = "127.0.0.1"\nbind-port = {ports[0]}\n'
        f'default-num-partitions = {variant.options["partitions"]}\ndisable-telemetry = true\nlog-filter = "warn"\n'
        f"[ingress]\nbind-port = {ports[1]}\n[admin]\nbind-port = {ports[2]}\n"
    )
    python = python_of("restate")
    programs = {
        "server": [str(restate_server()), "-c", str(config), "--no-logo"],
        "service": [str(python), "-m", "benchmarks.peers.restate_service", str(ports[3])],
    }
    servers = {}
    for name, command in programs.items():
        process = children.spawn(command, log=directory / f"{name}.log", directory=ROOT)
        stack.callback(children.end, process, signal.SIGTERM, 15.0)
        servers[name] = process.pid
    for address in (node, ingress, admin, service):
        _wait_for(address)
    _post(f"http://{admin}/deployments", {"uri": f"http://{service}"})
    _post(f"http://{ingress}/Bench/w1", 0)  # once it knows the service, all its partitions are up
    return Running(servers, _loads(stack, python, "restate", [{"ingress": f"http://{ingress}"}], directory))


def _start_with_postgres(name: str) -> Start:
    """How a product starts that is a library: a Postgres, and processes that are engine and load in one."""

    def start(stack: contextlib.ExitStack, directory: pathlib.Path, variant: Variant) -> Running:
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        common = {"database_url": postgres.create_database("bench"), **variant.options}
        given = [{**common, "number": number, "prepare": not number} for number in range(variant.processes)]
        loads = _loads(stack, python_of(name), name, given[:1], directory)  # the first makes the tables
        loads += _loads(stack, python_of(name), name, given[1:], directory)
        return Running({"postgres": postgres.process_id}, loads)

    return start


def _loads(
    stack: contextlib.ExitStack,
    python: pathlib.Path,
    name: str,
    settings: Sequence[dict[str, Any]],
    directory: pathlib.Path,
) -> list[Load]:
    loads = []
    for given in settings:
        log = directory / f"load-{given.get('number', 0)}.log"
        loads.append(Load(python, f"benchmarks.peers.{name}_load", given, log=log))
        stack.callback(loads[-1].close)
    for load in loads:
        load.answer()
    return loads


def _wait_for(address: str) -> None:
    host, _, port = address.rpartition(":")
    until = time.monotonic() + START_PATIENCE
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _post(url: str, body: object) -> None:
    """Posts JSON, again until it is accepted."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    until = time.monotonic() + START_PATIENCE
    while True:
        try:
            urllib.request.urlopen(request, timeout=START_PATIENCE).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


_DBOS = {"threads": 8, "pool": 20}
_LANGGRAPH = {"savers": 16, "pool": 16}
_CHAINS, _FANS = ("w1", "w2"), ("w3", "w3big")

PRODUCTS = {
    product.name: product
    for product in [
        Product("tierflow", start_tierflow, [Variant("1 of each service")]),
        Product(
            "restate",
            start_restate,
            [
                Variant("1 partition", ("w1", "w2", "w3"), options={"partitions": 1}),
                Variant("4 partitions", _FANS, options={"partitions": 4}),
                Variant("24 partitions (default)", _CHAINS, options={"partitions": 24}),
            ],
        ),
        Product(
            "dbos",
            _start_with_postgres("dbos"),
            [
                Variant("2 processes", _CHAINS, processes=2, options=_DBOS),
                Variant("1 process", _FANS, options=_DBOS),
            ],
        ),
        Product(
            "procrastinate",
            _start_with_postgres("procrastinate"),
            [Variant("1 process, 64 at once", options={"concurrency": 64, "pool": 20})],
        ),
        Product(
            "langgraph",
            _start_with_postgres("langgraph"),
            [
                Variant("2 processes", _CHAINS, processes=2, options=_LANGGRAPH),
                Variant("1 process", _FANS, options=_LANGGRAPH),
            ],
        ),
    ]
}
