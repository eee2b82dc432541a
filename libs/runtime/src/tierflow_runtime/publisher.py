"""The publisher: the only module that publishes (B16), and the two guarantees that there are (H11).

Reliable: `send` calls back, and `publish` gives a future that is done, when JetStream has acknowledged. Many are in flight at once; acknowledgements come back on one
subscription, and are read below it (`acknowledgements`). Fire and forget: `publish_progress` and `hint`; without a connection, or beyond the bound, they are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from tierflow_contracts.events.v1.event_pb2 import EventBatch, EventClass

from tierflow_runtime.acknowledgements import parser_of
from tierflow_runtime.afterwards import together
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.standing import LastWord
from tierflow_runtime.subjects import RELIABLE, class_of, subjects_of
from tierflow_runtime.values import FailureError

log = get_log(__name__)

IN_FLIGHT: Final = 4096
ACK_TIMEOUT: Final = 10.0
MESSAGE_ID: Final = "Nats-Msg-Id"
TRACEPARENT: Final = "traceparent"
_NO_RESPONDERS: Final = "503"
_TOO_LARGE: Final = 10054
"""JetStream's error number for a message that is larger than its stream allows."""
_SLICE: Final = 64
"""Messages that are written before others may run."""


class Ack(NamedTuple):
    """JetStream's word that a message is stored: where, and whether it had it already."""

    stream: str
    seq: int
    duplicate: bool


Heard: TypeAlias = Callable[[bytes | FailureError], None]
"""Hears JetStream's acknowledgement as it came, or why there is none."""


_Item: TypeAlias = tuple[str, bytes, str, Heard | None]
"""Subject, payload, head, and who hears; a plain tuple, of which some thousand a second are made."""


def _head(msg_id: str, headers: Mapping[str, str] | None) -> str:
    """Headers as the server reads them. A value with a line end would be further headers: it is left out."""
    head = f"NATS/1.0\r\n{MESSAGE_ID}: {msg_id}\r\n"
    if headers:
        for name, value in headers.items():
            if "\n" not in value and "\r" not in value:
                head += f"{name}: {value}\r\n"
    return head + "\r\n"


class EventPublisher:
    """Publishes over one connection, which `messaging` opens, loses and opens again. For one event loop."""

    def __init__(
        self,
        *,
        in_flight: int = IN_FLIGHT,
        ack_timeout: float = ACK_TIMEOUT,
        stream_missing: Callable[[], None] | None = None,
    ) -> None:
        """Prepares; `run` does the work.

        Args:
            in_flight: Most reliable messages that wait or are unacknowledged.
            ack_timeout: Seconds after which a message that is not acknowledged has failed.
            stream_missing: Called when a message found no stream.
        """
        self._bound = in_flight
        self._ack_timeout = ack_timeout
        self._stream_missing = stream_missing
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._queue: deque[_Item] = deque()
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._none = asyncio.Event()
        self._none.set()
        self._unacknowledged: dict[int, tuple[Heard, float]] = {}
        """By number, the oldest first: who hears, and the moment at which it has failed."""
        self._open = 0
        self._number = 0
        self.last_word = LastWord()
        self.acknowledged = 0
        """Reliable messages that JetStream has stored."""
        self.failed = 0
        """Reliable messages whose future has an error."""
        self.dropped = 0
        """Fire-and-forget messages that were dropped."""

    @property
    def in_flight(self) -> int:
        """Reliable messages that wait or are unacknowledged."""
        return self._open

    @property
    def room(self) -> int:
        """Reliable messages that may be published now."""
        return self._bound - self._open

    async def wait_room(self) -> None:
        """Waits until a reliable message may be published."""
        await self._room.wait()

    def publish_batch(
        self, batch: EventBatch, event_class: EventClass.ValueType, *, instance: str, traceparent: str = ""
    ) -> asyncio.Future[Ack]:
        """Publishes events of one entity and class that were committed together (rule R20).

        The message id is `entity/class/first seq/instance`. Errors are in the future, as for `publish`; also INTERNAL, where an event is of an unknown kind or
        another class, or there is none (A11).
        """
        source = batch.source
        try:
            if (
                not batch.events
                or any(class_of(event) != event_class for event in batch.events)
                or event_class not in RELIABLE
            ):
                raise FailureError(
                    failure(
                        "INTERNAL",
                        "A batch of events that are not of its class was not published.",
                        component="messaging",
                        operation="publish_batch",
                    )
                )
        except FailureError as error:
            return self._failed(error)
        name = RELIABLE[event_class]
        subject = subjects_of(source.tenant, source.swarm_id, source.run_id).of(event_class)
        headers = {TRACEPARENT: traceparent} if traceparent else None
        return self.publish(
            subject, batch.SerializeToString(), f"{source.entity_id}/{name}/{batch.events[0].seq}/{instance}", headers
        )

    def publish(
        self, subject: str, payload: bytes, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[Ack]:
        """Publishes one message reliably: the future is done when JetStream has it. Never waits.

        The future's error is a FailureError: EVENTS_UNAVAILABLE (no connection, lost connection, no acknowledgement in time, no stream; publish again),
        MESSAGE_TOO_LARGE (final), or QUEUE_FULL (see `room` and `wait_room`).
        """
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()

        def heard(answer: bytes | FailureError) -> None:
            if future.done():
                return  # cancelled by whoever waited
            if isinstance(answer, FailureError):
                future.set_exception(answer)
                future.exception()  # whoever fires and forgets a reliable message is not warned of; `failed` counts
            else:
                future.set_result(_ack(answer))

        self.send(subject, payload, msg_id, headers, heard)
        return future

    def send(self, subject: str, payload: bytes, msg_id: str, headers: Mapping[str, str] | None, heard: Heard) -> None:
        """As `publish`; `heard` is called once, possibly before this returns."""
        if self._open >= self._bound:
            self.failed += 1
            heard(_error("QUEUE_FULL", f"{self._bound} messages are in flight; wait for room."))
            return
        if not self._open:
            self._none.clear()
        self._open += 1
        if self._open >= self._bound:
            self._room.clear()
        if not self._queue:  # else `run` is at it
            self._more.set()
        self._queue.append((subject, payload, _head(msg_id, headers), heard))

    def publish_progress(self, subject: str, batch: EventBatch) -> None:
        """Publishes progress, fire and forget: it may be lost, and costs nobody anything but this. Raises FailureError for events that are not progress."""
        if any(class_of(event) != EventClass.EVENT_CLASS_PROGRESS for event in batch.events):
            raise FailureError(
                failure(
                    "INTERNAL",
                    "Only progress may be fired and forgotten.",
                    component="messaging",
                    operation="publish_progress",
                )
            )
        self.hint(subject, batch.SerializeToString())

    def hint(self, subject: str, payload: bytes = b"") -> None:
        """Publishes a message that nobody needs for correctness (rules R15, R21)."""
        if self._client is None or len(self._queue) >= self._bound:
            self.dropped += 1
            return
        self._queue.append((subject, payload, "", None))
        self._more.set()

    async def run(self) -> None:
        """Sends what is published and fails what is not acknowledged in time, until cancelled."""
        try:
            await together(self._fail_late(), self._send())
        finally:
            self._fail_all("The publisher has stopped.")

    async def connected(self, client: Client) -> None:
        """Takes a new connection into use."""
        self._inbox = client.new_inbox() + "."
        self._subscription = await client.subscribe(
            self._inbox + "*", cb=self._acknowledge, pending_msgs_limit=2 * self._bound + 1024
        )
        parser = parser_of(client)
        if parser is not None:
            parser.hear(self._inbox, self._answer)
        self._client = client

    def resumed(self, client: Client) -> None:
        """Uses the connection again, which was re-established with its subscriptions."""
        self._client = client

    def disconnected(self) -> None:
        """The connection is lost: acknowledgements under way will not come, so that everything in flight has failed."""
        self._client = None
        self.last_word.refused_since = None
        self._fail_all("The connection to NATS is lost.")

    async def drained(self, timeout: float) -> bool:
        """Waits until nothing is in flight, at most `timeout` seconds; whether that is so."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none.wait(), timeout)
        return self._open == 0

    async def _send(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            await self._send_queued()

    async def _send_queued(self) -> None:
        while True:
            block = self._block()
            if block:
                await self._write(block)
            if not self._queue:
                return
            await asyncio.sleep(0)

    def _block(self) -> bytes:
        """The next messages as the server reads them."""
        client = self._client
        most = client.max_payload if client is not None else 0
        due = time.monotonic() + self._ack_timeout
        parts: list[bytes] = []
        for _ in range(min(len(self._queue), _SLICE)):
            item = self._queue.popleft()
            if client is None:
                self._fail(item[3], _error("EVENTS_UNAVAILABLE", "There is no connection to NATS."))
            else:
                self._add(parts, item, most, due)
        return b"".join(parts)

    def _add(self, parts: list[bytes], item: _Item, most: int, due: float) -> None:
        """Adds one message to a block, where the server takes it."""
        subject, payload, head, heard = item
        length = len(head) if head.isascii() else len(head.encode())
        size = length + len(payload)
        if size > most:
            text = f"An event message has {size} bytes; this NATS server takes {most}."
            self._fail(heard, _error("MESSAGE_TOO_LARGE", text))
            return
        if heard is None:
            parts.append(f"PUB {subject} {size}\r\n".encode())
        else:
            self._number = number = self._number + 1
            self._unacknowledged[number] = (heard, due)
            parts.append(f"HPUB {subject} {self._inbox}{number} {length} {size}\r\n{head}".encode())
        parts.append(payload)
        parts.append(b"\r\n")

    async def _write(self, block: bytes) -> None:
        """Writes several messages at once: a third of the cost of one call each. Goes through the client's own buffer, below its `publish`."""
        client = self._client
        if client is None:
            return  # what is unacknowledged has failed when the connection was lost
        try:
            await client._send_command(block)
            await client._flush_pending()
        except (NatsError, OSError) as error:
            log.debug("NATS did not take messages; they fail in time", reason=f"{type(error).__name__}: {error}")

    async def _acknowledge(self, message: Msg) -> None:
        """An answer that has taken the long way: one that was cut in two as it came, or has no content."""
        number = int(message.subject.removeprefix(self._inbox))
        if message.data:
            self._answer(number, message.data)
            return
        found = self._unacknowledged.pop(number, None)
        if found is None:
            return
        missing = (message.headers or {}).get("Status") == _NO_RESPONDERS
        text = "No stream takes the message." if missing else "NATS answered with nothing."
        self._fail(found[0], _error("EVENTS_UNAVAILABLE", text))
        if missing and self._stream_missing is not None:
            self._stream_missing()

    def _answer(self, number: int, data: bytes) -> None:
        """JetStream's answer to a message."""
        found = self._unacknowledged.pop(number, None)
        if found is None:
            return  # too late, or of a connection that was lost: it has failed already
        if b'"error"' in data and (problem := orjson.loads(data).get("error")) is not None:
            code = "MESSAGE_TOO_LARGE" if problem.get("err_code") == _TOO_LARGE else "EVENTS_UNAVAILABLE"
            self.last_word.refused()
            self._fail(found[0], _error(code, "JetStream refused a message.", str(problem)))
            return
        self.last_word.answer = data
        self.last_word.refused_since = None
        self.acknowledged += 1
        self._closed()
        found[0](data)

    async def _fail_late(self) -> None:
        """Fails what is not acknowledged in time; the oldest are first in the dictionary."""
        while True:
            await asyncio.sleep(min(1.0, self._ack_timeout / 4))
            now = time.monotonic()
            while self._unacknowledged:
                number, (heard, due) = next(iter(self._unacknowledged.items()))
                if due > now:
                    break
                del self._unacknowledged[number]
                self.last_word.refused()
                text = f"NATS did not acknowledge a message within {self._ack_timeout:g} seconds."
                self._fail(heard, _error("EVENTS_UNAVAILABLE", text))

    def _fail_all(self, message: str) -> None:
        waiting = [item[3] for item in self._queue] + [heard for heard, _ in self._unacknowledged.values()]
        self._queue.clear()
        self._unacknowledged.clear()
        for heard in waiting:
            self._fail(heard, _error("EVENTS_UNAVAILABLE", message))

    def _fail(self, heard: Heard | None, error: FailureError) -> None:
        if heard is None:
            self.dropped += 1
            return
        self.failed += 1
        self._closed()
        heard(error)

    def _closed(self) -> None:
        """One message less is in flight."""
        self._open -= 1
        if self._open == self._bound - 1:
            self._room.set()
        if not self._open:
            self._none.set()

    def _failed(self, error: FailureError) -> asyncio.Future[Ack]:
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self.failed += 1
        future.set_exception(error)
        future.exception()
        return future


def _ack(data: bytes) -> Ack:
    answer = orjson.loads(data)
    return Ack(answer.get("stream", ""), answer.get("seq", 0), answer.get("duplicate", False))


def _error(code: str, message: str, detail: str = "") -> FailureError:
    return FailureError(failure(code, message, component="messaging", operation="publish", detail=detail))
