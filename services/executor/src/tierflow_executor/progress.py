"""Progress on its way out: the latest per attempt, at most ten messages a second each, the last one always (H14)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb

from tierflow_executor.endings import clipped

INTERVAL = 0.1
"""Seconds between two messages of one attempt."""
MOST_METRICS = 100
"""Named numbers of one attempt."""
_LONGEST_MESSAGE = 4_000
_MOST_TOKENS = 256 * 1024


class Box:
    """What an attempt has reported and was not sent yet. Texts of kind `token` are joined, of everything else the latest stays."""

    __slots__ = ("arranged", "changed", "kind", "message", "metrics", "next_at", "percent", "time", "tokens")

    def __init__(self) -> None:
        self.kind = "progress"
        self.percent = 0.0
        self.message = ""
        self.metrics: dict[str, float] = {}
        self.tokens: list[str] = []
        self.time = 0
        self.changed = False
        self.arranged = False
        self.next_at = 0.0

    def take(self, kind: str, percent: float | None, message: str, metrics: dict[str, float]) -> None:
        """Merges a report; `percent` None is a heartbeat, which changes nothing else."""
        self.time = time.time_ns()
        if kind == "token":
            self.tokens.append(message)
            return
        self.changed = True
        if percent is None:
            return
        self.kind = kind
        self.percent = min(100.0, max(0.0, percent))
        self.message = message
        for name, number in metrics.items():
            if name in self.metrics or len(self.metrics) < MOST_METRICS:
                self.metrics[name] = number


class Progress:
    """Coalesces the reports of all attempts. `offer` may be called from any thread, everything else from the loop's.

    Args:
        send: Takes an attempt and a coded AttemptProgress.
    """

    def __init__(self, send: Callable[[Any, bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._send = send
        self._lock = threading.Lock()

    def offer(self, running: Any, kind: str, percent: float | None, message: str, metrics: dict[str, float]) -> None:
        """Takes a report: it goes out now, or merged with later ones once a tenth of a second has passed since the last."""
        with self._lock:
            box: Box | None = running.box
            if box is None:
                box = running.box = Box()
            box.take(kind, percent, message, metrics)
            if box.arranged:
                return
            box.arranged = True
        if threading.get_ident() == self._thread:
            self._arrange(running)
        else:
            self._loop.call_soon_threadsafe(self._arrange, running)

    def _arrange(self, running: Any) -> None:
        wait = running.box.next_at - self._loop.time()
        if wait <= 0:
            self._flush(running)
        else:
            self._loop.call_later(wait, self._flush, running)

    def _flush(self, running: Any) -> None:
        box: Box = running.box
        with self._lock:
            box.arranged = False
            if not (box.changed or box.tokens):
                return
            item = self._take_one(running, box)
            box.next_at = self._loop.time() + INTERVAL
            more = box.arranged = box.changed or bool(box.tokens)
        self._send(running, item)
        if more:
            self._loop.call_later(INTERVAL, self._flush, running)

    def _take_one(self, running: Any, box: Box) -> bytes:
        context = running.request.context
        message = pb.AttemptProgress(attempt_id=context.attempt_id, run_id=context.run_id, step_id=context.step_id)
        message.time.seconds, message.time.nanos = divmod(box.time, 1_000_000_000)
        message.percent = box.percent
        if running.heartbeat is not None:
            message.heartbeat.json = running.heartbeat
        if box.tokens:
            message.kind = "token"
            message.message = clipped("".join(box.tokens), _MOST_TOKENS)
            box.tokens = []
        else:
            message.kind = box.kind
            message.message = clipped(box.message, _LONGEST_MESSAGE)
            for name, number in box.metrics.items():
                message.metrics[name] = number
            box.metrics = {}
            box.changed = False
        return message.SerializeToString()

    def finish(self, running: Any) -> None:
        """The attempt is over: what was not sent yet goes out now."""
        box: Box = running.box
        while True:
            with self._lock:
                box.arranged = True  # nothing is arranged for it any more
                if not (box.changed or box.tokens):
                    return
                item = self._take_one(running, box)
            self._send(running, item)
