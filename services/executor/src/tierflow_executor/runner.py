"""Runs attempts: calls handlers, holds them to their limits and really stops them.

One task or thread per attempt and one timer for all of them. Everything here runs on the loop's thread, apart from the handlers that are plain functions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Protocol

from pydantic import ValidationError
from tierflow.context import Blob, Context
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.wire import payload_from_proto

from tierflow_executor import wire
from tierflow_executor.core.states import Move, State
from tierflow_executor.endings import (
    CANCELLED,
    FAILED,
    LARGEST_INLINE,
    Ending,
    attempt_failure,
    raised,
    returned,
    size_of,
    stopped,
    unbound,
)
from tierflow_executor.logs import CURRENT, finish_lines
from tierflow_executor.progress import Progress
from tierflow_executor.running import Running
from tierflow_executor.threads import Threads
from tierflow_executor.wheel import Wheel

TELL_STARTED = 0.05
"""Seconds that an attempt must have run before it is worth a message that it has started."""
_NEVER = float("inf")


class Reports(Protocol):
    """Where the runner's news go."""

    def started(self, running: Running) -> None:
        """An attempt has been running for a while."""

    def progressed(self, running: Running, item: bytes) -> None:
        """An attempt has reported something; `item` is a coded AttemptProgress."""

    def ended(self, running: Running, result: step_pb2.StepExecutionResult, *, alive: bool) -> None:
        """An attempt has a result; `alive` says that it could not be stopped."""

    def vanished(self, running: Running) -> None:
        """An attempt that could not be stopped has stopped after all."""


class Values(Protocol):
    """Where large values are kept; the attempt says on whose behalf."""

    async def fetch(self, running: Running, blob: Blob) -> str:
        """A stored JSON text."""

    async def store(self, running: Running, ending: Ending) -> Ending:
        """The ending with its output stored."""

    def read(self, running: Running, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value."""

    async def write(self, running: Running, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value."""


class Runner:
    """Runs at most `slots` attempts at once, `threads` of them plain functions; further ones wait in the order in which they came.

    Args:
        reports: Where news go.
        values: Where large values are kept.
        slots: Attempts at once.
        threads: Plain functions at once.
        grace: Seconds that a stopped attempt has to end.
        default_timeout: Seconds an attempt may take where nobody says.
    """

    def __init__(
        self, reports: Reports, values: Values, *, slots: int, threads: int, grace: float, default_timeout: float
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reports = reports
        self._values = values
        self._slots = slots
        self._grace = grace
        self.default_timeout = default_timeout
        self._wheel: Wheel[Running] = Wheel(self._due)
        self._progress = Progress(reports.progressed)
        self._threads = Threads(threads)
        self._ready: deque[Running] = deque()
        self._ready_for_thread: deque[Running] = deque()
        self._pumping = False
        self.busy = 0
        self.busy_threads = 0
        self.lingering = 0

    @property
    def waiting(self) -> int:
        """Attempts that wait for a slot."""
        return len(self._ready) + len(self._ready_for_thread)

    # Starting

    def accept(self, running: Running) -> None:
        """Runs an attempt as soon as there is room; `pump` starts it."""
        (self._ready_for_thread if _needs_thread(running) else self._ready).append(running)

    def pump(self) -> None:
        """Starts what there is room for."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self.busy < self._slots:
                if self._ready_for_thread and self.busy_threads < self._threads.most:
                    running = self._ready_for_thread.popleft()
                elif self._ready:
                    running = self._ready.popleft()
                else:
                    break
                if running.attempt.state is State.QUEUED:
                    self._start(running)
        finally:
            self._pumping = False
        for queue in (self._ready, self._ready_for_thread):
            for running in queue:
                if not running.place and running.deadline_at < _NEVER:
                    self._wheel.put(running, running.deadline_at)

    def _start(self, running: Running) -> None:
        now = self._loop.time()
        if now >= running.deadline_at:
            self._refuse_late(running)
            return
        running.attempt.move(Move.START)
        running.start_clock(now)
        self.busy += 1
        handler = running.handler
        by_ref = running.request.input.input.WhichOneof("kind") == "ref"
        if handler.inline and not by_ref:
            self._settle(running, self._call(running))
            return
        self._wheel.put(running, min(now + TELL_STARTED, running.next_look()))
        if _needs_thread(running):
            self.busy_threads += 1
        if _needs_thread(running) and not by_ref:
            self._threads.run(lambda: self._in_thread(running))
        else:
            running.task = self._loop.create_task(self._perform(running))

    def _refuse_late(self, running: Running) -> None:
        failure = attempt_failure(
            running.request, "DEADLINE_EXCEEDED", "the deadline had passed before the attempt could start"
        )
        self._end(running, Ending(FAILED, failure=failure))

    # Calling

    def _call(self, running: Running, text: str | None = None) -> Ending:
        """Calls a plain handler, in whatever thread this is."""
        try:
            if text is None:
                text = _inline_text(running)
            handler = running.handler
            try:
                args, named = handler.arguments(Context(running.request, running), text)
            except ValidationError as error:
                return unbound(running.request, error)
            value = handler.function(*args, **named)
            if value is text and handler.inline:
                return Ending("COMPLETED", text)  # JSON that came in and goes out as it is: nothing to check
            return returned(handler, value)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its result and nobody else's (F27)
            return raised(running.request, error)

    def _in_thread(self, running: Running, text: str | None = None) -> None:
        token = CURRENT.set(running)
        try:
            ending = self._call(running, text)
            finish_lines()
        finally:
            CURRENT.reset(token)
        self._loop.call_soon_threadsafe(self._thread_returned, running, ending)

    def _thread_returned(self, running: Running, ending: Ending) -> None:
        running.returned = True
        if size_of(ending) > LARGEST_INLINE:
            running.task = self._loop.create_task(self._store(running, ending))
        else:
            self._settle(running, ending)

    async def _perform(self, running: Running) -> None:
        running.begun = True
        try:
            if running.cancelled:
                raise asyncio.CancelledError
            CURRENT.set(running)
            blob = running.request.input.input
            if blob.WhichOneof("kind") == "ref":
                named = Blob(sha256=blob.ref.sha256, size=blob.ref.size)
                text = await self._values.fetch(running, named)
                if _needs_thread(running):
                    self._threads.run(lambda: self._in_thread(running, text))
                    return
            else:
                text = _inline_text(running)
            ending = await self._await(running, text)
            finish_lines()
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its result and nobody else's (F27, F28)
            ending = raised(running.request, error)
        running.returned = True
        if size_of(ending) > LARGEST_INLINE:
            await self._store(running, ending)
        else:
            self._settle(running, ending)

    async def _await(self, running: Running, text: str) -> Ending:
        handler = running.handler
        try:
            args, named = handler.arguments(Context(running.request, running), text)
        except ValidationError as error:
            return unbound(running.request, error)
        return returned(handler, await handler.function(*args, **named))

    async def _store(self, running: Running, ending: Ending) -> None:
        self._wheel.remove(running)
        try:
            ending = await self._values.store(running, ending)
        except BaseException as error:  # noqa: BLE001 - as above: an output that cannot be stored is a failure of its attempt
            ending = raised(running.request, error)
        self._settle(running, ending)

    # Stopping

    def stop(
        self,
        running: Running,
        code: str,
        note: str,
        receipt: Callable[[pb.CancelReceipt.ValueType], None] | None = None,
    ) -> None:
        """Tells an attempt to stop; the receipt is given when it is known to have stopped, or has not within the grace time."""
        attempt = running.attempt
        if attempt.state is State.QUEUED:
            running.stop_code, running.stop_note = code, note
            self._end(running, stopped(running.request, code, note, Ending(FAILED, bare=True)))
            if receipt is not None:
                receipt(pb.CANCEL_RECEIPT_STOPPED)
            return
        if running.unconfirmed and receipt is not None:
            receipt(pb.CANCEL_RECEIPT_UNCONFIRMED)
            receipt = None
        if receipt is not None:
            running.receipts.append(receipt)
        if running.stop_code:
            return
        attempt.move(Move.STOP)
        running.stop_code, running.stop_note, running.cancelled = code, note, True
        if running.returned:
            return
        running.grace_at = self._loop.time() + self._grace
        self._wheel.put(running, running.grace_at)
        self._interrupt(running)

    def _interrupt(self, running: Running) -> None:
        if running.task is not None and running.begun:
            running.task.cancel()

    def _due(self, running: Running) -> None:
        """The wheel's moment of an attempt has come."""
        now = self._loop.time()
        state = running.attempt.state
        if state is State.RUNNING:
            self._look(running, now)
        elif state is State.QUEUED:
            if now >= running.deadline_at:
                self._refuse_late(running)
            else:
                self._wheel.put(running, running.deadline_at)
        elif state in (State.STOPPING, State.LINGERING, State.FORGOTTEN) and not running.returned:
            if not running.unconfirmed:
                self._give_up(running)
            running.grace_at = now + self._grace
            self._wheel.put(running, running.grace_at)
            self._interrupt(running)

    def _look(self, running: Running, now: float) -> None:
        if now >= running.limit_at:
            taken = now - running.started_at
            self.stop(
                running,
                running.limit_code,
                f"the attempt was stopped after {taken:.1f} s: {_LIMITS[running.limit_code]}",
            )
        elif running.heartbeat_timeout and now >= running.last_sign + running.heartbeat_timeout:
            self.stop(
                running, "HEARTBEAT_TIMEOUT", f"the handler gave no sign of life for {running.heartbeat_timeout:g} s"
            )
        else:
            if not running.told_started:
                running.told_started = True
                self._reports.started(running)
            self._wheel.put(running, running.next_look())

    def _give_up(self, running: Running) -> None:
        """The grace time is over: says so. An attempt that was cancelled keeps its result back until it ends; one over its limits has failed now."""
        running.unconfirmed = True
        receipts, running.receipts = running.receipts, []
        for receipt in receipts:
            receipt(pb.CANCEL_RECEIPT_UNCONFIRMED)
        self.lingering += 1
        if running.stop_code != CANCELLED:
            note = f"{running.stop_note}; it did not stop within {self._grace:g} s and may still be running"
            self._end(running, stopped(running.request, running.stop_code, note, Ending(FAILED, bare=True)), alive=True)

    # Ending

    def _settle(self, running: Running, ending: Ending) -> None:
        """A handler is done: nothing of the attempt is alive any more."""
        self._wheel.remove(running)
        self.busy -= 1
        if _needs_thread(running):
            self.busy_threads -= 1
        if running.unconfirmed:
            self.lingering -= 1
        if running.attempt.state is State.LINGERING or running.attempt.state is State.FORGOTTEN:
            self._reports.vanished(running)
        else:
            if running.stop_code:
                ending = stopped(running.request, running.stop_code, running.stop_note, ending)
            self._end(running, ending)
            done = pb.CANCEL_RECEIPT_ENDED if ending.state == "COMPLETED" else pb.CANCEL_RECEIPT_STOPPED
            for receipt in running.receipts:
                receipt(done)
        self.pump()

    def _end(self, running: Running, ending: Ending, *, alive: bool = False) -> None:
        if running.place and not alive:
            self._wheel.remove(running)
        if running.box is not None:
            self._progress.finish(running)
        message = wire.result(running.request, ending, time.time_ns(), running.started_ns)
        running.fill(message)
        self._reports.ended(running, message, alive=alive)

    # What attempts need on the way

    def offer(
        self, running: Running, kind: str, percent: float | None, message: str, metrics: dict[str, float]
    ) -> None:
        """Takes progress, from any thread."""
        if not running.attempt.has_result:
            self._progress.offer(running, kind, percent, message, metrics)

    def read_blob(self, running: Running, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value."""
        return self._values.read(running, blob)

    async def write_blob(self, running: Running, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value."""
        return await self._values.write(running, content, media_type)

    def close(self) -> None:
        """Ends the timer and the threads."""
        self._wheel.close()
        self._threads.close()


_LIMITS = {
    "TIMEOUT": "its timeout",
    "DEADLINE_EXCEEDED": "the deadline of the whole work",
    "BUDGET_EXHAUSTED": "the wall time it was granted",
}


def _needs_thread(running: Running) -> bool:
    handler = running.handler
    return not (handler.is_async or handler.inline or handler.isolate)


def _inline_text(running: Running) -> str:
    payload = running.request.input.input
    if payload.WhichOneof("kind") == "json":
        return payload.json
    text = payload_from_proto(payload)
    return text if isinstance(text, str) else "null"
