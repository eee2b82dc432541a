"""`shell.run`: a command in a sandbox."""

from __future__ import annotations

import codecs
import signal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from tierflow import Context, HandlerFailed, Rejected, handler

from tierflow_executor import sandbox
from tierflow_executor.logs import CURRENT
from tierflow_executor.running import Running

MOST_OUTPUT = 1 << 20
"""Bytes kept of each of standard output and error."""


class Shell(BaseModel):
    """What to run."""

    model_config = ConfigDict(extra="forbid")

    command: Annotated[
        str | list[str],
        Field(description="A line for /bin/sh, or a program and its arguments, which are then not interpreted."),
    ]
    env: Annotated[dict[str, str], Field(description="All of its environment, besides a minimal PATH.")] = {}
    stdin: Annotated[str, Field(description="What it reads from standard input.")] = ""
    ok_exit_codes: Annotated[list[int], Field(description="Exit codes that are not failures.")] = [0]
    cpu_seconds: Annotated[
        int, Field(ge=0, description="Processor time for each of its processes; 0 is not limited.")
    ] = 0
    file_bytes: Annotated[int, Field(ge=0, description="Size of the largest file it may write; 0 is not limited.")] = (
        1 << 30
    )
    open_files: Annotated[int, Field(ge=0, description="Files open at once; 0 is not limited.")] = 256


class Output(BaseModel):
    """What it did."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool = False
    pretended: bool = False


class _Kept:
    """One output stream: its beginning for the result, and every line for the log."""

    def __init__(self, name: str, context: Context) -> None:
        self._name = name
        self._context = context
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._size = 0
        self._line = ""
        self.truncated = False

    def take(self, chunk: bytes) -> None:
        """Keeps what came, as far as there is room."""
        text = self._decoder.decode(chunk).replace("\0", "\ufffd")
        room = MOST_OUTPUT - self._size
        if len(chunk) > room:
            self.truncated = True
            self._parts.append(text[:room])
            self._size = MOST_OUTPUT
        else:
            self._parts.append(text)
            self._size += len(chunk)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines[-1_000:]:
            _log(self._name, line)
        if len(self._line) > 8_000:
            _log(self._name, self._line)
            self._line = ""

    def finish(self) -> str:
        """All that was kept; the last line goes to the log."""
        if self._line:
            _log(self._name, self._line)
        if self.truncated:
            self._parts.append(f"\n[cut: only the first {MOST_OUTPUT} bytes are kept]")
        return "".join(self._parts)


def _log(stream: str, line: str) -> None:
    attempt = CURRENT.get()
    if attempt is not None:
        attempt.write_log(stream, line)


@handler("shell.run", side_effecting=True, tool=True)
async def run(context: Context, shell: Shell) -> Output:
    """Runs a command: with nothing but the given environment, in an empty directory, under the memory limit of its allocation; nothing of it survives."""
    if context.test_mode:
        return Output(exit_code=0, stdout="", stderr="", pretended=True)
    argv = ["/bin/sh", "-c", shell.command] if isinstance(shell.command, str) else shell.command
    if not argv or "\0" in "".join((*argv, *shell.env, *shell.env.values())):
        raise Rejected("the command is empty or holds a NUL character")
    attempt = CURRENT.get()
    kept = {"stdout": _Kept("stdout", context), "stderr": _Kept("stderr", context)}

    def output(stream: str, chunk: bytes) -> None:
        if isinstance(attempt, Running):
            attempt.alive()  # what it writes is a sign of life
        kept[stream].take(chunk)

    command = sandbox.Command(
        argv=argv,
        env={"PATH": sandbox.MINIMAL_PATH, "HOME": "/nonexistent", "LANG": "C.UTF-8", **shell.env},
        stdin=shell.stdin,
        own_user=True,
        memory_bytes=context.memory_bytes or 0,
        cpu_seconds=shell.cpu_seconds,
        file_bytes=shell.file_bytes,
        open_files=shell.open_files,
    )
    try:
        ended = await sandbox.run(command, output)
    except sandbox.CannotStart as error:
        raise Rejected(f"the command cannot be run: {error}") from error
    if isinstance(attempt, Running):
        attempt.cpu_nanos = round(ended.cpu_seconds * 1e9)
        attempt.memory_bytes = ended.memory_bytes
    stdout, stderr = kept["stdout"], kept["stderr"]
    done = Output(exit_code=ended.exit_code, stdout=stdout.finish(), stderr=stderr.finish())
    done.truncated = stdout.truncated or stderr.truncated
    _check(shell, ended, context)
    return done


def _check(shell: Shell, ended: sandbox.Ended, context: Context) -> None:
    """Raises where the command did not end well."""
    if ended.reason == "memory":
        text = f"the command used more than the {context.memory_bytes} bytes of memory it was granted, and was killed"
        raise HandlerFailed(text, code="MEMORY_EXCEEDED", retryable=False)
    if ended.exit_code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
        raise Rejected(f"the command used more than {shell.cpu_seconds} s of processor time and was killed")
    if ended.exit_code < 0:
        raise HandlerFailed(
            f"the command was ended by signal {-ended.exit_code} ({signal.Signals(-ended.exit_code).name})"
        )
    if ended.exit_code not in shell.ok_exit_codes:
        raise HandlerFailed(f"the command ended with exit code {ended.exit_code}; its output is in the attempt's log")
