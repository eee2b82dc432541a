"""The engine: the only one that changes what this executor knows of attempts. Everything that arrives ends here, and everything that leaves comes from here.

It decides nothing by itself: `core` says what a request, a cancel, an adoption or an acknowledgement comes to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from tierflow.registry import Registry
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import Failure, FailureError

from tierflow_executor import wire
from tierflow_executor.admission import refusal
from tierflow_executor.blobs import Blobs
from tierflow_executor.clocks import rising
from tierflow_executor.core.attempt import Attempt
from tierflow_executor.core.states import State
from tierflow_executor.core.table import Attempts, Verdict
from tierflow_executor.delivery import Delivery
from tierflow_executor.endings import CANCELLED, FAILED, Ending, attempt_failure
from tierflow_executor.observing import Observer
from tierflow_executor.runner import Runner
from tierflow_executor.running import Limits, Running
from tierflow_executor.settings import ExecutorSettings
from tierflow_executor.streams import Stream, Streams

log = get_log(__name__)
_SWEEP = 10.0  # seconds between two looks for results that have expired, or whose owner is gone
_SWEEP_DRAINING = 0.5
_ORPHANED_AFTER = 30_000_000  # microseconds for which a result waits for an owner that is not connected


class Engine:
    """The attempts of this process. To be made on the loop's thread and used there only.

    Args:
        registry: The handlers on offer.
        settings: The process's settings.
        executor_id: Id of this process.
        version: Version of the software.
        observer: Is told how attempts end.
    """

    def __init__(
        self, registry: Registry, settings: ExecutorSettings, observer: Observer, *, executor_id: str, version: str
    ) -> None:
        self._observer = observer
        self.executor_id = executor_id
        self.version = version
        self.registry = registry
        self.settings = settings
        self.started_ns = time.time_ns()
        self.last_failure: Failure | None = None
        self.draining = False
        self._closed_at = float("inf")
        self.streams = Streams()
        self.attempts = Attempts(held_bytes=settings.held_bytes, ttl=settings.held_seconds * 1_000_000)
        self._loop = asyncio.get_running_loop()
        self._handlers = [wire.describe_handler(each) for each in registry]
        self._blobs = Blobs(self.streams.address_of, patience=settings.held_seconds)
        self.delivery = Delivery(self.attempts, self.streams, observer, self._after, self.note_defect)
        limits = Limits(
            slots=settings.slots,
            threads=settings.threads,
            grace=settings.grace,
            default_timeout=settings.default_timeout,
        )
        self.runner = Runner(self.delivery, self._blobs, limits)
        self._sweep = self._loop.call_later(_SWEEP, self._expire)
        self._was_full = False
        self._idle: asyncio.Event | None = None

    # Streams

    def connect(self, hello: pb.OrchestratorHello) -> Stream:
        """A stream opens with its hello.

        Raises:
            FailureError: FENCED, the caller was itself replaced.
        """
        instance = hello.instance_id
        if self.attempts.succession.is_replaced(instance):
            text = f"instance {instance} was replaced; nothing of it is taken any more"
            raise FailureError(failure("FENCED", text, tier=3, component="executor", operation="hello"))
        stream = Stream(instance)
        self.streams.add(stream)
        replaced = self._note(hello)
        owners = {instance, *hello.replaces}
        known = [wire.status_of(each.attempt_id, each) for each in self.attempts.of(owners)]
        self._share(stream)
        answer = self.hello(stream.slots, known)
        stream.outbox.put_hello(wire.frame(hello=answer, replaced=replaced, draining=self.draining))
        for attempt in self.attempts.of((instance,)):
            if attempt.has_result:
                stream.outbox.put(wire.RESULTS, attempt.result)
        return stream

    def disconnect(self, stream: Stream) -> None:
        """A stream has ended: its attempts go on, its results wait."""
        stream.close()
        if self.streams.remove(stream):
            self._share()

    def _note(self, hello: pb.OrchestratorHello) -> list[str]:
        self.streams.heard(hello)
        for instance in self.attempts.succession.replace(hello.instance_id, hello.replaces):
            self.streams.forget(instance)
        return [each for each in hello.replaces if self.attempts.succession.is_replaced(each)]

    def hello(self, slots: int, attempts: Iterable[pb.AttemptStatus]) -> pb.ExecutorHello:
        """Who this is and what it offers."""
        return pb.ExecutorHello(
            executor_id=self.executor_id,
            name=self.settings.instance_name,
            handlers=self._handlers,
            labels=self.settings.labels,
            slots=slots,
            attempts=attempts,
            version=self.version,
        )

    def receive(self, stream: Stream, message: pb.ExecuteStepsRequest) -> None:
        """A frame has come; acknowledgements and cancels are looked at before new work."""
        instance = stream.instance
        if message.HasField("hello") and message.hello.instance_id == instance and not stream.refused:
            stream.outbox.put_first(wire.frame(replaced=self._note(message.hello)))
            self._share()
        if stream.refused or self.attempts.succession.is_replaced(instance):
            return
        now = rising()
        for attempt_id in message.acknowledge:
            self.attempts.acknowledge(attempt_id, instance, now)
        for cancel in message.cancel:
            self._cancel_for(instance, cancel, now)
        for attempt_id in message.adopt:
            self._adopt_for(stream, attempt_id, now)
        for request in message.execute:
            self._execute_for(stream, request)
        self.runner.pump()
        self._after()

    def _adopt_for(self, stream: Stream, attempt_id: str, now: int) -> None:
        attempt = self.attempts.adopt(attempt_id, stream.instance, now)
        stream.outbox.put_first(wire.frame(statuses=[wire.status_of(attempt_id, attempt)]))
        if attempt is not None and attempt.has_result:
            stream.outbox.put(wire.RESULTS, attempt.result)

    def _execute_for(self, stream: Stream, request: step_pb2.StepExecutionRequest) -> None:
        context = request.context
        if self._takes_nothing and self.attempts.get(context.attempt_id) is None:
            stream.outbox.put_first(wire.frame(statuses=[wire.status_of(context.attempt_id, None)]))
            return
        verdict, attempt = self.attempts.request(context.attempt_id, context.run_id, stream.instance)
        if verdict is Verdict.START and attempt is not None:
            self.start(attempt, request)
        elif verdict is Verdict.REPEAT and attempt is not None:
            stream.outbox.put(wire.RESULTS, attempt.result)
        elif verdict is Verdict.CANCELLED and attempt is not None:
            self.end_unstarted(
                attempt,
                request,
                CANCELLED,
                attempt_failure(request, CANCELLED, "the attempt was cancelled before it came"),
            )
        elif verdict is Verdict.GONE:
            gone = attempt_failure(
                request,
                "EXECUTOR_LOST",
                "the attempt was run here before, and its result was acknowledged or has expired",
            )
            message = wire.result(request, Ending(FAILED, failure=gone), time.time_ns(), 0)
            stream.outbox.put(wire.RESULTS, message.SerializeToString())

    def start(self, attempt: Attempt, request: step_pb2.StepExecutionRequest) -> None:
        """A new attempt: it runs when there is room, or ends at once where it must not or cannot run here."""
        refused = refusal(self.registry, request)
        if refused is not None:
            self.end_unstarted(attempt, request, FAILED, refused)
            return
        handler = self.registry.get(request.input.handler)
        assert handler is not None  # it was looked for by refusal
        try:
            running = Running(attempt, request, handler, self.runner, self._loop.time())
            attempt.work = running
            self._observer.accepted(running)
            self.runner.accept(running)
        except Exception as error:  # noqa: BLE001 - a defect fails this attempt, visibly, and no other (F28)
            self.note_defect(error)
            if not attempt.has_result:
                why = attempt_failure(request, "INTERNAL", "the executor could not start the attempt")
                self.end_unstarted(attempt, request, FAILED, why)

    def end_unstarted(self, attempt: Attempt, request: step_pb2.StepExecutionRequest, state: str, why: Failure) -> None:
        """An attempt ends without having started."""
        message = wire.result(request, Ending(state, failure=why), time.time_ns(), 0)
        self.delivery.finish(attempt, message)

    def _cancel_for(self, instance: str, cancel: pb.CancelStepRequest, now: int) -> None:
        run_id = cancel.run_id

        def answer(receipt: pb.CancelReceipt.ValueType) -> None:
            stream = self.streams.get(instance)
            if stream is not None:
                one = pb.CancelStepResponse(attempt_id=cancel.attempt_id, receipt=receipt, run_id=run_id)
                stream.outbox.put_first(wire.frame(cancelled=[one]))

        self.cancel(cancel, now, answer)

    def cancel(
        self, cancel: pb.CancelStepRequest, now: int, answer: Callable[[pb.CancelReceipt.ValueType], None]
    ) -> None:
        """Stops an attempt; `answer` gets the receipt, at once or when it is known."""
        attempt = self.attempts.get(cancel.attempt_id)
        if attempt is None:
            self.attempts.bury(cancel.attempt_id, now)
            answer(pb.CANCEL_RECEIPT_UNKNOWN)
        elif attempt.state is State.LINGERING:
            answer(pb.CANCEL_RECEIPT_UNCONFIRMED)
        elif attempt.has_result or attempt.work is None:
            answer(pb.CANCEL_RECEIPT_ENDED)
        else:
            self.runner.stop(attempt.work, CANCELLED, cancel.reason or "cancelled", answer)

    # Slots, expiry, drain

    def _share(self, newcomer: Stream | None = None) -> None:
        none = self.draining or self.attempts.holding.full
        self.streams.share(0 if none else self.settings.slots - self.runner.lingering, newcomer)

    def _after(self, slots_changed: bool = False) -> None:
        """Something has ended or was acknowledged: other slots may have to be granted, or nothing may be left to wait for."""
        full = self.attempts.holding.full
        if slots_changed or full is not self._was_full:
            self._was_full = full
            self._share()
        if self._idle is not None and self.is_idle:
            self._idle.set()

    def _expire(self) -> None:
        for attempt in self.attempts.expire(rising()):
            if attempt.owner:
                log.warning("result expired", attempt_id=attempt.attempt_id, run_id=attempt.run_id)
        self._hand_over()
        self._sweep = self._loop.call_later(_SWEEP_DRAINING if self.draining else _SWEEP, self._expire)
        self._after()

    def _hand_over(self) -> None:
        """Gives results that wait for nobody to an orchestrator that is here: it brings them to their runs, wherever those are, and acknowledges them.

        Without it a result whose acknowledgement was lost with its orchestrator would be held for its whole time, and a drain would wait for that.
        """
        now = rising()
        connected = {stream.instance: stream for stream in self.streams}
        for attempt in self.attempts.orphans(connected.keys(), now if self.draining else now - _ORPHANED_AFTER):
            heirs = [each for each in connected if self.attempts.succession.speaks_for(each, attempt.owner)]
            stream = connected.get((heirs or list(connected) or [""])[0])
            if stream is not None and self.attempts.adopt(attempt.attempt_id, stream.instance, now) is not None:
                stream.outbox.put(wire.RESULTS, attempt.result)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, waits, or is held for an orchestrator."""
        return not (self.runner.busy or self.runner.waiting or len(self.attempts.holding))

    @property
    def _takes_nothing(self) -> bool:
        """Whether requests are refused. In the first moment of a drain those come that were sent before anybody could know of it."""
        return self.draining and self._loop.time() >= self._closed_at

    def start_draining(self) -> None:
        """From now on nothing new is taken; all who are connected are told."""
        self.draining = True
        self._closed_at = self._loop.time() + self.settings.drain_under_way
        for stream in self.streams:
            stream.outbox.put_first(wire.frame(draining=True))
        self._share()
        self._sweep.cancel()
        self._expire()

    async def settled(self, timeout: float) -> bool:
        """Waits until nothing runs, waits, or is held for an orchestrator; says whether that was so within `timeout` seconds."""
        self._idle = asyncio.Event()
        if self.is_idle:
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def note_defect(self, error: BaseException) -> None:
        """Something in the executor itself went wrong: it is logged and shown by DescribeExecutor."""
        log.error("defect", error=error)
        text = f"{type(error).__name__}: {error}"
        self.last_failure = failure("INTERNAL", text, tier=3, component="executor", operation="engine")

    async def close(self) -> None:
        """Ends all streams and connections; to be called last."""
        for stream in self.streams:
            stream.close()
        self._sweep.cancel()
        self.runner.close()
        await self._blobs.close()
