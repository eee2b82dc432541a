"""A real Postgres 18 on the loopback interface, out of a wheel: made, started, stopped, killed and revived in milliseconds.

It is as durable as a server in production (fsync and synchronous_commit are on): tests of durability and measurements would mean nothing otherwise.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import threading
from collections.abc import Mapping

from tierflow_testing import children, postgres_install
from tierflow_testing.errors import DirectoryInUse, DiskFull, PortInUse, StartFailed
from tierflow_testing.ports import free_port, is_free

SUPERUSER = "postgres"
ROLE = "tierflow"
"""The plain role that services and tests log in as: no superuser, owner of its databases only."""

START_TIMEOUT = 60.0
STOP_PATIENCE = 30.0

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_completion_target": "0.9",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "lc_messages": "C",
}


class EmbeddedPostgres:
    """One server with its data directory; it can be started again on the same directory and port, in this process or a later one.

    All methods block (milliseconds to a second) and may be called from any thread.
    """

    def __init__(
        self, directory: pathlib.Path, *, port: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """Prepares, starts nothing.

        Args:
            directory: Holds data and log; made if it does not exist.
            port: A fixed port; a free one if None. The same after each restart.
            settings: Server settings beside or instead of `SETTINGS`.
        """
        self.directory = directory
        self.log = directory / "postgres.log"
        self._fixed = port is not None
        self._port = port or 0
        self._settings = {**SETTINGS, **(settings or {})}
        self._user = postgres_install.run_as()
        self._process: subprocess.Popen[bytes] | None = None
        self._data: pathlib.Path | None = None
        self._lock = threading.RLock()

    @property
    def port(self) -> int:
        """The TCP port of 127.0.0.1; known after the first start."""
        return self._port

    @property
    def process_id(self) -> int:
        """The server's pid; 0 where it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def data(self) -> pathlib.Path:
        """The data directory, in `directory` if the server's user can go there."""
        if self._data is None:
            self._data = self._place() / "data"
        return self._data

    def url(self, database: str = SUPERUSER, role: str = ROLE) -> str:
        """The connection address of a database for a role."""
        return f"postgresql://{role}@127.0.0.1:{self._port}/{database}"

    def admin_url(self, database: str = SUPERUSER) -> str:
        """The connection address of a database for the superuser."""
        return self.url(database, SUPERUSER)

    def start(self) -> None:
        """Makes the data directory if there is none and starts the server; returns when it accepts connections.

        Raises:
            BinariesMissing: The wheel is not installed.
            PortInUse: The fixed port belongs to somebody else.
            DiskFull: No space for the data directory.
            DirectoryInUse: Another living server has the directory.
            StartFailed: Anything else; has the last lines of the log.
        """
        with self._lock:
            if self.running:
                return
            fresh = not (self.data / "PG_VERSION").exists()
            if fresh:
                self._initialise()
            self._refuse_second_server()
            self._start_on_port()
            if fresh:
                self.execute(f"CREATE ROLE {ROLE} LOGIN")

    def stop(self) -> None:
        """Stops the server orderly (clients are disconnected, a checkpoint is written)."""
        with self._lock:
            if self._process is not None:
                children.end(self._process, signal.SIGINT, STOP_PATIENCE)
                self._process = None

    def kill(self) -> None:
        """Ends the postmaster and all its processes at once, as a crash of the machine's memory would; what was committed is on disk."""
        with self._lock:
            if self._process is not None:
                children.kill_tree(self._process)
                self._process = None

    def pause(self) -> None:
        """Freezes the server with all its processes (SIGSTOP): connections stay open and nothing answers."""
        with self._lock:
            if self._process is not None:
                children.signal_tree(self._process, signal.SIGSTOP)

    def resume(self) -> None:
        """Thaws it (SIGCONT)."""
        with self._lock:
            if self._process is not None:
                children.signal_tree(self._process, signal.SIGCONT)

    def restart(self) -> None:
        """Stops if it runs, and starts on the same port."""
        self.stop()
        self.start()

    def create_database(self, name: str, *, template: str = "template1", owner: str = ROLE) -> str:
        """Makes a database (0.06 s) and returns its address for the owner.

        Args:
            name: Its name.
            template: The database to copy; nobody may be connected to it.
            owner: The role that owns it.
        """
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER "{owner}"')
        return self.url(name, owner)

    def drop_database(self, name: str) -> None:
        """Removes a database with everybody connected to it; nothing happens if there is none."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def has_database(self, name: str) -> bool:
        """Whether there is a database of that name."""
        return self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'") == "1"

    def execute(self, statement: str, database: str = SUPERUSER) -> str:
        """Runs one statement as the superuser and returns the rows as text, columns separated by `|`.

        Raises:
            RuntimeError: The server refused it; has its message.
        """
        command = [
            str(postgres_install.programs() / "psql"),
            "-XqtAv",
            "ON_ERROR_STOP=1",
            "-d",
            self.admin_url(database),
            "-c",
            statement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    def __enter__(self) -> "EmbeddedPostgres":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _place(self) -> pathlib.Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._user is None:
            return self.directory
        if not postgres_install.reachable(self.directory, self._user):
            place = postgres_install.readable_place(self.directory, self._user)
            with contextlib.suppress(FileExistsError):
                (self.directory / "postgres").symlink_to(place)
            return place
        place = self.directory / "postgres"
        place.mkdir(mode=0o700, exist_ok=True)
        os.chown(place, self._user.uid, self._user.gid)
        return place

    def _initialise(self) -> None:
        programs = postgres_install.programs()
        command = [
            str(programs / "initdb"),
            "-D",
            str(self.data),
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "--no-sync",
            "--no-instructions",
        ]
        command += ["-E", "UTF8", "--locale=C"]
        mark = self._log_size()
        process = children.spawn(
            command, log=self.log, user=self._user, directory=pathlib.Path("/"), environment=self._environment()
        )
        if process.wait():
            raise self._explained(f"initdb failed for {self.data}", mark)

    def _start_on_port(self) -> None:
        for attempt in range(3):
            if not self._port:
                self._port = free_port()
            elif not is_free(self._port):
                raise PortInUse(f"port {self._port} of 127.0.0.1 is in use by another process")
            try:
                self._spawn()
                return
            except PortInUse:
                if self._fixed or attempt == 2:
                    raise
                self._port = 0

    def _spawn(self) -> None:
        settings = {**self._settings, "port": str(self._port)}
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        (self.data / "postgresql.conf").write_text(text)
        mark = self._log_size()
        self._process = children.spawn(
            [str(postgres_install.programs() / "postgres"), "-D", str(self.data)],
            log=self.log,
            user=self._user,
            directory=pathlib.Path("/"),
            environment=self._environment(),
            death_signal=signal.SIGINT,
        )
        if not children.wait_until(self._ready, self._process, START_TIMEOUT):
            children.kill_tree(self._process)
            self._process = None
            raise self._explained("postgres did not start", mark)
        self._fixed = True

    def _ready(self) -> bool:
        """Whether the postmaster says so in its pid file, as pg_ctl reads it."""
        lines = self._pid_file()
        return (
            len(lines) >= 8
            and self._process is not None
            and lines[0].strip() == str(self._process.pid)
            and lines[7].strip() == "ready"
        )

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _refuse_second_server(self) -> None:
        """A server of an earlier process that is still shutting down is waited for, any other refused."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().isdigit():
            return
        other = int(lines[0])
        if not children.gone(other, "postgres", timeout=STOP_PATIENCE if self._stopping(lines) else 3.0):
            raise DirectoryInUse(f"{self.data} is used by the living server with process id {other}")

    @staticmethod
    def _stopping(lines: list[str]) -> bool:
        return len(lines) >= 8 and lines[7].strip() == "stopping"

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not re.match(r"PG|LC_|LANG", name)}
        return {**kept, "LC_ALL": "C"}

    def _log_size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _explained(self, what: str, mark: int) -> StartFailed:
        said = children.tail(self.log, start=mark)
        kinds: list[tuple[str, type[StartFailed]]] = [
            ("No space left on device", DiskFull),
            ("Disk quota exceeded", DiskFull),
            ("Address already in use", PortInUse),
            ("postmaster.pid", DirectoryInUse),
        ]
        kind = next((kind for text, kind in kinds if text in said), StartFailed)
        return kind(f"{what}; it said:\n{said}")
