"""Supervision: whoever starts something in the background says here what becomes of it when it fails (B15, lesson 20).

A loop that is declared restartable begins again after a pause; the crash of any other ends the process, for a service without one of its loops only looks
alive. Nothing started here outlives its supervisor.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from tierflow_runtime.afterwards import CANCEL_AGAIN
from tierflow_runtime.logs import get_log

log = get_log(__name__)


class Restart(msgspec.Struct, frozen=True):
    """How a loop that crashed begins again: after `first` seconds, each time twice as long up to `longest`; anew after `calm` seconds without a crash."""

    first: float = 0.1
    longest: float = 10.0
    calm: float = 60.0

    def delay(self, crashes: int) -> float:
        """Seconds to wait after so many crashes in a row, varied by a fifth."""
        return min(self.longest, self.first * 2.0 ** min(crashes - 1, 30)) * random.uniform(0.8, 1.2)


RESTART: Final = Restart()


class Supervisor:
    """Owns background loops within an `async with`; on leaving it they are cancelled and awaited.

    The crash of a loop without restart cancels the body and is raised from the `async with` as it was, with a note that names the loop.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        self.restarts = 0
        """Restarts of loops so far, for the metric of that name."""

    @property
    def count(self) -> int:
        """Loops and other background work alive now, for the metric `background_tasks`."""
        return len(self._tasks)

    def loop(
        self, name: str, body: Callable[[], Awaitable[None]], *, restart: Restart | None = None
    ) -> asyncio.Task[None]:
        """Starts a loop.

        Args:
            name: What it is called in logs.
            body: Called for each start; it runs until it returns or is cancelled.
            restart: How it begins again after an error; None: its error ends the process.
        """
        return self._start(name, self._looped(name, body, restart))

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts work that ends by itself. Its error ends the process, so it deals with what it expects."""
        return self._start(name, self._watched(name, work))

    async def stop(self) -> None:
        """Cancels everything and waits until it has ended.

        What has not ended after a while is cancelled again: until Python 3.12 `asyncio.wait_for` loses a cancel that comes in the same moment as a result,
        and a loop that lost its only one would never end.
        """
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CANCEL_AGAIN)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            await self._leave(kind, error, trace)

    async def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup:
            if self._crash is not None:
                raise self._crash from None
            if error is not None:
                raise error from None
            raise

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watched(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            error.add_note(f"in the background: {name}")
            self._crash = self._crash or error
            raise

    async def _looped(self, name: str, body: Callable[[], Awaitable[None]], restart: Restart | None) -> None:
        if restart is None:
            await self._watched(name, body())
            return
        crashes = 0
        while True:
            begun = time.monotonic()
            try:
                await body()
                return
            except Exception as error:  # noqa: BLE001  # whatever it was, the loop was declared fit to begin again
                crashes = crashes + 1 if time.monotonic() - begun < restart.calm else 1
                delay = restart.delay(crashes)
                self.restarts += 1
                log.error(
                    "loop crashed; it begins again",
                    loop=name,
                    crashes=crashes,
                    delay_seconds=round(delay, 3),
                    error=error,
                )
            await asyncio.sleep(delay)
