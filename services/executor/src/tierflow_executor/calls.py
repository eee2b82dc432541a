"""Calls handlers: on the loop, in a thread, or in a process of their own; and makes an ending of whatever comes of it.

A task or a thread per attempt, and nothing that a handler raises goes further than its own attempt (F27, F28).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Protocol

from pydantic import ValidationError
from tierflow.context import Blob, Context
from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall
from tierflow_runtime.wire import payload_from_proto

from tierflow_executor import isolation
from tierflow_executor.endings import COMPLETED, LARGEST_INLINE, Ending, raised, returned, size_of, unbound
from tierflow_executor.logs import CURRENT, finish_lines
from tierflow_executor.running import Running
from tierflow_executor.threads import Threads


class Values(Protocol):
    """Where large values are kept; the attempt says on whose behalf."""

    def address_of(self, running: Running) -> str:
        """Where the values of an attempt are kept; empty where that is not known."""

    async def fetch(self, running: Running, blob: Blob) -> str:
        """A stored JSON text."""

    async def store(self, running: Running, ending: Ending) -> Ending:
        """The ending with its output stored."""

    def read(self, running: Running, blob: Blob) -> AsyncIterator[bytes]:
        """Streams a stored value."""

    async def write(self, running: Running, content: bytes | AsyncIterable[bytes], media_type: str) -> Blob:
        """Stores a value."""

    async def call_context(self, running: Running, call: ContextCall) -> ContextAnswer:
        """Asks for, or changes, what the attempt's swarm shares."""


class Calls:
    """Calls handlers.

    Args:
        values: Where large values are kept.
        threads: Plain functions at once.
        settle: Gets each attempt with its ending, on the loop's thread, once nothing of it is alive.
    """

    def __init__(self, values: Values, threads: int, settle: Callable[[Running, Ending], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._values = values
        self._threads = Threads(threads)
        self._settle = settle
        self._done: deque[tuple[Running, Ending]] = deque()
        self._collecting = False

    @property
    def threads(self) -> int:
        """Plain functions that may run at once."""
        return self._threads.most

    def inline(self, running: Running) -> bool:
        """Calls the handler now, where it is one that never blocks; says whether it was."""
        if not running.handler.inline or _is_stored(running):
            return False
        self._settle(running, self._call(running))
        return True

    def start(self, running: Running) -> None:
        """Has the handler called in its task or thread."""
        if needs_thread(running) and not _is_stored(running):
            self._threads.run(lambda: self._in_thread(running))
        else:
            running.task = self._loop.create_task(self._perform(running))

    def close(self) -> None:
        """Lets the threads end."""
        self._threads.close()

    # Plain functions

    def _call(self, running: Running, text: str | None = None) -> Ending:
        """Calls a plain handler, in whatever thread this is."""
        try:
            if text is None:
                text = running.reveal(_inline_text(running))
            return running.masked(self._called(running, text))
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its result and nobody else's (F27)
            return running.masked(raised(running.request, error))

    def _called(self, running: Running, text: str) -> Ending:
        handler = running.handler
        try:
            args, named = handler.arguments(Context(running.request, running), text)
        except ValidationError as error:
            return unbound(running.request, error)
        value = handler.function(*args, **named)
        if value is text and handler.inline:
            return Ending(COMPLETED, text)  # JSON that came in and goes out as it is: nothing to check
        return returned(handler, value)

    def _in_thread(self, running: Running, text: str | None = None) -> None:
        token = CURRENT.set(running)
        try:
            ending = self._call(running, text)
            finish_lines()
        finally:
            CURRENT.reset(token)
        self._done.append((running, ending))
        if not self._collecting:  # one wake-up of the loop for all that return until it looks
            self._collecting = True
            self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._collecting = False
        while self._done:
            running, ending = self._done.popleft()
            running.returned = True
            if _is_large(running, ending):
                running.task = self._loop.create_task(self._store(running, ending))
            else:
                self._settle(running, ending)

    # Everything else

    async def _perform(self, running: Running) -> None:
        running.begun = True
        try:
            if running.cancelled:
                raise asyncio.CancelledError
            CURRENT.set(running)
            if _is_stored(running):
                ref = running.request.input.input.ref
                text = running.reveal(await self._values.fetch(running, Blob(sha256=ref.sha256, size=ref.size)))
                if needs_thread(running):
                    self._threads.run(lambda: self._in_thread(running, text))
                    return
            else:
                text = running.reveal(_inline_text(running))
            ending = running.masked(await self._await(running, text))
            finish_lines()
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its result and nobody else's (F27, F28)
            ending = running.masked(raised(running.request, error))
        running.returned = True
        if _is_large(running, ending):
            await self._store(running, ending)
        else:
            self._settle(running, ending)

    async def _await(self, running: Running, text: str) -> Ending:
        handler = running.handler
        if handler.isolate:
            return await isolation.call(running, text, self._values.address_of(running))
        if handler.inline:
            return self._call(running, text)
        try:
            args, named = handler.arguments(Context(running.request, running), text)
        except ValidationError as error:
            return unbound(running.request, error)
        return returned(handler, await handler.function(*args, **named))

    async def _store(self, running: Running, ending: Ending) -> None:
        running.storing()
        try:
            ending = await self._values.store(running, ending)
        except BaseException as error:  # noqa: BLE001 - an output that cannot be stored is a failure of its attempt
            ending = raised(running.request, error)
        self._settle(running, ending)


def needs_thread(running: Running) -> bool:
    """Whether the handler is a plain function that may block."""
    handler = running.handler
    return not (handler.is_async or handler.inline or handler.isolate)


def _is_stored(running: Running) -> bool:
    return running.request.input.input.WhichOneof("kind") == "ref"


def _is_large(running: Running, ending: Ending) -> bool:
    """Whether the output must be stored; nobody waits for the output of an attempt that has a result already."""
    return size_of(ending) > LARGEST_INLINE and running.attempt.work is not None and not running.attempt.has_result


def _inline_text(running: Running) -> str:
    payload = running.request.input.input
    if payload.WhichOneof("kind") == "json":
        return payload.json
    text = payload_from_proto(payload)
    return text if isinstance(text, str) else "null"
