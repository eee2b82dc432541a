"""Frames: what gathers while the last frame of a stream is being written goes out as one (PERFORMANCE.md, section 3).

A message costs about 100 µs, an item in a batch 3 to 10; so nothing waits on purpose, and nothing that waits anyway travels alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from google.protobuf.message import Message

from tierflow_runtime.errors import failure
from tierflow_runtime.values import FailureError

FRAME_ITEMS: Final = 64
FRAME_BYTES: Final = 1024 * 1024
LARGEST_ITEM: Final = 4 * 1024 * 1024 - 64 * 1024
"""Bytes of the largest item that still fits a gRPC message of 4 MiB with its frame."""

_TAG: Final = 6  # bytes that a repeated field adds to an item: tag and length


class Frames:
    """The outgoing side of one stream: many who put, one who writes.

    `put` never waits, so that a decision never waits for a peer; whoever produces without bound looks at `size` and stops by itself. For one event loop;
    only one reader.
    """

    def __init__(self, *, items: int = FRAME_ITEMS, frame_bytes: int = FRAME_BYTES) -> None:
        self._items = items
        self._bytes = frame_bytes
        self._urgent: deque[tuple[str, Any, int]] = deque()
        self._queue: deque[tuple[str, Any, int]] = deque()
        self._single: dict[str, Any] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Items that are not yet in a frame."""
        return len(self._urgent) + len(self._queue) + len(self._single)

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._closed

    def put(self, field: str, item: Message | str) -> None:
        """Adds an item to the repeated field `field` of a frame to come, behind what is there. After `close` it is dropped.

        Raises:
            FailureError: MESSAGE_TOO_LARGE, where no gRPC message could carry the item. Found here, at the producer, it is final (Lesson 27).
        """
        self._add(self._queue, field, item)

    def put_first(self, field: str, item: Message | str) -> None:
        """Like `put`, but before everything that was not put first: for cancels and acknowledgements."""
        self._add(self._urgent, field, item)

    def set(self, field: str, value: object) -> None:
        """Sets the singular field `field` of the next frame; the latest value wins."""
        if not self._closed:
            self._single[field] = value
            self._wake()

    async def next(self) -> dict[str, Any]:
        """The next frame: lists by repeated field and values by singular field, ready as arguments of the stream's message.

        Waits until there is something. Empty once the frames are closed and everything is written.
        """
        while not (self._urgent or self._queue or self._single):
            if self._closed:
                return {}
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        frame = self._single
        self._single = {}
        taken = self._take(self._urgent, frame, 0, 0)
        if taken is not None:
            self._take(self._queue, frame, *taken)
        return frame

    def close(self) -> None:
        """Takes nothing more; what is there is still handed out."""
        self._closed = True
        self._wake()

    def __aiter__(self) -> Frames:
        return self

    async def __anext__(self) -> dict[str, Any]:
        frame = await self.next()
        if not frame:
            raise StopAsyncIteration
        return frame

    def _add(self, queue: deque[tuple[str, Any, int]], field: str, item: Message | str) -> None:
        if self._closed:
            return
        size = len(item.encode()) if isinstance(item, str) else item.ByteSize()
        if size > LARGEST_ITEM:
            raise FailureError(
                failure(
                    "MESSAGE_TOO_LARGE",
                    f"An item of `{field}` has {size} bytes; a message carries at most {LARGEST_ITEM}. Store large values as blobs.",
                    component="streams",
                    operation="put",
                )
            )
        queue.append((field, item, size + _TAG))
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take(
        self, queue: deque[tuple[str, Any, int]], frame: dict[str, Any], count: int, total: int
    ) -> tuple[int, int] | None:
        """Moves items into the frame; the new count and bytes, or None where the frame is full."""
        while queue:
            field, item, size = queue[0]
            if count and (count >= self._items or total + size > self._bytes):
                return None
            queue.popleft()
            count += 1
            total += size
            items = frame.get(field)
            if items is None:
                frame[field] = [item]
            else:
                items.append(item)
        return count, total
