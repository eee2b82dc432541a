"""Carries committed events to JetStream (rules R19 to R21).

The journal is the outbox: the owner publishes what it committed, many messages in flight, and saves one watermark: the position up to which everything is
acknowledged. What a crash left unpublished is read from the journal by a peer. Nothing waits for the relay.

Events of one entity and class that follow each other share a message: while there is little to do each commit is sent at once, under load what gathers within a few
milliseconds travels together (docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tierflow_runtime.logs import get_log
from tierflow_runtime.subjects import RELIABLE
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.database import Database
from tierflow_durable.departed import PAGE, Departed, Publisher, is_final
from tierflow_durable.machine import Source
from tierflow_durable.packing import Message, by_class, messages_of, messages_of_row

log = get_log(__name__)

MOST_IN_MEMORY = 20_000
MOST_BYTES = 64 * 1024 * 1024
"""Rows kept in memory while JetStream is slow or away, and their bytes; beyond, they are read from the journal again."""

LINGER = 0.02
"""Seconds between looks at what has gathered."""

LINGER_MOST = 0.2
"""Seconds for which events gather while many entities have some, so that an entity's events travel together; those of an entity that is let go do not wait."""

FEW = 16
"""So many gathered messages are sent at once: there is little to do."""

BOX_BYTES = 256 * 1024
"""A message that has gathered as much is sent at once."""

AGAIN_AFTER = 0.5
"""Seconds after which a message that was not acknowledged is sent again."""


class Waybill:
    """One journal row on its way: its position, its bytes, and how many of its messages are not yet acknowledged."""

    __slots__ = ("open", "position", "size")

    def __init__(self, position: int, size: int) -> None:
        self.position = position
        self.size = size
        self.open = 0


class Box:
    """Events of one entity and class that will share a message."""

    __slots__ = ("bodies", "entity_id", "first_seq", "head", "name", "since", "size", "source", "waybills")

    def __init__(self, entity: Any, name: str, first_seq: int, since: float) -> None:
        self.entity_id: str = entity.id
        self.source: Source = entity.source
        self.head: bytes = entity.source_bytes
        self.name = name
        self.first_seq = first_seq
        self.since = since
        """Loop seconds at which it was begun."""
        self.bodies: list[bytes] = []
        self.size = 0
        self.waybills: list[Waybill] = []


class Relay:
    """Publishes the rows of this instance, and those that departed instances left."""

    def __init__(
        self, database: Database, publisher: Publisher | None, *, kind: str, instance_id: str, first_position: int
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._kind = kind
        self._me = instance_id
        self._departed = Departed(database, publisher, kind=kind, instance_id=instance_id)
        self._boxes: dict[tuple[str, str], Box] = {}
        """By entity and class, the oldest first."""
        self._full: deque[Box] = deque()
        """Boxes to which nothing is added any more; they are sent before the others."""
        self._waybills: deque[Waybill] = deque()
        """Rows in the order of their positions, the oldest that is not acknowledged first."""
        self.held_bytes = 0
        """Of the rows in memory."""
        self._flush_at: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self.watermark = first_position
        self._saved = first_position
        self._last = first_position
        """Position of the newest row known to be committed."""
        self._behind = False
        """Rows were dropped from memory: they are read from the journal."""
        self._wake = asyncio.Event()
        self.published = 0
        self.retries = 0
        self.undeliverable = 0
        """Messages that JetStream will never take, because they are larger than it allows; readers find their events in the journal."""

    @property
    def lag(self) -> int:
        """Journal positions that are committed and not acknowledged by JetStream."""
        return self._last - self.watermark

    # --- rows of this instance ---

    def enqueue(
        self,
        position: int,
        first_seq: int,
        parts: Sequence[bytes],
        classes: Sequence[str],
        entity: Any,
        *,
        last: bool = False,
    ) -> None:
        """Takes a committed row; `last`: nothing follows soon, because the entity is let go."""
        self._last = position
        if self._publisher is None:
            self.watermark = position
            return
        if self._behind:
            return
        if len(self._waybills) >= MOST_IN_MEMORY or self.held_bytes >= MOST_BYTES:
            self._behind = True
            return
        waybill = self._hold(position, sum(map(len, parts)))
        for name, seq, body in by_class(first_seq, parts, classes):
            self._pack(entity, name, seq, body, waybill)
        if last:
            self._close(entity.id)
        if self._flush_at is None:
            self._plan_flush()

    def _hold(self, position: int, size: int) -> Waybill:
        waybill = Waybill(position, size)
        self._waybills.append(waybill)
        self.held_bytes += size
        return waybill

    def _pack(self, entity: Any, name: str, first_seq: int, body: bytes, waybill: Waybill) -> None:
        box = self._boxes.get((entity.id, name))
        if box is None:
            now = asyncio.get_running_loop().time()
            box = self._boxes[entity.id, name] = Box(entity, name, first_seq, now)
        box.bodies.append(body)
        box.size += len(body)
        box.waybills.append(waybill)
        waybill.open += 1
        if box.size > BOX_BYTES:
            self._full.append(self._boxes.pop((entity.id, name)))

    def _close(self, entity_id: str) -> None:
        for name in RELIABLE.values():
            box = self._boxes.pop((entity_id, name), None)
            if box is not None:
                self._full.append(box)

    @property
    def _can_send(self) -> bool:
        return self._publisher is not None and self._publisher.connected and self._publisher.room > 0

    def _plan_flush(self) -> None:
        """At once after a quiet moment, else when a few milliseconds' events have gathered."""
        loop = asyncio.get_running_loop()
        quiet = loop.time() - self._flushed_at > 2 * LINGER
        self._flush_at = loop.call_later(0 if quiet else LINGER, self._flush_boxes)

    def _flush_boxes(self, *, everything: bool = False) -> None:
        self._flush_at = None
        self._flushed_at = now = asyncio.get_running_loop().time()
        while self._full and self._can_send:
            self._send(self._full.popleft())
        everything = everything or len(self._boxes) <= FEW
        while self._boxes and self._can_send:
            key, box = next(iter(self._boxes.items()))
            if not everything and now - box.since < LINGER_MOST:
                break
            del self._boxes[key]
            self._send(box)
        if self._boxes and self._can_send:
            self._plan_flush()

    def _send(self, box: Box) -> None:
        body = box.bodies[0] if len(box.bodies) == 1 else b"".join(box.bodies)
        messages = messages_of(box.entity_id, box.source, box.head, [(box.name, box.first_seq, body)], self._me)
        self._publish(messages[0], box.waybills)

    def _publish(self, message: Message, waybills: list[Waybill]) -> None:
        if self._publisher is not None:
            future = self._publisher.publish(message)
            future.add_done_callback(lambda done: self._answered(message, waybills, done))

    def _answered(self, message: Message, waybills: list[Waybill], done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None and not is_final(error):
            self.retries += 1
            if self.retries % 1000 == 1:
                log.warning(
                    "an event was not acknowledged; it is sent again", subject=message.subject, reason=str(error)
                )
            asyncio.get_running_loop().call_later(AGAIN_AFTER, self._again, message, waybills)
            return
        if error is not None:
            self.undeliverable += 1
            log.error("an event message is too large for JetStream", subject=message.subject, msg_id=message.msg_id)
        else:
            self.published += 1
        self._sign_off(waybills)

    def _sign_off(self, waybills: list[Waybill]) -> None:
        """Moves the watermark to the last row before which everything is acknowledged."""
        for waybill in waybills:
            waybill.open -= 1
        while self._waybills and self._waybills[0].open == 0:
            waybill = self._waybills.popleft()
            self.held_bytes -= waybill.size
            self.watermark = waybill.position
        if self._full or (self._boxes and self._flush_at is None) or self._behind:
            self._wake.set()

    def _again(self, message: Message, waybills: list[Waybill]) -> None:
        if self._can_send:
            self._publish(message, waybills)
        else:
            asyncio.get_running_loop().call_later(AGAIN_AFTER, self._again, message, waybills)

    async def run(self) -> None:
        """Sends what could not be sent at once, reads what was dropped from memory, saves the watermark about every second."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 1.0)
            self._wake.clear()
            if self._flush_at is None:
                self._flush_boxes()
            if self._behind and not self._waybills and self._can_send:
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
            waybill = self._hold(row["position"], len(row["data"]))
            for message in messages_of_row(self._kind, row, self._me):
                waybill.open += 1
                self._publish(message, [waybill])
        # Rows that were committed between the read and now are behind the page: they are read next.
        self._behind = len(rows) == PAGE or (bool(rows) and rows[-1]["position"] < self._last)
        self._wake.set()

    # --- rows that others left ---

    async def relay_departed(self) -> None:
        """See `Departed.relay`."""
        await self._departed.relay()

    async def fill(self, created: str, now: Callable[[], Micros]) -> None:
        """See `Departed.fill`."""
        await self._departed.fill(created, now)

    async def flush(self, timeout: float) -> bool:
        """Waits until everything committed is acknowledged, saves the watermark, and says whether that was so."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while self.lag > 0 and loop.time() < until and self._publisher is not None and self._publisher.connected:
            self._flush_boxes(everything=True)
            self._wake.set()
            await asyncio.sleep(0.01)
        await self.save()
        return self.lag <= 0
