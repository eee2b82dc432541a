"""Where news of attempts go: results are held and sent to their owner, everything else is sent if somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionResult

from tierflow_executor import wire
from tierflow_executor.clocks import rising
from tierflow_executor.core.attempt import Attempt
from tierflow_executor.core.table import Attempts
from tierflow_executor.observing import Observer
from tierflow_executor.running import Running
from tierflow_executor.streams import Streams

_MOST_UNREAD = 5_000  # items that an orchestrator has not read, beyond which progress is dropped


class Delivery:
    """Holds results and delivers them.

    Args:
        attempts: The table of attempts.
        streams: Who is connected.
        observer: Is told how attempts end.
        after: Called after each end; true where the number of usable slots has changed by it.
        defect: Told of errors of the executor itself.

    Attributes:
        waiting: Callers of the unary form, by attempt.
    """

    def __init__(
        self,
        attempts: Attempts,
        streams: Streams,
        observer: Observer,
        after: Callable[[bool], None],
        defect: Callable[[BaseException], None],
    ) -> None:
        self._attempts = attempts
        self._streams = streams
        self._observer = observer
        self._after = after
        self._defect = defect
        self.waiting: dict[str, list[asyncio.Future[StepExecutionResult]]] = {}

    def started(self, running: Running) -> None:
        """An attempt has been running for a while."""
        stream = self._streams.get(running.attempt.owner)
        if stream is not None:
            message = pb.AttemptStarted(attempt_id=running.attempt.attempt_id, run_id=running.attempt.run_id)
            message.started_at.seconds, message.started_at.nanos = divmod(running.started_ns, 1_000_000_000)
            stream.outbox.put(wire.STARTED, message.SerializeToString())

    def progressed(self, running: Running, item: bytes) -> None:
        """An attempt has reported something."""
        stream = self._streams.get(running.attempt.owner)
        if stream is not None and stream.outbox.size < _MOST_UNREAD:
            stream.outbox.put(wire.PROGRESS, item)

    def ended(self, running: Running, result: StepExecutionResult, *, alive: bool) -> None:
        """An attempt has a result; `alive` says that it could not be stopped, and keeps its slot."""
        self._observer.ended(running, result)
        self.finish(running.attempt, result, alive=alive)

    def broken(self, error: BaseException) -> None:
        """Something in the executor itself went wrong, where no caller could be told."""
        self._defect(error)

    def vanished(self, running: Running) -> None:
        """An attempt that could not be stopped has stopped after all."""
        self._attempts.vanish(running.attempt)
        self._after(True)

    def finish(self, attempt: Attempt, message: StepExecutionResult, *, alive: bool = False) -> None:
        """An attempt has a result: it is held, and sent to its owner."""
        coded = message.SerializeToString()
        self._attempts.end(attempt, coded, message.state, rising(), alive=alive)
        stream = self._streams.get(attempt.owner)
        if stream is not None:
            stream.outbox.put(wire.RESULTS, coded)
        for waiting in self.waiting.pop(attempt.attempt_id, ()):
            if not waiting.done():
                waiting.set_result(message)
        self._after(alive)
