"""Runs attempts: calls handlers, holds them to their limits and really stops them.

One task or thread per attempt and one timer for all of them. Everything here runs on the loop's thread, apart from the handlers that are plain functions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Protocol

from tierflow.context import Blob
from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2

from tierflow_executor import wire
from tierflow_executor.calls import Calls, Values, needs_thread
from tierflow_executor.core.states import Move, State
from tierflow_executor.endings import CANCELLED, FAILED, Ending, attempt_failure, stopped
from tierflow_executor.progress import Progress
from tierflow_executor.running import Limits, Running
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

    def broken(self, error: BaseException) -> None:
        """Something in the executor itself went wrong."""

    def vanished(self, running: Running) -> None:
        """An attempt that could not be stopped has stopped after all."""


class Runner:
    """Runs at most `slots` attempts at once, `threads` of them plain functions; further ones wait in the order in which they came.

    Args:
        reports: Where news go.
        values: Where large values are kept.
        limits: How much and how long.
    """

    def __init__(self, reports: Reports, values: Values, limits: Limits) -> None:
        self._loop = asyncio.get_running_loop()
        self._reports = reports
        self._values = values
        self._limits = limits
        self._grace = limits.grace
        self.default_timeout = limits.default_timeout
        self._wheel: Wheel[Running] = Wheel(self._due, reports.broken)
        self._progress = Progress(reports.progressed)
        self._calls = Calls(values, limits.threads, self._settle)
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
        """Starts an attempt, or has it wait for its turn."""
        threaded = needs_thread(running)
        queue = self._ready_for_thread if threaded else self._ready
        if not queue and self._has_room(threaded):
            self._start(running)
            return
        queue.append(running)
        if running.deadline_at < _NEVER:
            self._wheel.put(running, running.deadline_at)

    def _has_room(self, threaded: bool) -> bool:
        return self.busy < self._limits.slots and (not threaded or self.busy_threads < self._calls.threads)

    def pump(self) -> None:
        """Starts what waits, as far as there is room."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                if self._ready_for_thread and self._has_room(True):
                    running = self._ready_for_thread.popleft()
                elif self._ready and self._has_room(False):
                    running = self._ready.popleft()
                else:
                    return
                if running.attempt.state is State.QUEUED:
                    self._start(running)
        finally:
            self._pumping = False

    def _start(self, running: Running) -> None:
        now = self._loop.time()
        if now >= running.deadline_at:
            self._refuse_late(running)
            return
        running.attempt.move(Move.START)
        running.start_clock(now)
        self.busy += 1
        if self._calls.inline(running):
            return
        self._wheel.put(running, min(now + TELL_STARTED, running.next_look()))
        if needs_thread(running):
            self.busy_threads += 1
        self._calls.start(running)

    def _refuse_late(self, running: Running) -> None:
        failure = attempt_failure(
            running.request, "DEADLINE_EXCEEDED", "the deadline had passed before the attempt could start"
        )
        self._end(running, Ending(FAILED, failure=failure))

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
                f"the attempt was stopped after {taken:.1f} s: {_WHICH_LIMIT[running.limit_code]}",
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
        if needs_thread(running):
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
        message = self._result(running, ending)
        self._reports.ended(running, message, alive=alive)

    def _result(self, running: Running, ending: Ending) -> step_pb2.StepExecutionResult:
        now = time.time_ns()
        try:
            message = wire.result(running.request, ending, now, running.started_ns)
            running.fill(message)
        except Exception as error:  # noqa: BLE001 - a result that cannot be coded is a defect; the attempt must end all the same (F28)
            self._reports.broken(error)
            failure = attempt_failure(running.request, "INTERNAL", "the result of the attempt could not be coded")
            message = wire.result(running.request, Ending(FAILED, failure=failure), now, running.started_ns)
        return message

    # What attempts need on the way

    def offer(
        self, running: Running, kind: str, percent: float | None, message: str, metrics: dict[str, float]
    ) -> None:
        """Takes progress, from any thread."""
        if not running.attempt.has_result:
            self._progress.offer(running, kind, percent, message, metrics)

    def beat(self, running: Running) -> None:
        """Nobody else need hear of it."""

    def storing(self, running: Running) -> None:
        """Its handler is done and its output is being stored: its limits are not looked at any more."""
        self._wheel.remove(running)

    def read_blob(self, running: Running, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value."""
        return self._values.read(running, blob)

    async def write_blob(self, running: Running, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value."""
        return await self._values.write(running, content, media_type)

    async def call_context(self, running: Running, call: ContextCall) -> ContextAnswer:
        """Asks for, or changes, what the attempt's swarm shares."""
        return await self._values.call_context(running, call)

    def close(self) -> None:
        """Ends the timer and the threads."""
        self._wheel.close()
        self._calls.close()


_WHICH_LIMIT = {
    "TIMEOUT": "its timeout",
    "DEADLINE_EXCEEDED": "the deadline of the whole work",
    "BUDGET_EXHAUSTED": "the wall time it was granted",
}
