"""The parent of one sandboxed command: a small program of its own that starts it under limits, and sees to it that nothing of it survives.

It uses the standard library only and is run as `python -I -S supervisor.py REPORT_FD`. File descriptor 0 is its leash: the first line on it says in JSON what
to run, `stop` asks the command to end and `kill` ends it; when the leash breaks, because the executor let go or died, everything is killed. It is the reaper of
all descendants of the command, so that a process that detached itself is found as well. How it ended is written as JSON to REPORT_FD.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = resource.getpagesize()
_FASTEST_GROWTH = 2 << 30  # bytes a second; how soon memory is looked at again depends on how far away its limit is
_SOONEST, _LATEST = 0.01, 0.25
_HEADROOM = 64 << 20
_FIRST_USER = 1_000_000_000  # beyond the users of any system; the supervisor's pid makes it unique


def descendants(root: int) -> list[int]:
    """All processes below `root`, nearest first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def private_memory(pids: list[int]) -> int:
    """Bytes that these processes have for themselves."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
            total += int(fields[1]) - int(fields[2])
    return total * _PAGE


def own_user() -> int:
    """A user and group that nothing else runs as: where this process is root and may become it; else 0."""
    if os.geteuid() != 0:
        return 0
    user = _FIRST_USER + os.getpid()
    with open("/proc/self/uid_map", "rb") as file:
        for first, _, count in (map(int, line.split()) for line in file):
            if first <= user < first + count:
                return user
    return 0


class Supervisor:
    """Runs one command. `spec` is what the leash said."""

    def __init__(self, spec: dict[str, Any], report: int) -> None:
        self.spec = spec
        self.report = report
        self.memory_limit = int(spec.get("memory") or 0)
        self.reason = ""
        self.peak = 0
        self.status: int | None = None
        self.kill_at = float("inf")
        self.directory = ""
        self.user = own_user() if spec.get("own_user") else 0

    def run(self) -> None:
        """Runs the command to its end and reports."""
        os.set_inheritable(self.report, False)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.end("lost"))
        try:
            self.directory = self.spec.get("directory") or self.make_directory()
            self.child = self.start(libc)
            self.tell(pid=self.child, directory="" if self.spec.get("directory") else self.directory)
            self.watch(woken)
        except OSError as error:
            self.tell(error=error.errno or 0, message=str(error))
            return
        finally:
            self.kill_all()
            if not self.spec.get("directory") and self.directory:
                shutil.rmtree(self.directory, ignore_errors=True)
        self.finish()

    def make_directory(self) -> str:
        """A fresh directory that is the command's alone."""
        directory = tempfile.mkdtemp(prefix="tierflow-")
        if self.user:
            os.chown(directory, self.user, self.user)
            for stream in (1, 2):  # so that /dev/stdout and /dev/stderr can be opened
                os.fchown(stream, self.user, self.user)
        return directory

    def start(self, libc: Any) -> int:
        """Forks and executes the command. Raises OSError where it cannot be executed."""
        parent = os.getpid()
        failed, fail = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.become(libc, parent)
            except BaseException as error:  # noqa: BLE001 - the forked child must not return into the supervisor's code
                os.write(fail, str(getattr(error, "errno", 0) or 0).encode())
            os._exit(127)
        os.close(fail)
        with open(failed, "rb") as file:
            trouble = file.read()
        if trouble:
            os.waitpid(child, 0)
            raise OSError(int(trouble), os.strerror(int(trouble)), self.spec["argv"][0])
        return child

    def become(self, libc: Any, parent: int) -> NoReturn:
        """In the child: a session of its own, limits, identity, environment; then the command."""
        spec = self.spec
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        stdin = os.memfd_create("stdin", 0)
        with open(stdin, "wb", closefd=False) as file:
            file.write(spec.get("stdin", "").encode("utf-8", "surrogateescape"))
        os.lseek(stdin, 0, os.SEEK_SET)
        os.dup2(stdin, 0)
        os.close(stdin)
        self.limit()
        os.chdir(self.directory)
        if self.user:
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        os.umask(0o077)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of identity, which clears it
        if os.getppid() != parent:
            os._exit(127)
        env = {**spec["env"], "PWD": self.directory}
        os.execvpe(spec["argv"][0], spec["argv"], env)

    def limit(self) -> None:
        """In the child: what the kernel holds it to. Memory beyond its limit is noticed by `look`; the kernel's limit only stops what is faster than that."""
        spec = self.spec
        for number, most, more in (
            (resource.RLIMIT_CPU, spec.get("cpu"), 1),  # SIGXCPU first, SIGKILL a second later
            (resource.RLIMIT_FSIZE, spec.get("file_bytes"), 0),
            (resource.RLIMIT_NOFILE, spec.get("open_files"), 0),
            (resource.RLIMIT_DATA, self.memory_limit and self.memory_limit * 5 // 4 + _HEADROOM, 0),
        ):
            if most:
                hard = resource.getrlimit(number)[1]
                top = most + more if hard == resource.RLIM_INFINITY else min(most + more, hard)
                resource.setrlimit(number, (min(most, top), top))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def watch(self, woken: int) -> None:
        """Until the command has ended: obeys the leash, looks at the memory."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(woken, select.POLLIN)
        pause = _SOONEST
        while not self.reap():
            wait = min(pause if self.memory_limit else float("inf"), self.kill_at - time.monotonic())
            ready = dict(poll.poll(None if wait == float("inf") else max(0.0, wait) * 1000))
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 512)
            if 0 in ready:
                self.obey(os.read(0, 512))
            if time.monotonic() >= self.kill_at:
                self.end(self.reason)
            if self.memory_limit:
                pause = self.look()

    def look(self) -> float:
        """Looks at the memory; returns the seconds after which to look again."""
        used = private_memory(descendants(os.getpid()))
        self.peak = max(self.peak, used)
        if used > self.memory_limit:
            self.end("memory")
        return min(_LATEST, max(_SOONEST, (self.memory_limit - used) / _FASTEST_GROWTH))

    def obey(self, said: bytes) -> None:
        """The leash has moved."""
        if not said or b"kill" in said:
            self.end("lost" if not said else "killed")
        elif b"stop" in said:
            self.reason = "stopped"
            self.kill_at = time.monotonic() + float(self.spec.get("patience", 1.0))
            for pid in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def end(self, reason: str) -> None:
        """Ends everything now."""
        self.reason = reason
        self.kill_at = float("inf")
        self.kill_all()

    def reap(self) -> bool:
        """Collects what has ended; says whether the command itself has."""
        while self.status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.child:
                self.status = status
        return True

    def kill_all(self) -> None:
        """Kills every descendant, and waits until there is none."""
        while True:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            if pid == getattr(self, "child", 0) and self.status is None:
                self.status = status

    def finish(self) -> None:
        """Reports how it ended."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = self.status if self.status is not None else 0
        self.tell(
            exit=os.waitstatus_to_exitcode(status),
            reason=self.reason,
            memory=max(self.peak, used.ru_maxrss * 1024),
            cpu=used.ru_utime + used.ru_stime,
        )

    def tell(self, **fields: Any) -> None:
        """Writes a line to the executor, where it still listens."""
        with contextlib.suppress(OSError):
            os.write(self.report, json.dumps(fields).encode() + b"\n")


def read_spec() -> dict[str, Any]:
    """The first line of the leash. Where there is no whole line, or already more than that (a stop), nothing is to be run."""
    said = bytearray()
    while b"\n" not in said and (piece := os.read(0, 65536)):
        said += piece
    line, ended, more = said.partition(b"\n")
    if not ended or more:
        sys.exit(1)
    return json.loads(line)  # type: ignore[no-any-return]


if __name__ == "__main__":
    Supervisor(read_spec(), int(sys.argv[1])).run()
