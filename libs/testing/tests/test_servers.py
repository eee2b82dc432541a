"""The embedded Postgres and NATS, the real ones."""

import asyncio
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import asyncpg
import nats
import psutil
import pytest
from tierflow_testing import children
from tierflow_testing.errors import DirectoryInUse, PortInUse, StartFailed
from tierflow_testing.nats import EmbeddedNats
from tierflow_testing.postgres import EmbeddedPostgres
from tierflow_testing.waiting import eventually


async def test_database_belongs_to_a_plain_role(database: str) -> None:
    """Q30: everything runs as a role without superuser, in a database of its own."""
    connection = await asyncpg.connect(database)
    row = await connection.fetchrow(
        "SELECT rolsuper, rolcreatedb, rolbypassrls, current_user FROM pg_roles WHERE rolname = current_user"
    )
    await connection.execute("CREATE SCHEMA mine; CREATE TABLE mine.t (a int)")
    await connection.close()
    assert row is not None
    assert tuple(row) == (False, False, False, "tierflow")


async def test_settings_are_durable(postgres_server: EmbeddedPostgres) -> None:
    """O2: the server of the tests is as durable as one in production, and reads no Unix socket."""
    connection = await asyncpg.connect(postgres_server.admin_url())
    values = [
        await connection.fetchval(f"SHOW {name}")
        for name in ("fsync", "synchronous_commit", "full_page_writes", "jit", "server_encoding")
    ]
    version = await connection.fetchval("SHOW server_version_num")
    sockets = await connection.fetchval("SHOW unix_socket_directories")
    await connection.close()
    assert values == ["on", "on", "on", "off", "UTF8"]
    assert version.startswith("18")
    assert sockets == ""


async def test_databases_are_apart(new_database) -> None:
    """O2: a database per test, copied from a template."""
    first = new_database()
    connection = await asyncpg.connect(first)
    await connection.execute("CREATE TABLE t (a int)")
    await connection.close()
    copy, empty = new_database(template=first.rsplit("/", 1)[1]), new_database()
    found = []
    for url in (copy, empty):
        connection = await asyncpg.connect(url)
        found.append(await connection.fetchval("SELECT to_regclass('t')::text"))
        await connection.close()
    assert found == ["t", None]


async def test_committed_rows_survive_a_kill(own_postgres: EmbeddedPostgres) -> None:
    """O2, Lesson 29: SIGKILL of the server and a restart on the same port; what was committed is there."""
    connection = await asyncpg.connect(own_postgres.url())
    await connection.execute("CREATE TEMP TABLE warm (a int)")
    own_postgres.create_database("kept")
    port = own_postgres.port
    own_postgres.kill()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.execute("SELECT 1")
    assert not own_postgres.running
    own_postgres.start()
    assert own_postgres.port == port
    assert own_postgres.has_database("kept")


def test_second_server_on_a_directory_is_refused(own_postgres: EmbeddedPostgres) -> None:
    """O2: a typed error, not a damaged directory."""
    with pytest.raises(DirectoryInUse, match=str(own_postgres._process.pid)):
        EmbeddedPostgres(own_postgres.directory).start()


def test_directory_is_kept_between_starts(own_postgres: EmbeddedPostgres) -> None:
    """O2: another object, as another process would, starts from the same directory."""
    own_postgres.create_database("kept")
    own_postgres.stop()
    with EmbeddedPostgres(own_postgres.directory) as again:
        assert again.has_database("kept")


@pytest.mark.parametrize("server", [EmbeddedPostgres, EmbeddedNats])
def test_taken_port_is_named(server, server_directory: pathlib.Path) -> None:
    """O2: a fixed port that belongs to somebody else is a typed error with the number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            server(server_directory / f"taken-{server.__name__}", port=port).start()


def test_bad_setting_is_explained(server_directory: pathlib.Path) -> None:
    """O2: the error has what Postgres said."""
    server = EmbeddedPostgres(server_directory / "bad", settings={"no_such_setting": "1"})
    with pytest.raises(StartFailed, match="no_such_setting"):
        server.start()


def test_unreachable_directory_is_replaced(server_directory: pathlib.Path) -> None:
    """O2: below a directory of mode 700, as a home directory is, the server starts as well."""
    closed = server_directory / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "postgres") as server:
        assert server.execute("SELECT 1") == "1"
        place = server.data
    subprocess.run(["rm", "-r", str(place)], check=True)


def test_children_die_with_their_parent(server_directory: pathlib.Path) -> None:
    """O2: SIGKILL of the process that started the servers leaves nothing behind."""
    program = (
        "import pathlib, sys, signal\n"
        "from tierflow_testing.postgres import EmbeddedPostgres\n"
        "from tierflow_testing.nats import EmbeddedNats\n"
        "d = pathlib.Path(sys.argv[1])\n"
        "p, n = EmbeddedPostgres(d / 'p'), EmbeddedNats(d / 'n')\n"
        "p.start(); n.start()\n"
        "print(p._process.pid, n._process.pid, flush=True)\n"
        "signal.pause()\n"
    )
    directory = server_directory / "orphans"
    with subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(signal.SIGKILL)
    assert all(children.gone(pid, "", timeout=20) for pid in pids)


def test_children_outlive_the_thread_that_asked(server_directory: pathlib.Path) -> None:
    """O2: a server started from a thread that ends goes on; the kernel's death signal is per thread."""
    server = EmbeddedNats(server_directory / "threaded")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    assert server._process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        server._process.wait(0.2)
    server.stop()


def test_stop_leaves_no_process(server_directory: pathlib.Path) -> None:
    """O2: nothing is left behind by an orderly end."""
    server = EmbeddedPostgres(server_directory / "ended")
    server.start()
    assert server._process is not None
    family = psutil.Process(server._process.pid).children(recursive=True)
    server.stop()
    assert family
    assert all(children.gone(member.pid, "", timeout=5) for member in family)


async def test_streams_survive_a_kill(own_nats: EmbeddedNats) -> None:
    """O2: JetStream's file store is real; kill, restart on the same port, the message is there; wiped, it is not."""
    client = await nats.connect(own_nats.url)
    stream = client.jetstream()
    await stream.add_stream(name="S", subjects=["s.>"])
    await stream.publish("s.a", b"1")
    await client.close()
    own_nats.kill()
    own_nats.start()
    client = await nats.connect(own_nats.url)
    info = await client.jetstream().stream_info("S")
    assert info.state.messages == 1
    await client.close()
    own_nats.wipe()
    client = await nats.connect(own_nats.url)
    assert await client.jetstream().streams_info() == []
    await client.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_nats_url_has_no_streams(nats_url: str, turn: int) -> None:
    """O2: each test finds an empty JetStream, whatever the one before left."""
    client = await nats.connect(nats_url)
    assert await client.jetstream().streams_info() == []
    await client.jetstream().add_stream(name=f"LEFT{turn}", subjects=["left.>"])
    await client.close()


async def test_eventually_shows_the_last_answer() -> None:
    """O2: waiting for a fact ends with the fact or says what it saw."""
    answers = iter([0, 0, 7])
    assert await eventually(lambda: next(answers), 5) == 7
    with pytest.raises(AssertionError, match="the moon; last answer None"):
        await eventually(lambda: asyncio.sleep(0), 0.02, message="the moon")
