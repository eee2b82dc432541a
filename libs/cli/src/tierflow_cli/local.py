"""Commands for this machine: `dev` and `executor` start processes, `audit` and `version` look at what is there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierflow_cli.connection import FAILED, INVALID, UNREACHABLE, refuse

if TYPE_CHECKING:
    from tierflow_testing.stack import Stack

DATA = Path(".tierflow/dev")
MARK = ".made-by-tierflow"
"""In every data directory that these commands have made: only such ones are emptied."""
ADDRESSES = "addresses.json"
"""In the data directory while the stack runs: where everything is, for `audit` and for scripts."""
PORT = 7701
GUESTS = 3
"""Ports after those of the services at which `dev` looks for executors that `tierflow executor` starts."""


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), default=DATA, show_default=True, help="Where data and logs are kept."
)
@click.option("--fresh", is_flag=True, help="Throw away what is stored there first.")
@click.option("--handlers", multiple=True, metavar="MODULE", help="A Python module with handlers; may be given again.")
@click.option(
    "--port",
    type=int,
    default=PORT,
    show_default=True,
    help="Of the coordinator; orchestrator and executor take the next two, executors of your own the three after those.",
)
@click.option(
    "--slots", type=click.IntRange(1), default=64, show_default=True, help="Steps that the executor performs at once."
)
def dev(data: Path, fresh: bool, handlers: tuple[str, ...], port: int, slots: int) -> None:
    """Start everything on this machine and keep it running: Postgres, NATS and the three services. Ctrl-C ends it all.

    Services that die are started again. What was stored is there at the next start.
    """
    from tierflow_testing.stack import Stack, StackOptions

    data = data.absolute()
    take(data, fresh=fresh)
    options = StackOptions(
        handlers=handlers,
        slots=slots,
        guests=[f"127.0.0.1:{number}" for number in _guests(port)],
        supervised=True,
        environment={"PYTHONPATH": python_path()},
    )
    stack = Stack(data, options)
    for service, number in zip(
        (*stack.coordinators, *stack.orchestrators, *stack.executors), range(port, port + 3), strict=True
    ):
        service.port = number
    _refuse_taken_ports(stack)
    started = time.monotonic()
    click.echo(f"Starting everything; data and logs: {data}")
    start(stack)
    try:
        _say_where(stack, time.monotonic() - started)
        _keep(stack)
    finally:
        click.echo("\nStopping: services drain, then the servers stop.")
        (data / ADDRESSES).unlink(missing_ok=True)
        stack.stop()
        click.echo(f"Stopped. What was stored is in {data} and there again at the next start; --fresh throws it away.")


def _guests(port: int) -> range:
    """Ports for executors that are started beside a stack whose coordinator has this port."""
    return range(port + 3, port + 3 + GUESTS)


def take(data: Path, *, fresh: bool) -> None:
    """Makes a directory ours, empty if that is wished. What somebody else has put somewhere is never thrown away."""
    mark = data / MARK
    if data.exists() and any(data.iterdir()) and not mark.exists():
        refuse(f"{data} is not empty and was not made by this command; name another directory with --data.", INVALID)
    if fresh:
        elsewhere = data / "postgres/postgres"  # where the server's user cannot come here, its data is somewhere it can
        if elsewhere.is_symlink():
            shutil.rmtree(elsewhere.resolve(), ignore_errors=True)
        shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, exist_ok=True)
    mark.touch()


def python_path(*directories: Path) -> str:
    """Where executors look for modules: the directories, the current one, and ours."""
    return os.pathsep.join([*map(str, directories), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])


def start(stack: Stack) -> None:
    """Starts a stack; ends the command with what was wrong if it does not come up."""
    from tierflow_testing.errors import DirectoryInUse, StartFailed

    try:
        stack.start()
    except DirectoryInUse as used:
        refuse(f"{used}; perhaps `tierflow dev` runs already. Name another directory with --data.", UNREACHABLE)
    except StartFailed as failed:
        refuse(str(failed), UNREACHABLE)
    (stack.directory / ADDRESSES).write_text(json.dumps(addresses(stack), indent=2))


def addresses(stack: Stack) -> dict[str, str]:
    """Where everything of a stack is."""
    services = {service.name: service.address for service in stack.services}
    return {**services, "database_url": stack.database_url, "nats_url": stack.nats.url}


def _refuse_taken_ports(stack: Stack) -> None:
    from tierflow_testing.ports import is_free

    for service in stack.services:
        if not is_free(service.port):
            refuse(
                f"Port {service.port} ({service.name}) is taken; perhaps `tierflow dev` runs already. Choose others with --port.",
                UNREACHABLE,
            )


def _say_where(stack: Stack, seconds: float) -> None:
    from tierflow_cli import text

    click.echo(f"Ready in {text.span(seconds)}.\n")
    text.fields([(name, address) for name, address in addresses(stack).items()], indent=2)
    prefix = "" if stack.address == "127.0.0.1:7701" else f"TIERFLOW_ADDRESS={stack.address} "
    click.echo("\nIn another terminal:")
    for command in ("executors", "submit FLOW.yaml -i name=Ada --watch", "runs", "queue"):
        click.echo(f"  {prefix}{text.program()} {command}")
    guest = f" --port {_guests(stack.coordinators[0].port)[0]}" if prefix else ""
    click.echo(f"  {text.program()} executor --handlers MODULE{guest}")
    click.echo(f"  grpcurl -plaintext {stack.address} list\n")
    click.echo(
        text.dim(
            f"Development mode: open to everybody on this machine. Logs: {stack.directory / 'logs'}. Ctrl-C ends it all."
        )
    )


def _keep(stack: Stack) -> None:
    """Returns when the command is told to end; says meanwhile when a service was started again."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    restarts = {service.name: 0 for service in stack.services}
    while not ended.wait(0.5):
        for service in stack.services:
            if service.restarts > restarts[service.name]:
                restarts[service.name] = service.restarts
                click.echo(f"{service.name} had died and was started again; why: {service.log}")


@click.command()
@click.option(
    "--handlers",
    multiple=True,
    required=True,
    metavar="MODULE",
    help="A Python module with handlers; may be given again.",
)
@click.option(
    "--port",
    type=int,
    help="Default: the first that is free of 7703, where orchestrators look, and 7704 to 7706, where `tierflow dev` also looks.",
)
@click.option("--name", help="Stable over restarts; else the host's name.")
@click.option("--slots", type=click.IntRange(1), help="Steps that it performs at once.")
def executor(handlers: tuple[str, ...], port: int | None, name: str | None, slots: int | None) -> None:
    """Perform steps with the handlers of Python modules, in the foreground. Modules are looked for in the current directory too.

    Orchestrators have to know its address (TIERFLOW_EXECUTORS); those of `tierflow dev` do. Ctrl-C drains: what runs is finished, nothing new is taken.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(),
        "TIERFLOW_HANDLERS": ",".join(handlers),
    }
    if port is not None:
        environment["TIERFLOW_PORT"] = str(port)
    elif "TIERFLOW_PORT" not in environment:
        environment["TIERFLOW_PORT"] = str(_executor_port())
    if name:
        environment["TIERFLOW_NAME"] = name
    if slots:
        environment["TIERFLOW_SLOTS"] = str(slots)
    os.execve(sys.executable, [sys.executable, "-m", "tierflow_executor"], environment)


def _executor_port() -> int:
    """The executor's usual port, else one beside a `tierflow dev` that has taken it."""
    from tierflow_testing.ports import is_free

    usual = PORT + 2
    free: int | None = next((port for port in (usual, *_guests(PORT)) if is_free(port)), None)
    if free is None:
        refuse(f"Ports {usual} to {usual + GUESTS} are taken. Choose another with --port.", UNREACHABLE)
    if free != usual:
        click.echo(
            f"Port {usual} is taken; listening on {free}, where the orchestrator of `tierflow dev` looks.", err=True
        )
    return free


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), default=DATA, show_default=True, help="Of a running `tierflow dev`."
)
@click.option("--database-url", envvar="TIERFLOW_DATABASE_URL", help="Instead: the database of the services.")
@click.option("--nats-url", envvar="TIERFLOW_NATS_URL", help="Instead: the event stream.")
@click.option("--settled", is_flag=True, help="Nothing is under way: also demand that nothing is left to do.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def audit(data: Path, database_url: str | None, nats_url: str | None, settled: bool, as_json: bool) -> None:
    """Check everything that is stored against the numbered invariants: nothing lost, nothing done twice, nothing spent that was not granted."""
    import asyncio

    if database_url is None:
        known = _known(data)
        database_url, nats_url = known["database_url"], nats_url or known["nats_url"]
    from tierflow_cli.auditing import audited

    sys.exit(0 if asyncio.run(audited(database_url, nats_url or "", settled=settled, as_json=as_json)) else FAILED)


def _known(data: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads((data / ADDRESSES).read_text())
    except FileNotFoundError:
        refuse(
            f"Nothing runs in {data}. Start it with `tierflow dev`, or say where it runs: --data, or --database-url and --nats-url.",
            UNREACHABLE,
        )
    return known


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def version(as_json: bool) -> None:
    """Show the versions in use, and whether services that are started here run compiled."""
    import platform
    from importlib import metadata, util

    found = {"tierflow": metadata.version("tierflow-cli"), "python": platform.python_version()}
    found |= {name: metadata.version(name) for name in ("grpcio", "protobuf")}
    spec = util.find_spec("tierflow_runtime.form")
    found["services"] = "interpreted" if spec is None or str(spec.origin).endswith(".py") else "compiled"
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, number in found.items():
        click.echo(f"{name} {number}")
