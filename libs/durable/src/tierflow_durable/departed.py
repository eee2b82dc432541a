"""Events that nobody else will publish: what departed instances left, and everything, after the stream was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError, Micros

from tierflow_durable.database import Database, is_weather
from tierflow_durable.ids import floor_of
from tierflow_durable.packing import Message, messages_of_row
from tierflow_durable.sqlfile import statement

log = get_log(__name__)

CLOCKS_DIFFER: Micros = 5_000_000
"""Microseconds by which the clocks that ids are made from may be ahead of the database's."""

PAGE = 500
FILL_LOCK = 0x7F10_0001
LOOK_EVERY = 1.0
"""Seconds between looks whether whoever fills the stream has done so."""


class Publisher(Protocol):
    """What relaying needs of `tierflow_runtime.messaging`; see `outlet`."""

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        ...

    @property
    def room(self) -> int:
        """Messages that may be sent now."""
        ...

    def send(self, message: Message, heard: Callable[[bytes | FailureError], None]) -> None:
        """Sends; `heard` is called once, with JetStream's acknowledgement or an error, possibly before this returns."""
        ...


class Departed:
    """Relays from the journal what other instances committed."""

    def __init__(self, database: Database, publisher: Publisher | None, *, kind: str, instance_id: str) -> None:
        self._database = database
        self._publisher = publisher
        self._kind = kind
        self._me = instance_id
        self.refused: Callable[[Message, FailureError], None] = lambda message, refusal: None
        """Hears of messages that JetStream will never take."""

    async def relay(self) -> None:
        """Publishes what fenced and departed instances committed and did not publish, terminal and parked entities included (rule R19).

        Where there is no event stream at all nothing is owed to it, and no day is kept for its sake: one that comes later is filled from the journals (rule R20).
        """
        if self._publisher is None:
            for row in await self._database.fetch("orphaned_watermarks", me=self._me):
                await self._database.fetch("waive_watermark", id=str(row["id"]))
            return
        if not self._publisher.connected:
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
            if not await self._publish(rows, instance_id):
                return False
            position = rows[-1]["position"]
            await self._database.fetch("save_watermark", id=instance_id, position=position)

    async def _publish(self, rows: list[Any], instance_id: str | None = None) -> bool:
        if self._publisher is None:
            return False
        messages = [
            message for row in rows for message in messages_of_row(self._kind, row, instance_id or str(row["instance"]))
        ]
        return await _all_sent(self._publisher, messages, self.refused)

    async def fill(self, created: str, now: Callable[[], Micros]) -> None:
        """Publishes the whole retained journal on a stream that does not have it yet (rule R20): one instance of the tier does it, and another where that dies.

        Args:
            created: Which stream: the moment of its creation, as it says itself.
            now: The database's clock.
        """
        while True:
            try:
                if await self._filled(created):
                    return
                await self._fill(created, now)
            except Exception as error:
                if not isinstance(error, FailureError) and not is_weather(error):
                    raise
                log.info("filling the event stream waits for the database", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(LOOK_EVERY)

    async def _filled(self, created: str) -> bool:
        return await self._database.fetchrow("stream_filled", created=created) is not None

    async def _fill(self, created: str, now: Callable[[], Micros]) -> None:
        session = await self._database.session()
        try:
            lock = statement("try_lock")
            if not await session.fetchval(lock.text, *lock.arguments(key=_key(self._kind))):
                return
            if await self._filled(created):
                return
            rows = await self._publish_all(floor_of(now() + CLOCKS_DIFFER))
            await self._database.fetch("note_stream_filled", created=created, now=now())
            log.info("the journal is on the event stream", created=created, rows=rows)
        finally:
            session.terminate()

    async def _publish_all(self, bound: str) -> int:
        """Every row of the journal; how many they were. Entities from `bound` on began after the stream did: their owners publish them."""
        after_id, after_seq, count = "00000000-0000-0000-0000-000000000000", 0, 0
        while True:
            page = await self._database.fetch("journal_page", after_id=after_id, after_seq=after_seq, limit=PAGE)
            rows = [row for row in page if str(row["entity_id"]) < bound]
            if not rows:
                return count
            if not await self._publish(rows):
                await asyncio.sleep(1)
                continue
            after_id, after_seq = str(rows[-1]["entity_id"]), rows[-1]["seq"]
            count += len(rows)


async def send_all(publisher: Publisher, messages: list[Message]) -> list[bytes | FailureError]:
    """Sends all, and waits for all answers, in order."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[bytes | FailureError]] = [loop.create_future() for _ in messages]
    for message, future in zip(messages, futures, strict=True):
        publisher.send(message, lambda answer, future=future: None if future.done() else future.set_result(answer))  # type: ignore[misc]
    return await asyncio.gather(*futures)


async def _all_sent(
    publisher: Publisher, messages: list[Message], refused: Callable[[Message, FailureError], None]
) -> bool:
    """Sends all; whether JetStream has all that it will ever take. `refused` hears of what it will not."""
    complete = True
    for message, answer in zip(messages, await send_all(publisher, messages), strict=True):
        if isinstance(answer, FailureError) and is_final(answer):
            refused(message, answer)
        complete = complete and (not isinstance(answer, FailureError) or is_final(answer))
    return complete


def _key(kind: str) -> int:
    """The lock is the database's, not the schema's: each tier has its own."""
    return FILL_LOCK + (kind == "run")


def is_final(error: BaseException) -> bool:
    """Whether JetStream will never take the message: it is told, and readers find its events in the journal."""
    return isinstance(error, FailureError) and error.failure.code == "MESSAGE_TOO_LARGE"
