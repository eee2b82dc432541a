"""Threads for plain functions. Daemons: a function that never returns does not keep the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Threads:
    """Runs calls in at most `most` threads, which are started when they are needed.

    Whoever uses it does not hand over more calls at once than there may be threads: there is no waiting here.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0

    def run(self, call: Callable[[], None]) -> None:
        """Has a call run in a thread; the call sees to its own errors and results."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._started < self.most:
                self._started += 1
                threading.Thread(target=self._serve, name=f"handler-{self._started}", daemon=True).start()
        self._calls.put(call)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            with self._lock:
                self._idle += 1

    def close(self) -> None:
        """Lets the threads end as they become free."""
        for _ in range(self._started):
            self._calls.put(None)
