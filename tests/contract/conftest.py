"""One running system for the contract tests, with handlers that say what reached them."""

import pathlib
from collections.abc import Iterator

import pytest
from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.stack import Stack, StackOptions

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def system(
    postgres_server: EmbeddedPostgres,
    migrated_template: str,
    server_directory: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """One of each tier. Tests find what is theirs by ids, and count only what must not grow."""
    options = StackOptions(
        handlers=("contract_handlers",),
        executor_environment={"PYTHONPATH": str(HERE)},
        database="contract",
        template=migrated_template,
    )
    with EmbeddedNats(server_directory / "contract-nats") as nats:
        stack = Stack(tmp_path_factory.mktemp("contract"), options, postgres=postgres_server, nats=nats)
        with stack:
            yield stack
        postgres_server.drop_database(options.database)
