"""The services as real processes: start, wait until they serve, kill, stop, freeze, start again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from tierflow_testing import children
from tierflow_testing.errors import StartFailed
from tierflow_testing.ports import free_port

READY_TIMEOUT = 60.0
STOP_PATIENCE = 60.0
RESTART_DELAY = 0.2


class ServiceProcess:
    """One instance of a service, `python -m module`, on ports of its own that it keeps over restarts.

    Everything it writes goes to `log`. A supervised one is started again under the same name whenever it ends without having been stopped, as
    Kubernetes would do. All methods block and may be called from any thread.
    """

    def __init__(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str] | None = None,
        *,
        directory: pathlib.Path,
        supervised: bool = False,
    ) -> None:
        """Prepares, starts nothing.

        Args:
            name: The instance's name; stays over restarts.
            module: What `python -m` runs.
            environment: `TIERFLOW_*` and other variables for it. Ours are passed on, without our own `TIERFLOW_*`.
            directory: Where the log file goes; made if it does not exist.
            supervised: Start it again when it dies.
        """
        self.name = name
        self.module = module
        self.log = directory / f"{name}.log"
        self.supervised = supervised
        self.restarts = 0
        self.port, self.admin_port, self.metrics_port = free_port(), free_port(), free_port()
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = 0
        self._wanted = False
        self._lock = threading.RLock()

    @property
    def address(self) -> str:
        """Where it serves, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def admin_address(self) -> str:
        """Where it serves channelz, `host:port`."""
        return f"127.0.0.1:{self.admin_port}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus would read."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            RuntimeError: It was never started.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the last process ended (negative: by that signal); None while it lives or before it began."""
        return self._process.poll() if self._process else None

    @property
    def ready(self) -> bool:
        """Whether the process that lives now has said that it serves."""
        return self.running and any(line.get("event") == "ready" for line in self.lines(since_start=True))

    def environment(self) -> dict[str, str]:
        """All variables that the process gets."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIERFLOW_")}
        own = {
            "TIERFLOW_NAME": self.name,
            "TIERFLOW_HOST": "127.0.0.1",
            "TIERFLOW_PORT": str(self.port),
            "TIERFLOW_ADVERTISE": self.address,
            "TIERFLOW_ADMIN_PORT": str(self.admin_port),
            "TIERFLOW_METRICS_PORT": str(self.metrics_port),
        }
        return {**inherited, **own, **self._environment}

    def configure(self, **variables: str) -> None:
        """Changes variables; they count from the next start on."""
        self._environment.update(variables)

    def start(self, timeout: float = READY_TIMEOUT) -> None:
        """Starts it and waits until it serves.

        Args:
            timeout: Seconds.

        Raises:
            StartFailed: It ended or was not ready in time; has the last lines of its log.
        """
        self.spawn()
        self.wait_ready(timeout)

    def spawn(self) -> None:
        """Starts it without waiting; nothing happens if it runs."""
        with self._lock:
            self._wanted = True
            if self.running:
                return
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._mark = self.log.stat().st_size if self.log.exists() else 0
            self._process = children.spawn(
                [sys.executable, "-m", self.module], log=self.log, environment=self.environment()
            )
            if self.supervised:
                threading.Thread(
                    target=self._supervise, args=(self._process,), daemon=True, name=f"supervise-{self.name}"
                ).start()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until a started process serves; arguments and errors as in `start`."""
        process = self._process
        if process is None or not children.wait_until(lambda: self.ready, process, timeout):
            state = (
                "was not started"
                if process is None
                else "is not ready"
                if self.running
                else f"ended with code {self.exit_code}"
            )
            raise StartFailed(
                f"{self.name} {state}; the end of {self.log}:\n{children.tail(self.log, start=self._mark)}"
            )

    def stop(self, patience: float = STOP_PATIENCE) -> bool:
        """Asks it to drain and end (SIGTERM); kills it after `patience` seconds. True if it ended by itself."""
        with self._lock:
            self._wanted = False
            process = self._process
            if process is None:
                return True
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        return children.end(process, signal.SIGTERM, patience)

    def kill(self) -> None:
        """Ends it at once (SIGKILL) and waits until it is gone. A supervised one comes back."""
        with self._lock:
            self._wanted = self._wanted and self.supervised
            process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, timeout: float = READY_TIMEOUT) -> None:
        """Stops it if it runs and starts it under the same name; arguments and errors as in `start`."""
        self.stop()
        self.start(timeout)

    def pause(self) -> None:
        """Freezes it (SIGSTOP): alive for the kernel, deaf for everybody else."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Thaws it (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_exit(self, timeout: float = 30.0) -> int:
        """Waits for the present process to end by itself and returns its exit code.

        Args:
            timeout: Seconds.

        Raises:
            subprocess.TimeoutExpired: It still lives.
        """
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process.wait(timeout)

    def lines(self, *, since_start: bool = False) -> list[dict[str, Any]]:
        """The JSON log lines, oldest first; anything else it printed is left out.

        Args:
            since_start: Only those of the present process.
        """
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(self._mark if since_start else 0)
            texts = file.read().splitlines()
        return [line for line in map(_parsed, texts) if line is not None]

    def __enter__(self) -> "ServiceProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _supervise(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        threading.Event().wait(RESTART_DELAY)
        with self._lock:
            if self._wanted and self._process is process:
                self.restarts += 1
                self.spawn()


def run_once(
    module: str, *arguments: str, environment: Mapping[str, str], log: pathlib.Path
) -> subprocess.Popen[bytes]:
    """Starts `python -m module arguments`, a command that ends by itself; the caller waits for it.

    Args:
        module: What `python -m` runs.
        *arguments: Its arguments.
        environment: Variables beside ours.
        log: Takes its output.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIERFLOW_")}
    log.parent.mkdir(parents=True, exist_ok=True)
    return children.spawn([sys.executable, "-m", module, *arguments], log=log, environment={**inherited, **environment})


def _parsed(text: bytes) -> dict[str, Any] | None:
    if not text.startswith(b"{"):
        return None
    try:
        line = json.loads(text)
    except ValueError:  # cut off by a kill
        return None
    return line if isinstance(line, dict) else None
