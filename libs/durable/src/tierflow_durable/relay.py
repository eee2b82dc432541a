"""Carries committed events to JetStream (rules R19 to R21).

The journal is the outbox: the owner publishes what it committed, many messages in flight, and saves one watermark: the position up to which everything is
acknowledged. What a crash left unpublished is read from the journal by a peer. Nothing waits for the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime.logs import get_log
from tierflow_runtime.subjects import RELIABLE, class_of, subjects_of
from tierflow_runtime.values import FailureError

from tierflow_durable.database import Database
from tierflow_durable.machine import Source
from tierflow_durable.sqlfile import statement

log = get_log(__name__)

MOST_IN_MEMORY = 20_000
"""Rows kept in memory while JetStream is slow or away; beyond, they are read from the journal again."""

PAGE = 500
REFILL_LOCK = 0x7F10_0001


class Publisher(Protocol):
    """What the relay needs of `tierflow_runtime.messaging`; see `outlet`."""

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        ...

    @property
    def room(self) -> int:
        """Messages that may be sent now."""
        ...

    def publish(
        self, subject: str, payload: bytes, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[Any]:
        """Sends; the future is resolved by JetStream's acknowledgement or an error."""
        ...


class Parcel:
    """One journal row on its way: its position and how many of its messages are not yet acknowledged."""

    __slots__ = ("messages", "open", "position")

    def __init__(self, position: int, messages: list[tuple[str, bytes, str, Mapping[str, str] | None]]) -> None:
        self.position = position
        self.messages = messages
        self.open = len(messages)


def source_bytes(kind: str, source: Source) -> bytes:
    """The head of every batch of an entity: EventBatch.source as a serialised field."""
    message = event_pb2.EventBatch(
        source=event_pb2.EventSource(
            kind=kind, entity_id=source.run_id or source.swarm_id, tenant=source.tenant, user_id=source.user_id, swarm_id=source.swarm_id,
            run_id=source.run_id, trace_id=source.trace_id, correlation_id=source.correlation_id,
        )
    )  # fmt: skip
    return message.SerializeToString()


def event_part(encoded: bytes) -> bytes:
    """A serialised Event as a field of EventBatch: tag 2, length, message."""
    length = len(encoded)
    if length < 128:
        return b"\x12" + bytes((length,)) + encoded
    head = bytearray(b"\x12")
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + encoded


def by_class(first_seq: int, parts: Sequence[bytes], classes: Sequence[str]) -> list[tuple[str, int, bytes]]:
    """Groups a row's events: class, first sequence number, the events as fields of an EventBatch. One message each."""
    if len(set(classes)) == 1:
        return [(classes[0], first_seq, b"".join(parts))]
    groups: dict[str, tuple[int, list[bytes]]] = {}
    for offset, (part, name) in enumerate(zip(parts, classes, strict=True)):
        groups.setdefault(name, (first_seq + offset, []))[1].append(part)
    return [(name, seq, b"".join(some)) for name, (seq, some) in groups.items()]


class Relay:
    """Publishes the rows of this instance, and those that departed instances left."""

    def __init__(
        self, database: Database, publisher: Publisher | None, *, kind: str, instance_id: str, first_position: int,
    ) -> None:  # fmt: skip
        self._database = database
        self._publisher = publisher
        self._kind = kind
        self._me = instance_id
        self._queue: deque[Parcel] = deque()
        self._flight: deque[Parcel] = deque()
        self._open = 0
        self.watermark = first_position
        self._saved = first_position
        self._last = first_position
        """Position of the newest row known to be committed."""
        self._behind = False
        """Rows were dropped from memory: they are read from the journal."""
        self._refill = False
        self._wake = asyncio.Event()
        self.published = 0
        self.retries = 0

    @property
    def lag(self) -> int:
        """Journal positions that are committed and not acknowledged by JetStream."""
        return self._last - self.watermark

    # --- rows of this instance ---

    def enqueue(
        self, position: int, first_seq: int, parts: Sequence[bytes], classes: Sequence[str], entity: Any
    ) -> None:
        """Takes a committed row."""
        self._last = position
        if self._publisher is None:
            self.watermark = position
            return
        if self._behind:
            return
        if len(self._queue) + len(self._flight) >= MOST_IN_MEMORY:
            self._behind = True
            return
        parcel = Parcel(
            position, self._messages(entity.id, entity.source, entity.source_bytes, first_seq, parts, classes, self._me)
        )
        if self._queue or not self._publisher.connected or self._publisher.room < len(parcel.messages):
            self._queue.append(parcel)
            self._wake.set()
        else:
            self._send(parcel)

    def _messages(
        self,
        entity_id: str,
        source: Source,
        head: bytes,
        first_seq: int,
        parts: Sequence[bytes],
        classes: Sequence[str],
        instance_id: str,
    ) -> list[tuple[str, bytes, str, Mapping[str, str] | None]]:
        headers = {"traceparent": source.traceparent} if source.traceparent else None
        prefix = subjects_of(source.tenant, source.swarm_id, source.run_id).prefix
        return [
            (f"{prefix}.{name}", head + body, f"{entity_id}/{name}/{seq}/{instance_id}", headers)
            for name, seq, body in by_class(first_seq, parts, classes)
        ]

    def _send(self, parcel: Parcel) -> None:
        self._flight.append(parcel)
        for message in parcel.messages:
            self._publish(parcel, message)

    def _publish(self, parcel: Parcel, message: tuple[str, bytes, str, Mapping[str, str] | None]) -> None:
        assert self._publisher is not None
        self._open += 1
        future = self._publisher.publish(*message)
        future.add_done_callback(lambda done: self._answered(parcel, message, done))

    def _answered(
        self, parcel: Parcel, message: tuple[str, bytes, str, Mapping[str, str] | None], done: asyncio.Future[Any]
    ) -> None:
        self._open -= 1
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self.retries += 1
            if self.retries % 1000 == 1:
                log.warning(
                    "an event was not acknowledged; it is sent again",
                    extra={"error": f"{type(error).__name__}: {error}", "subject": message[0]},
                )
            asyncio.get_running_loop().call_later(0.5, self._again, parcel, message)
            return
        self.published += 1
        parcel.open -= 1
        while self._flight and self._flight[0].open == 0:
            self.watermark = self._flight.popleft().position
        if self._queue or self._behind:
            self._wake.set()

    def _again(self, parcel: Parcel, message: tuple[str, bytes, str, Mapping[str, str] | None]) -> None:
        if self._publisher is not None and self._publisher.connected:
            self._publish(parcel, message)
        else:
            asyncio.get_running_loop().call_later(0.5, self._again, parcel, message)

    async def run(self) -> None:
        """Sends what could not be sent at once, reads what was dropped from memory, saves the watermark about every second."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 1.0)
            self._wake.clear()
            if self._publisher is not None and self._publisher.connected:
                while self._queue and self._publisher.room >= len(self._queue[0].messages):
                    self._send(self._queue.popleft())
                if self._behind and not self._queue and not self._flight:
                    await self._catch_up()
            await self.save()

    async def save(self) -> None:
        """Saves the watermark, if it moved and the database is there."""
        if self.watermark == self._saved:
            return
        position = self.watermark
        try:
            await self._database.fetch("save_watermark", id=self._me, position=position)
            self._saved = position
        except FailureError:
            return

    async def _catch_up(self) -> None:
        """Reads own rows that were dropped from memory, a page at a time."""
        try:
            rows = await self._database.fetch("journal_after", instance=self._me, after=self.watermark, limit=PAGE)
        except FailureError:
            return
        for row in rows:
            self._send(self._parcel(row, self._me))
        if len(rows) < PAGE:
            if rows:
                self._last = max(self._last, rows[-1]["position"])
            # Rows committed between the read and now are beyond the page only if there were PAGE of them.
            self._behind = bool(rows) and rows[-1]["position"] < self._last
        self._wake.set()

    def _parcel(self, row: Any, instance_id: str) -> Parcel:
        entity_id = str(row["entity_id"])
        source = self._source(entity_id, row)
        batch = event_pb2.EventBatch.FromString(row["data"])
        parts = [event_part(event.SerializeToString()) for event in batch.events]
        classes = [RELIABLE[class_of(event)] for event in batch.events]
        return Parcel(
            row["position"],
            self._messages(
                entity_id, source, source_bytes(self._kind, source), row["first_seq"], parts, classes, instance_id
            ),
        )

    def _source(self, entity_id: str, row: Any) -> Source:
        run = self._kind == "run"
        return Source(
            tenant=row["tenant"], user_id=row["user_id"], swarm_id=str(row["parent_id"] or "") if run else entity_id, run_id=entity_id if run else "",
            trace_id=row["trace_id"], correlation_id=row["correlation_id"],
        )  # fmt: skip

    # --- rows that others left ---

    async def relay_departed(self) -> None:
        """Publishes what fenced and departed instances committed and did not publish, terminal and parked entities included (rule R19)."""
        if self._publisher is None or not self._publisher.connected:
            return
        for row in await self._database.fetch("orphaned_watermarks", me=self._me):
            instance_id, position = str(row["id"]), row["position"]
            if await self._relay_from(instance_id, position):
                await self._database.fetch("drop_watermark", id=instance_id)

    async def _relay_from(self, instance_id: str, position: int) -> bool:
        while True:
            rows = await self._database.fetch("journal_after", instance=instance_id, after=position, limit=PAGE)
            if not rows:
                return True
            if not await self._publish_all([self._parcel(row, instance_id) for row in rows]):
                return False
            position = rows[-1]["position"]
            await self._database.fetch("save_watermark", id=instance_id, position=position)

    async def _publish_all(self, parcels: list[Parcel]) -> bool:
        assert self._publisher is not None
        futures = [self._publisher.publish(*message) for parcel in parcels for message in parcel.messages]
        results = await asyncio.gather(*futures, return_exceptions=True)
        return not any(isinstance(result, BaseException) for result in results)

    async def refill(self) -> None:
        """Publishes the whole retained journal again, after the stream was lost and made anew (rule R20). One instance of the tier does it."""
        self._refill = True
        session = await self._database.session()
        try:
            lock = statement("try_lock")
            if not await session.fetchval(lock.text, *lock.arguments(key=REFILL_LOCK)):
                return
            after_id, after_seq = "00000000-0000-0000-0000-000000000000", 0
            while True:
                rows = await self._database.fetch("journal_page", after_id=after_id, after_seq=after_seq, limit=PAGE)
                if not rows:
                    break
                if not await self._publish_all([self._parcel(row, str(row["instance"])) for row in rows]):
                    await asyncio.sleep(1)
                    continue
                after_id, after_seq = str(rows[-1]["entity_id"]), rows[-1]["seq"]
            log.info("the event stream is filled again from the journal")
        finally:
            self._refill = False
            await session.close()

    async def flush(self, timeout: float) -> bool:
        """Waits until everything committed is acknowledged, saves the watermark, and says whether that was so."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while self.lag > 0 and loop.time() < until and self._publisher is not None and self._publisher.connected:
            self._wake.set()
            await asyncio.sleep(0.01)
        await self.save()
        return self.lag <= 0
