"""Notices a blocked event loop. A process with one looks alive from outside, since gRPC answers pings from threads of its own (Lesson 23)."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable

from tierflow_runtime.logs import get_log

log = get_log(__name__)


class Watchdog:
    """A thread that looks whether the loop still turns, and says where it is stuck if not: almost always in an async handler that blocks.

    Args:
        patience: Seconds without a turn of the loop after which it counts as blocked.
        blocked: Called from the thread when it is, with the stack of the loop's thread; once until it turns again.
    """

    def __init__(self, patience: float, blocked: Callable[[str], None] | None = None) -> None:
        self._patience = patience
        self._blocked = blocked or _say
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._turned = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()

    def _turn(self) -> None:
        self._turned = time.monotonic()
        if not self._stopped.is_set():
            self._loop.call_later(self._patience / 3, self._turn)

    def _watch(self) -> None:
        said = 0.0
        while not self._stopped.wait(self._patience / 3):
            turned = self._turned
            if time.monotonic() - turned > self._patience and turned != said:
                said = turned
                frame = sys._current_frames().get(self._loop_thread)
                self._blocked("".join(traceback.format_stack(frame)[-8:]) if frame is not None else "")


def _say(stack: str) -> None:
    log.error("the event loop is blocked; an async handler must not block: make it a plain function", stack=stack)
