"""Frames to one orchestrator: what is put while the last frame is being written makes up the next one.

Items are put in as coded messages and a frame is their concatenation, which is how protobuf codes repeated fields: a result is coded once, however often it
is sent, and its held bytes are what goes out.
"""

from __future__ import annotations

import asyncio
from collections import deque

MOST_ITEMS = 256
MOST_BYTES = 1 << 20


def field(number: int, item: bytes) -> bytes:
    """A coded message as an element of the field `number` (1 to 15) of the frame."""
    size = len(item)
    if size < 0x80:
        return bytes((number << 3 | 2, size)) + item
    head = bytearray((number << 3 | 2,))
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + item


class Outbox:
    """Gathers coded fields into frames of at most 256 items or 1 MiB, whichever comes first; an item alone in its frame may be larger."""

    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._first: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Items that are not in a frame yet."""
        return len(self._items) + len(self._first)

    def put(self, number: int, item: bytes) -> None:
        """Adds an item to the next frame."""
        self._items.append(field(number, item))
        if self._waiter is not None:
            self._wake()

    def put_first(self, coded: bytes) -> None:
        """Adds coded fields of a frame that must not wait behind items: slots, receipts, answers."""
        self._first.append(coded)
        if self._waiter is not None:
            self._wake()

    def put_hello(self, coded: bytes) -> None:
        """Adds coded fields that must come before everything else."""
        self._first.appendleft(coded)
        if self._waiter is not None:
            self._wake()

    def close(self) -> None:
        """No more is put: `next` gives what is left and then None."""
        self._closed = True
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def next(self) -> bytes | None:
        """The next frame, as soon as there is anything in it; None when the outbox is closed and empty."""
        while not self._items and not self._first:
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._cut()

    def _cut(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        for queue in (self._first, self._items):
            while queue and len(parts) < MOST_ITEMS:
                length = len(queue[0])
                if parts and size + length > MOST_BYTES:
                    return b"".join(parts)
                size += length
                parts.append(queue.popleft())
        return b"".join(parts)
