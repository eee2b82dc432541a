"""pytest fixtures: real servers for every test, found by pytest without configuration.

Each pytest process (each xdist worker) has servers of its own. Everything ends with the process, whichever way it ends.
"""

import itertools
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.processes import run_once
from tierflow_testing.stack import Stack, StackOptions, migrate

_numbers = itertools.count(1)


def of_closed_loop(record: logging.LogRecord) -> bool:
    """Whether a line only says that a call of gRPC ended after the event loop that had made it.

    gRPC has one queue of completions for all loops of a process, and each test has a loop of its own: what a test left open is completed while the next
    one runs, and dropped there with an error. Each completion wakes the queue by itself, so that no other is held up.
    """
    error = record.exc_info[1] if record.exc_info else None
    return (
        isinstance(error, RuntimeError)
        and str(error) == "Event loop is closed"
        and "PollerCompletionQueue._handle_events" in record.getMessage()
    )


def _other_than_of_closed_loop(record: logging.LogRecord) -> bool:
    return not of_closed_loop(record)


def pytest_configure() -> None:
    """Keeps what gRPC says of loops that are closed out of the log, to the end of the process: a pytest run within a test would take it away from its host."""
    logging.getLogger("asyncio").addFilter(_other_than_of_closed_loop)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[pathlib.Path]:
    """A directory for the servers of this session; pytest's own is closed to the user that Postgres runs as."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tierflow-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(server_directory: pathlib.Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres 18 for the session. A test that stops or kills it takes `own_postgres` instead."""
    with EmbeddedPostgres(server_directory / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def nats_server(server_directory: pathlib.Path) -> Iterator[EmbeddedNats]:
    """A NATS server with JetStream for the session. A test that stops or kills it takes `own_nats` instead."""
    with EmbeddedNats(server_directory / "nats") as server:
        yield server


@pytest.fixture
def new_database(postgres_server: EmbeddedPostgres) -> Iterator[Callable[..., str]]:
    """Makes databases: `new_database(template="template1")` returns the address for the plain role; dropped after the test."""
    made: list[str] = []

    def make(template: str = "template1") -> str:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        made.append(name)
        return postgres_server.create_database(name, template=template)

    yield make
    for name in made:
        postgres_server.drop_database(name)


@pytest.fixture
def database(new_database: Callable[..., str]) -> str:
    """The address of an empty database, for the plain role that owns it (no superuser, Q30)."""
    return new_database()


@pytest.fixture
def nats_url(nats_server: EmbeddedNats) -> str:
    """The address of a NATS server without any stream."""
    if any(nats_server.store.glob("jetstream/*")):
        nats_server.wipe()
    return nats_server.url


@pytest.fixture
def own_postgres(server_directory: pathlib.Path) -> Iterator[EmbeddedPostgres]:
    """A Postgres 18 for one test, which may kill it."""
    directory = server_directory / f"postgres-{next(_numbers)}"
    with EmbeddedPostgres(directory) as server:
        yield server
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def own_nats(server_directory: pathlib.Path) -> Iterator[EmbeddedNats]:
    """A NATS server for one test, which may kill it."""
    with EmbeddedNats(server_directory / f"nats-{next(_numbers)}") as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres, server_directory: pathlib.Path) -> str:
    """The name of a database with the schemas of both tiers; to be copied, not used."""
    name = "template_stack"
    migrate(postgres_server.create_database(name), server_directory)
    return name


@pytest.fixture
def migrated_database(new_database: Callable[..., str], migrated_template: str) -> str:
    """The address of a database with the schemas of both tiers and no rows."""
    return new_database(migrated_template)


@pytest.fixture(scope="session")
def template_of(postgres_server: EmbeddedPostgres, server_directory: pathlib.Path) -> Callable[[str], str]:
    """`template_of("tierflow_orchestrator")`: the name of a database with the schema of that service alone, for `new_database`."""

    def make(module: str) -> str:
        name = f"template_{module}"
        if not postgres_server.has_database(name):
            url, log = postgres_server.create_database(name), server_directory / f"{name}.log"
            code = run_once(module, "migrate", environment={"TIERFLOW_DATABASE_URL": url}, log=log).wait()
            assert code == 0, log.read_text()
        return name

    return make


@pytest.fixture
def make_stack(
    request: pytest.FixtureRequest, server_directory: pathlib.Path, tmp_path: pathlib.Path
) -> Iterator[Callable[..., Stack]]:
    """Starts stacks: `make_stack(orchestrators=2, handlers=["my_handlers"])`, with the fields of `StackOptions`.

    They use the servers of the session with a database of their own. With `own_servers=True` they have servers of their own, which the test may
    kill; with `start=False` the stack is only prepared. All are stopped after the test, their logs stay in its `tmp_path`.
    """
    stacks: list[Stack] = []

    def make(*, own_servers: bool = False, start: bool = True, **fields: object) -> Stack:
        number = next(_numbers)
        options = StackOptions(**fields)  # type: ignore[arg-type]
        if own_servers:
            stack = Stack(server_directory / f"stack-{number}", options)
        else:
            postgres: EmbeddedPostgres = request.getfixturevalue("postgres_server")
            template = "" if options.modules else request.getfixturevalue("migrated_template")
            options = replace(options, database=f"stack_{os.getpid()}_{number}", template=template)
            request.getfixturevalue("nats_url")
            stack = Stack(
                tmp_path / f"stack-{number}", options, postgres=postgres, nats=request.getfixturevalue("nats_server")
            )
        stacks.append(stack)
        if start:
            stack.start()
        return stack

    yield make
    for stack in reversed(stacks):
        stack.stop(patience=10.0)
        if stack.directory.is_relative_to(server_directory):
            shutil.rmtree(stack.directory, ignore_errors=True)
        else:
            stack.postgres.drop_database(stack.options.database)


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """One of everything, running."""
    return make_stack()
