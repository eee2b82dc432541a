"""pytest fixtures: real servers for every test, found by pytest without configuration.

Each pytest process (each xdist worker) has servers of its own. Everything ends with the process, whichever way it ends.
"""

import itertools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.postgres import EmbeddedPostgres

_numbers = itertools.count(1)


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
