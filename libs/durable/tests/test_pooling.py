"""Poolers between a service and Postgres (Q30)."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator

import asyncpg
import pytest
from tierflow_durable.migrations import check_version
from tierflow_durable.pooling import check_direct
from tierflow_runtime.values import FailureError
from tierflow_testing.ports import free_port
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.waiting import eventually

Pooler = Callable[..., str]
SET = "connect_query='SET search_path = toy; SET jit = off'"
IGNORES = "ignore_startup_parameters = search_path, jit"


@pytest.fixture
def pooler(postgres_server: EmbeddedPostgres, toy: str, tmp_path: pathlib.Path) -> Iterator[Pooler]:
    """`pooler(mode, database="…", options="…")`: the address of the same database through PgBouncer."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str, *, database: str = "", options: str = "") -> str:
        port = free_port()
        file = tmp_path / f"{len(started)}.ini"
        file.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres_server.port} user=tierflow {database}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n{options}\n"
        )
        for each in (file, *file.parents):
            if os.geteuid() == 0 and each.is_relative_to(tmp_path.parent.parent):
                each.chmod(each.stat().st_mode | 0o055)
        as_other = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (tmp_path / "pgbouncer.log").open("ab") as log:
            started.append(subprocess.Popen([program, *as_other, str(file)], stdout=log, stderr=log))
        return toy.replace(f":{postgres_server.port}/", f":{port}/")

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


async def listens(url: str) -> None:
    """Waits until the pooler is there."""
    port = int(url.split("@")[-1].split("/")[0].rsplit(":", 1)[1])

    async def look() -> bool:
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0

    await eventually(look)


@pytest.mark.parametrize(
    ("line", "options", "words"),
    [
        ("", "", "refuses the settings"),
        ("", IGNORES, "drops the settings"),
        (SET, IGNORES, "in transaction mode"),
        (SET, IGNORES + "\nmin_pool_size = 4\nserver_round_robin = 1", "in transaction mode"),
    ],
)
async def test_a_pooler_in_transaction_mode_is_refused(pooler: Pooler, line: str, options: str, words: str) -> None:
    """Q30: typed, with what to do, whether it refuses settings, drops them, or has them by itself and shares servers; not taken for weather that passes."""
    url = pooler("transaction", database=line, options=options)
    await listens(url)
    with pytest.raises(FailureError, match=words) as refused:
        await check_version(url, "toy")
    assert refused.value.failure.code == "CONFIGURATION"
    assert "connect to Postgres directly" in refused.value.failure.message


async def test_sessions_of_ones_own_are_enough(pooler: Pooler, toy: str) -> None:
    """Q30: Postgres itself, and a pooler that gives each session a server and what it was opened with, pass."""
    await check_direct(toy, "toy")
    url = pooler("session", database=SET, options=IGNORES)
    await listens(url)
    await check_direct(url, "toy")


async def test_what_a_shared_session_breaks(pooler: Pooler) -> None:
    """Q30: why it is refused: the lock of one session is another's, who may take it again although it is held."""
    url = pooler("transaction", database=SET, options=IGNORES)
    await listens(url)
    one, other = await asyncpg.connect(url), await asyncpg.connect(url)
    await one.execute("SELECT pg_advisory_lock(42)")
    await other.execute("DO $$ BEGIN IF NOT pg_try_advisory_lock(42) THEN RAISE EXCEPTION 'held'; END IF; END $$")
    one.terminate()
    other.terminate()


async def test_a_database_that_is_away_is_no_pooler(toy: str) -> None:
    """Q30, R5: whoever cannot look is told so by the error of the connection, and may wait."""
    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        await check_direct(f"postgresql://tierflow@127.0.0.1:{free_port()}/none", "toy")
