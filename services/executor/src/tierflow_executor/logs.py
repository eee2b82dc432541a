"""What an attempt writes: its last 32 KiB are kept with its result (Q27). `print` and `logging` within a handler end up here as well."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import Protocol, TextIO, cast

from tierflow_executor.endings import clipped

KEPT_BYTES = 32 * 1024
_LONGEST_LINE = 4_000
_COST = 24  # bytes that a line costs besides its text


class Writes(Protocol):
    """Whoever keeps log lines."""

    def write_log(self, stream: str, text: str) -> None:
        """Keeps a line."""


CURRENT: ContextVar[Writes | None] = ContextVar("tierflow_attempt", default=None)
"""The attempt on whose behalf code runs."""


class LogTail:
    """The last lines that were written, at most 32 KiB. May be used from any thread."""

    __slots__ = ("_bytes", "_cut", "_lines", "_lock")

    def __init__(self) -> None:
        self._lines: deque[tuple[int, str, str, int]] = deque()
        self._bytes = 0
        self._cut = 0
        self._lock = threading.Lock()

    def add(self, stream: str, text: str) -> None:
        """Adds a line; the oldest ones make room."""
        text = clipped(text.rstrip("\n"), _LONGEST_LINE)
        size = len(text.encode()) + _COST
        with self._lock:
            self._lines.append((time.time_ns(), stream, text, size))
            self._bytes += size
            while self._bytes > KEPT_BYTES:
                self._bytes -= self._lines.popleft()[3]
                self._cut += 1

    def lines(self) -> list[tuple[int, str, str]]:
        """Time (nanoseconds since the epoch), stream and text of each line; the first one says how many were cut, where some were."""
        with self._lock:
            kept = [(at, stream, text) for at, stream, text, _ in self._lines]
            if self._cut and kept:
                kept.insert(
                    0, (kept[0][0], "warning", f"[{self._cut} earlier lines were cut: the last 32 KiB are kept]")
                )
            return kept


class _Output:
    """Stands before standard output or error: what a handler prints becomes log lines, the rest passes."""

    def __init__(self, stream: str, real: TextIO) -> None:
        self._stream = stream
        self._real = real
        self._parts: ContextVar[str] = ContextVar(f"tierflow_{stream}", default="")

    def write(self, text: str) -> int:
        attempt = CURRENT.get()
        if attempt is None:
            return self._real.write(text)
        *lines, rest = (self._parts.get() + text).split("\n")
        for line in lines:
            attempt.write_log(self._stream, line)
        if len(rest) > _LONGEST_LINE:
            attempt.write_log(self._stream, rest)
            rest = ""
        self._parts.set(rest)
        return len(text)

    def finish(self) -> None:
        """Writes what was printed without an end of line."""
        attempt, rest = CURRENT.get(), self._parts.get()
        if rest:
            self._parts.set("")
            if attempt is not None:
                attempt.write_log(self._stream, rest)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


class _Records(logging.Handler):
    """Log records of the standard library that a handler causes."""

    def emit(self, record: logging.LogRecord) -> None:
        attempt = CURRENT.get()
        if attempt is not None:
            attempt.write_log(record.levelname.lower(), record.getMessage())


def capture() -> None:
    """From now on what handlers print and log is kept with their attempts. To be called once, when the process starts."""
    if isinstance(sys.stdout, _Output):
        return
    sys.stdout = cast("TextIO", _Output("stdout", sys.stdout))
    sys.stderr = cast("TextIO", _Output("stderr", sys.stderr))
    logging.getLogger().addHandler(_Records(logging.INFO))


def finish_lines() -> None:
    """Keeps what the present attempt printed without an end of line."""
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, _Output):
            output.finish()
