"""Runs commands that cannot outlive their attempt, read its executor's secrets or take more than their limits (F32, L15, Lesson 32)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tierflow_executor import supervisor

MINIMAL_PATH = "/usr/local/bin:/usr/bin:/bin"
SOFT_STOP = 1.0
"""Seconds between SIGTERM and SIGKILL."""
_PR_SET_DUMPABLE = 4
_CHUNK = 64 * 1024
_LAST_OUTPUT = 2.0
T = TypeVar("T")
_LOADER = {name: value for name, value in os.environ.items() if name in ("LD_LIBRARY_PATH", "TMPDIR")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run, and its limits; 0 is not limited.

    Attributes:
        argv: Program and arguments.
        env: All of its environment.
        stdin: What it reads from standard input.
        directory: Where it runs; empty: in a fresh directory that is removed afterwards.
        own_user: Whether it runs as a user of its own, where the executor is root.
        memory_bytes: Private memory of all its processes together.
        cpu_seconds: Processor time of each process.
        file_bytes: Size of the largest file it may write.
        open_files: Files open at once.
        pass_fds: File descriptors that it inherits.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    directory: str = ""
    own_user: bool = False
    memory_bytes: int = 0
    cpu_seconds: int = 0
    file_bytes: int = 0
    open_files: int = 0
    pass_fds: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended: exit code (negative: the signal), why it was ended (`memory`, or empty), what it used."""

    exit_code: int
    reason: str
    memory_bytes: int
    cpu_seconds: float


class CannotStart(Exception):
    """The command cannot be executed. The text says why."""


def hide_environment() -> None:
    """From now on nobody but root can read this process's environment and memory by way of /proc: its secrets are not for what it runs."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def run(command: Command, output: Callable[[str, bytes], None]) -> Ended:
    """Runs a command to its end. When the caller is cancelled, everything that the command started is ended before this returns.

    Args:
        command: What to run.
        output: Gets what it writes as it comes: `stdout` or `stderr`, and bytes.

    Raises:
        CannotStart: The program does not exist or cannot be executed.
    """
    reads, writes = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(writes),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            pass_fds=(writes, *command.pass_fds), env=_LOADER, cwd="/", start_new_session=True,
        )  # fmt: skip
    except BaseException:  # a cancellation, too, must not leak the pipe
        os.close(reads)
        raise
    finally:
        os.close(writes)
    report = asyncio.create_task(_read_all(reads))
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    pumps = [
        asyncio.create_task(_pump(process.stdout, "stdout", output)),
        asyncio.create_task(_pump(process.stderr, "stderr", output)),
    ]
    leash = process.stdin
    leash.write(json.dumps(_spec(command)).encode() + b"\n")
    try:
        try:
            await asyncio.shield(report)
        except asyncio.CancelledError:
            leash.write(b"stop\n")
            await asyncio.shield(report)  # a second cancel breaks the leash, below
            raise
    finally:
        leash.close()
        lines = _lines(await _uninterrupted(report))
        if "exit" not in lines[-1] and "error" not in lines[-1]:
            await _uninterrupted(asyncio.ensure_future(asyncio.to_thread(_clear_away, lines[0])))
        await _uninterrupted(asyncio.ensure_future(_drain(pumps)))
        await _uninterrupted(asyncio.ensure_future(process.wait()))
    return _ended(lines[-1])


def _lines(said: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()] or [{}]


def _clear_away(started: Mapping[str, Any]) -> None:
    """The supervisor was killed itself: its command died with it, and here goes what that had started, and its directory."""
    if started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(started["pid"], signal.SIGKILL)
        if started["directory"]:
            shutil.rmtree(started["directory"], ignore_errors=True)


async def _drain(pumps: Sequence[asyncio.Task[None]]) -> None:
    """Waits for the last output; for what is kept open by a process that got away, not for ever."""
    _, pending = await asyncio.wait(pumps, timeout=_LAST_OUTPUT)
    for pump in pending:
        pump.cancel()


async def _uninterrupted(work: asyncio.Future[T]) -> T:
    """Waits to the end, however often the caller is cancelled; the last cancel is then passed on by whoever raised it first."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(work)
    return work.result()


def _spec(command: Command) -> dict[str, object]:
    return {
        "argv": list(command.argv),
        "env": dict(command.env),
        "stdin": command.stdin,
        "directory": command.directory,
        "own_user": command.own_user,
        "memory": command.memory_bytes,
        "cpu": command.cpu_seconds,
        "file_bytes": command.file_bytes,
        "open_files": command.open_files,
        "patience": SOFT_STOP,
    }


def _ended(last: Mapping[str, Any]) -> Ended:
    if "error" in last:
        raise CannotStart(last["message"])
    if "exit" not in last:
        raise CannotStart("the sandbox broke down before the command had ended")
    return Ended(
        exit_code=last["exit"],
        reason="memory" if last["reason"] == "memory" else "",
        memory_bytes=last["memory"],
        cpu_seconds=last["cpu"],
    )


async def _pump(stream: asyncio.StreamReader, name: str, output: Callable[[str, bytes], None]) -> None:
    while chunk := await stream.read(_CHUNK):
        output(name, chunk)


async def _read_all(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        return await reader.read()
    finally:
        transport.close()
