"""The one `ExecuteSwarms` stream that all submissions of a client share.

A request is put in the frame that gathers while the last one is being written: a lone request goes at once, many share the cost of a message. Answers and
results come back in batches and are routed by request id and swarm id. When the stream breaks it is opened again: requests without an answer are sent again
(the same request id makes that safe), swarms without a result are attached to.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable

import grpc
from tierflow_contracts.common.v1.failure_pb2 import Failure
from tierflow_contracts.coordinator.v1.coordinator_service_pb2 import (
    ExecuteSwarmsRequest,
    ExecuteSwarmsResponse,
    SubmitSwarmAnswer,
    SubmitSwarmResponse,
)
from tierflow_contracts.coordinator.v1.swarm_pb2 import SwarmExecutionRequest, SwarmExecutionResult

from tierflow.errors import (
    ResourceExhausted,
    TierflowError,
    Unavailable,
    call_error,
    code_name,
    error_of,
    made,
    unreachable,
)
from tierflow.results import ENDED

MAX_ITEMS = 256
MAX_BYTES = 1024 * 1024
MAX_ASKED = 1024
"""Requests that are sent and not answered; others wait here. So a client that has much to submit is slowed down instead of refused, and what it sends does not
age in the buffers of a connection."""
MAX_EARLY = 256
FIRST_DELAY, MAX_DELAY = 0.05, 2.0
_AGAIN = ("UNAVAILABLE", "FENCED", "NOT_OWNER", "DATABASE_UNAVAILABLE", "CONNECTION_FAILED", "CONNECTION_TIMEOUT")
"""Refusals that say: ask another instance, or this one later; also where it is a tier or a server behind it that did not answer."""

_FULL = ("QUEUE_FULL", "RATE_LIMITED")
"""Refusals that say: come back later."""
FIRST_RETURN, MAX_RETURN = 0.5, 15.0
"""Seconds before coming back, doubled each time, where the other side does not ask for more."""

Stream = grpc.aio.StreamStreamCall[ExecuteSwarmsRequest, ExecuteSwarmsResponse]


class Awaited:
    """A swarm whose result is to come, and who waits for it."""

    __slots__ = ("error", "result", "waiters")

    def __init__(self) -> None:
        self.result: SwarmExecutionResult | None = None
        self.error: TierflowError | None = None
        self.waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Wakes everybody who waits."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


Accepted = tuple[SubmitSwarmResponse, Awaited | None]
"""The answer, and what brings the result; None where the swarm had ended before: its result is read, not waited for."""


class _Sent:
    """A request without an answer."""

    __slots__ = ("answer", "began", "expires", "refusals", "request", "size")

    def __init__(
        self, request: SwarmExecutionRequest, answer: asyncio.Future[Accepted], began: float, expires: float
    ) -> None:
        self.request = request
        self.size = len(request.input.flow.input.json) + request.input.flow.flow.ByteSize() + 512
        self.answer = answer
        self.began = began
        self.expires = expires
        self.refusals = 0
        """How often it was told to come back."""

    def refuse(self, error: TierflowError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Exchange:
    """Sends submissions and brings their answers and results, for as long as the client is open."""

    def __init__(self, open_stream: Callable[[], Stream], address: str, *, timeout: float, patience: float) -> None:
        """`timeout`: seconds for one answer; `patience`: seconds for which a coordinator that cannot be reached, or is full, is tried again."""
        self._open_stream = open_stream
        self._address = address
        self._timeout = timeout
        self._patience = patience
        self._unanswered: dict[str, _Sent] = {}
        """By request id, in the order in which their time for an answer ends."""
        self._asked: set[str] = set()
        """The request ids of those that are on the present stream."""
        self._unfinished: dict[str, Awaited] = {}
        """By swarm id."""
        self._early: OrderedDict[str, SwarmExecutionResult] = OrderedDict()
        """The latest results that nobody waited for: an answer may come after its result."""
        self._outbox: list[_Sent] = []
        self._attach: list[str] = []
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._connection: asyncio.Task[None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._down_since: float | None = None
        self._closed = False

    async def submit(self, request: SwarmExecutionRequest) -> Accepted:
        """Sends a request and returns once it is stored. Raises the `TierflowError` of its refusal, or `Unavailable`."""
        request_id = request.context.request_id
        while (before := self._unanswered.get(request_id)) is not None:
            await asyncio.wait([before.answer])  # answers are told apart by request id
        now = self._loop.time()
        sent = _Sent(request, self._loop.create_future(), now, now + self._timeout)
        self._unanswered[request_id] = sent
        self._put(sent)
        try:
            return await sent.answer
        finally:
            self._unanswered.pop(request_id, None)

    async def finished(self, awaited: Awaited) -> SwarmExecutionResult:
        """Waits for a result, over any number of broken connections."""
        while awaited.result is None:
            if self._closed:
                raise Unavailable(made("UNAVAILABLE", "The client was closed; the execution goes on."))
            if awaited.error is not None:
                raise awaited.error
            waiter: asyncio.Future[None] = self._loop.create_future()
            awaited.waiters.append(waiter)
            await waiter
        return awaited.result

    async def close(self) -> None:
        """Ends the stream. Executions go on; who still waits gets `Unavailable`."""
        self._closed = True
        if self._connection is not None:
            self._connection.cancel()
            await asyncio.wait([self._connection])
        if self._sweep is not None:
            self._sweep.cancel()
        self._fail_unanswered(Unavailable(made("UNAVAILABLE", "The client was closed before an answer came.")))
        for awaited in self._unfinished.values():
            awaited.wake()

    def _put(self, sent: _Sent) -> None:
        if self._closed:
            sent.refuse(Unavailable(made("UNAVAILABLE", "The client is closed.")))
            return
        self._outbox.append(sent)
        self._wake.set()
        if self._connection is None:
            self._connection = self._loop.create_task(self._stay_connected(), name="tierflow-exchange")
        if self._sweep is None:
            self._sweep = self._loop.call_at(sent.expires, self._expire)

    def _expire(self) -> None:
        """Gives up requests without an answer in time. One timer serves them all: they are kept in order of sending."""
        self._sweep = None
        while self._unanswered:
            request_id, sent = next(iter(self._unanswered.items()))
            if sent.expires > self._loop.time():
                self._sweep = self._loop.call_at(sent.expires, self._expire)
                return
            del self._unanswered[request_id]
            if request_id not in self._asked and len(self._asked) >= MAX_ASKED:
                self._unanswered[request_id] = sent  # It has not had its turn; its time begins then.
                sent.expires = self._loop.time() + self._timeout
                continue
            self._asked.discard(request_id)
            silent = f"The coordinator at {self._address} did not answer in time. Submit again with the request id {request_id}: that is safe."
            sent.refuse(unreachable(self._address) if self._down_since else Unavailable(made("UNAVAILABLE", silent)))

    # The connection

    async def _stay_connected(self) -> None:
        delay = FIRST_DELAY
        self._down_since = None
        while True:
            error: TierflowError | None = None
            try:
                await self._converse()
            except grpc.aio.AioRpcError as broken:
                error = call_error(broken, self._address)
            if self._down_since is None:  # it was up until now
                self._down_since = self._loop.time()
                delay = FIRST_DELAY
            self._give_up(error)
            if not self._unanswered and not self._unfinished:
                self._connection = None
                return
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, MAX_DELAY)

    async def _converse(self) -> None:
        """One stream, until it ends. Raises `AioRpcError` where it breaks."""
        stream = self._open_stream()
        self._outbox = list(self._unanswered.values())
        self._attach = list(self._unfinished)
        self._asked.clear()
        self._wake.set()
        sender = self._loop.create_task(self._send(stream), name="tierflow-exchange-send")
        try:
            await stream.wait_for_connection()
            self._down_since = None
            while True:
                response = await stream.read()
                if not isinstance(response, ExecuteSwarmsResponse):  # the end of the stream
                    return
                for answer in response.answers:
                    self._answered(answer)
                for result in response.results:
                    self._ended(result)
        finally:
            sender.cancel()
            stream.cancel()
            await asyncio.wait([sender])

    async def _send(self, stream: Stream) -> None:
        try:
            while True:
                await self._wake.wait()
                if (self._outbox and len(self._asked) < MAX_ASKED) or self._attach:
                    await stream.write(self._next_frame())
                else:
                    self._wake.clear()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader learns why from the stream's status

    def _next_frame(self) -> ExecuteSwarmsRequest:
        size = count = 0
        most = min(MAX_ITEMS, MAX_ASKED - len(self._asked))
        for sent in self._outbox:
            if count >= most or (count and size + sent.size > MAX_BYTES):
                break
            size += sent.size
            count += 1
        items, self._outbox = self._outbox[:count], self._outbox[count:]
        attach, self._attach = self._attach[:MAX_ITEMS], self._attach[MAX_ITEMS:]
        requests = [sent.request for sent in items if not sent.answer.done()]
        self._asked.update(request.context.request_id for request in requests)
        return ExecuteSwarmsRequest(execute=requests, attach=attach)

    def _give_up(self, error: TierflowError | None) -> None:
        """The stream ended: decides who has waited long enough."""
        now = self._loop.time()
        if (
            error is not None
            and code_name(error.failure) != "INTERNAL"
            and not isinstance(error, Unavailable | ResourceExhausted)
        ):
            self._fail_unanswered(error)
            for awaited in self._unfinished.values():
                awaited.error = error
                awaited.wake()
            self._unfinished.clear()
        elif now - (self._down_since or now) >= self._patience:
            self._fail_unanswered(error or unreachable(self._address))

    def _fail_unanswered(self, error: TierflowError) -> None:
        unanswered, self._unanswered = self._unanswered, {}
        self._outbox = []
        for sent in unanswered.values():
            sent.refuse(type(error)(error.failure))

    # What comes back

    def _answered(self, answer: SubmitSwarmAnswer) -> None:
        if not answer.request_id:
            self._attach_refused(answer)
            return
        if len(self._asked) >= MAX_ASKED:
            self._wake.set()
        self._asked.discard(answer.request_id)
        sent = self._unanswered.get(answer.request_id)
        if sent is None or sent.answer.done():
            return  # stale: given up, or answered before the stream broke
        if answer.WhichOneof("answer") == "accepted":
            sent.answer.set_result((answer.accepted, self._awaited(answer.accepted)))
        elif delay := self._again_after(sent, answer.refused):
            self._loop.call_later(delay, self._again, sent)
            return
        else:
            sent.refuse(error_of(answer.refused))
        del self._unanswered[answer.request_id]

    def _again_after(self, sent: _Sent, refusal: Failure) -> float:
        """Seconds after which a refused request is sent again; 0.0 where its caller is told of the refusal."""
        now, code = self._loop.time(), code_name(refusal)
        if code in _AGAIN:
            return FIRST_DELAY if now + FIRST_DELAY < sent.expires else 0.0
        if code not in _FULL:
            return 0.0
        delay = come_back(sent.refusals, refusal)
        if now + delay > sent.began + self._patience:
            return 0.0
        sent.refusals += 1
        sent.expires = now + delay + self._timeout
        request_id = sent.request.context.request_id
        self._unanswered[request_id] = self._unanswered.pop(request_id)  # whose time ends last is last
        return delay

    def _awaited(self, accepted: SubmitSwarmResponse) -> Awaited | None:
        swarm_id = accepted.swarm_id
        awaited = self._unfinished.get(swarm_id)
        if awaited is None:
            if accepted.state in ENDED and swarm_id not in self._early:
                return None
            awaited = Awaited()
            awaited.result = self._early.pop(swarm_id, None)
            if awaited.result is None:
                self._unfinished[swarm_id] = awaited
        return awaited

    def _attach_refused(self, answer: SubmitSwarmAnswer) -> None:
        """A swarm cannot be attached to: later, where that can help; else who waits is told why."""
        awaited = self._unfinished.get(answer.swarm_id)
        if awaited is None:
            return
        if answer.refused.retryable:
            self._loop.call_later(MAX_DELAY, self._attach_again, answer.swarm_id)
            return
        del self._unfinished[answer.swarm_id]
        awaited.error = error_of(answer.refused)
        awaited.wake()

    def _attach_again(self, swarm_id: str) -> None:
        if swarm_id in self._unfinished:
            self._attach.append(swarm_id)
            self._wake.set()

    def _again(self, sent: _Sent) -> None:
        if not sent.answer.done():
            self._put(sent)

    def _ended(self, result: SwarmExecutionResult) -> None:
        awaited = self._unfinished.pop(result.context.swarm_id, None)
        if awaited is not None:
            awaited.result = result
            awaited.wake()
            return
        self._early[result.context.swarm_id] = result
        if len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)


def come_back(refusals: int, refusal: Failure) -> float:
    """Seconds to wait before a request that was refused so often before comes back: what the refusal asks for and some more, so that not all come at once."""
    asked = refusal.retry_after.seconds + refusal.retry_after.nanos / 1e9
    grown: float = min(FIRST_RETURN * 2**refusals, MAX_RETURN)
    return max(asked, grown) * random.uniform(1.0, 1.5)
