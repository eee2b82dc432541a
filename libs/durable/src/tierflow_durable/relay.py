"""Carries committed events to JetStream (rules R19 to R21).

The journal is the outbox: the owner publishes what it committed, many messages in flight, and saves one watermark: the position up to which everything is
acknowledged. What a crash left unpublished is read from the journal by a peer. Nothing waits for the relay.

Events of one entity and class that follow each other share a message: while there is little to do each commit is sent at once, under load what gathers within a few
milliseconds travels together (docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from tierflow_runtime.logs import get_log
from tierflow_runtime.subjects import RELIABLE
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.database import Database
from tierflow_durable.departed import PAGE, Departed, Publisher, is_final
from tierflow_durable.machine import Source
from tierflow_durable.packing import Group, Message, messages_of, messages_of_row, sort_in

log = get_log(__name__)

MOST_IN_MEMORY = 20_000
MOST_BYTES = 64 * 1024 * 1024
"""Rows kept in memory while JetStream is slow or away, and their bytes; beyond, they are read from the journal again."""

LINGER = 0.02
"""Seconds between looks at what has gathered."""

LINGER_MOST = 0.2
"""Seconds for which events gather while many entities have some, so that an entity's events travel together; those of an entity that is let go do not wait."""

FEW = 16
"""Parcels of so many entities are sent at once: there is little to do."""

PARCEL_BYTES = 256 * 1024
"""A parcel that has gathered as much is sent at once."""

_NOBODY = Source(tenant="", user_id="", swarm_id="", run_id="", trace_id="", correlation_id="")
"""Where the messages of a parcel say whose they are."""

AGAIN_AFTER = 0.5
"""Seconds after which a message that was not acknowledged is sent again."""


class Waybill:
    """One journal row on its way: its position, its bytes, and whether its events are not yet acknowledged."""

    __slots__ = ("open", "position", "size")

    def __init__(self, position: int, size: int) -> None:
        self.position = position
        self.size = size
        self.open = True


class Parcel:
    """Rows of one entity whose events travel together: a message for each class."""

    __slots__ = ("entity_id", "groups", "head", "open", "prefix", "since", "size", "source", "waybills")

    def __init__(self, entity_id: str, source: Source, prefix: str, head: bytes, since: float) -> None:
        self.entity_id = entity_id
        self.source = source
        self.prefix = prefix
        self.head = head
        self.since = since
        """Loop seconds at which it was begun."""
        self.groups: list[Group] = []
        self.size = 0
        self.waybills: list[Waybill] = []
        self.open = 0
        """Messages that are not acknowledged."""


class Letter:
    """A message on its way, with the parcel that it is a part of."""

    __slots__ = ("_relay", "message", "parcel")

    def __init__(self, relay: Relay, message: Message, parcel: Parcel) -> None:
        self._relay = relay
        self.message = message
        self.parcel = parcel

    def heard(self, answer: bytes | FailureError) -> None:
        """It has arrived, or not."""
        self._relay.answered(self, answer)


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
        self._open: dict[str, Parcel] = {}
        """By entity, the oldest first."""
        self._closed: deque[Parcel] = deque()
        """Parcels to which nothing is added any more; they are sent before the others."""
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
        self.acknowledged: Counter[str] = Counter()
        """Events that JetStream has acknowledged, by class."""
        self.retries = 0
        self.undeliverable = 0
        """Messages that JetStream will never take, because they are larger than it allows; readers find their events in the journal."""
        self.on_undeliverable: Callable[[Message, FailureError], None] = lambda message, refusal: None
        self._departed.refused = lambda message, refusal: self.on_undeliverable(message, refusal)

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
        parcel = self._open.get(entity.id)
        if parcel is None:
            now = asyncio.get_running_loop().time()
            parcel = self._open[entity.id] = Parcel(entity.id, entity.source, entity.prefix, entity.source_bytes, now)
        parcel.waybills.append(waybill)
        parcel.size += waybill.size
        sort_in(parcel.groups, first_seq, parts, classes)
        if last or parcel.size > PARCEL_BYTES:
            del self._open[entity.id]
            self._closed.append(parcel)
        if self._flush_at is None:
            self._plan_flush()

    def _hold(self, position: int, size: int) -> Waybill:
        waybill = Waybill(position, size)
        self._waybills.append(waybill)
        self.held_bytes += size
        return waybill

    @property
    def _can_send(self) -> bool:
        return self._room() > 0

    def _room(self) -> int:
        """Parcels that may be sent now, each with a message of every class."""
        if self._publisher is None or not self._publisher.connected:
            return 0
        return self._publisher.room // len(RELIABLE)

    def _plan_flush(self) -> None:
        """At once after a quiet moment, else when a few milliseconds' events have gathered."""
        loop = asyncio.get_running_loop()
        quiet = loop.time() - self._flushed_at > 2 * LINGER
        self._flush_at = loop.call_later(0 if quiet else LINGER, self._flush_parcels)

    def _flush_parcels(self, *, everything: bool = False) -> None:
        self._flush_at = None
        self._flushed_at = now = asyncio.get_running_loop().time()
        room = self._room()
        while self._closed and room > 0:
            self._send(self._closed.popleft())
            room -= 1
        everything = everything or len(self._open) <= FEW
        while self._open and room > 0:
            entity_id, parcel = next(iter(self._open.items()))
            if not everything and now - parcel.since < LINGER_MOST:
                break
            del self._open[entity_id]
            self._send(parcel)
            room -= 1
        if self._open and room > 0:
            self._plan_flush()

    def _send(self, parcel: Parcel) -> None:
        messages = messages_of(parcel.entity_id, parcel.source, parcel.prefix, parcel.head, parcel.groups, self._me)
        self._send_all(parcel, messages)

    def _send_all(self, parcel: Parcel, messages: list[Message]) -> None:
        parcel.open = len(messages)
        for message in messages:
            self._post(Letter(self, message, parcel))

    def _post(self, letter: Letter) -> None:
        if self._publisher is not None:
            self._publisher.send(letter.message, letter.heard)

    def answered(self, letter: Letter, answer: bytes | FailureError) -> None:
        """A message was acknowledged, or was not."""
        if isinstance(answer, FailureError):
            if not is_final(answer):
                self._retry(letter, answer)
                return
            self.undeliverable += 1
            message = letter.message
            log.error("an event message is too large for JetStream", subject=message.subject, msg_id=message.msg_id)
            self.on_undeliverable(message, answer)
        else:
            self.published += 1
            self.acknowledged[letter.message.name] += letter.message.events
        parcel = letter.parcel
        parcel.open -= 1
        if not parcel.open:
            self._sign_off(parcel)

    def _retry(self, letter: Letter, error: FailureError) -> None:
        self.retries += 1
        if self.retries % 1000 == 1:
            subject = letter.message.subject
            log.warning("an event was not acknowledged; it is sent again", subject=subject, reason=str(error))
        asyncio.get_running_loop().call_later(AGAIN_AFTER, self._again, letter)

    def _sign_off(self, parcel: Parcel) -> None:
        """Moves the watermark to the last row before which everything is acknowledged."""
        for waybill in parcel.waybills:
            waybill.open = False
        waybills = self._waybills
        while waybills and not waybills[0].open:
            waybill = waybills.popleft()
            self.held_bytes -= waybill.size
            self.watermark = waybill.position
        if self._closed or (self._open and self._flush_at is None) or self._behind:
            self._wake.set()

    def _again(self, letter: Letter) -> None:
        if self._can_send:
            self._post(letter)
        else:
            asyncio.get_running_loop().call_later(AGAIN_AFTER, self._again, letter)

    async def run(self) -> None:
        """Sends what could not be sent at once, reads what was dropped from memory, saves the watermark about every second."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 1.0)
            self._wake.clear()
            if self._flush_at is None:
                self._flush_parcels()
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
            parcel = Parcel(str(row["entity_id"]), _NOBODY, "", b"", 0.0)
            parcel.waybills.append(self._hold(row["position"], len(row["data"])))
            self._send_all(parcel, messages_of_row(self._kind, row, self._me))
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
            self._flush_parcels(everything=True)
            self._wake.set()
            await asyncio.sleep(0.01)
        await self.save()
        return self.lag <= 0
