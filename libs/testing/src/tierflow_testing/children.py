"""Starts child processes that cannot outlive this one.

The kernel sends the death signal when the *thread* that forked ends. All children are therefore started by one thread that lives as long as this
process, and everything here may be called from any thread, a short-lived one of a pool included.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

LAUNCH = str(pathlib.Path(__file__).with_name("launch.py"))


_Start = Callable[[], subprocess.Popen[bytes]]
_Outcome = concurrent.futures.Future[subprocess.Popen[bytes]]


@dataclass(frozen=True, slots=True)
class User:
    """Who a child runs as."""

    uid: int
    gid: int


class _Spawner:
    """The thread that starts all children."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[_Start, _Outcome]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="tierflow-spawner", daemon=True).start()

    def spawn(self, start: _Start) -> subprocess.Popen[bytes]:
        outcome: _Outcome = concurrent.futures.Future()
        self._wanted.put((start, outcome))
        return outcome.result()

    def _run(self) -> None:
        while True:
            start, outcome = self._wanted.get()
            try:
                outcome.set_result(start())
            except OSError as error:
                outcome.set_exception(error)


_lock = threading.Lock()
_spawners: dict[int, _Spawner] = {}  # by process id: a forked process has no thread of its parent's


def spawn(
    command: Sequence[str],
    *,
    log: pathlib.Path,
    environment: Mapping[str, str] | None = None,
    directory: pathlib.Path | None = None,
    user: User | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own (Ctrl-C in a terminal does not reach it) with its output appended to a file.

    Args:
        command: Program and arguments.
        log: Takes both output streams; made if it does not exist.
        environment: All of its variables; ours if None.
        directory: Where it runs.
        user: Whom it runs as; needs root.
        death_signal: What the kernel sends it when this process dies.

    Raises:
        OSError: The program cannot be started.
    """
    as_user = (str(user.uid), str(user.gid)) if user else ("-1", "-1")
    argv = [sys.executable, "-I", "-S", LAUNCH, str(os.getpid()), str(int(death_signal)), *as_user, *command]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=directory,
                start_new_session=True,
            )

    with _lock:
        if os.getpid() not in _spawners:
            _spawners[os.getpid()] = _Spawner()
    return _spawners[os.getpid()].spawn(start)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the process and all its descendants; returns when every one of them is gone."""
    try:
        root = psutil.Process(process.pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for member in tree:
        _signal(member, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(tree[1:], timeout=10)


def signal_tree(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to a process and all its descendants; those that come into being meanwhile are found too, where it stops their parents."""
    try:
        root = psutil.Process(process.pid)
        _signal(root, number)
        for member in root.children(recursive=True):
            _signal(member, number)
    except psutil.NoSuchProcess:
        return


def end(process: subprocess.Popen[bytes], with_signal: signal.Signals, patience: float) -> bool:
    """Asks a process to end and kills it if it does not; returns whether it ended by itself.

    Args:
        process: A child.
        with_signal: The request.
        patience: Seconds before SIGKILL.
    """
    if process.poll() is not None:
        return True
    process.send_signal(with_signal)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        kill_tree(process)
        return False
    return True


def tail(log: pathlib.Path, lines: int = 20, start: int = 0) -> str:
    """The last lines of a log file from byte `start` on; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Polls a fact about a starting process; False if the process died or the time (seconds) is over."""
    deadline = time.monotonic() + timeout
    while not ready():
        if process.poll() is not None:
            return ready()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def gone(pid: int, name: str, timeout: float) -> bool:
    """Waits (seconds) until no living process has the id and the program name; False if it still lives."""
    try:
        process = psutil.Process(pid)
        if not process.name().startswith(name) or process.status() == psutil.STATUS_ZOMBIE:
            return True
        process.wait(timeout)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
