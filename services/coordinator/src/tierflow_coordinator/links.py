"""The stream to one orchestrator: batches of requests, commands and acknowledgements down, batches of answers and results up."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # its stubs lack it
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as stubs
from tierflow_runtime.afterwards import afterwards
from tierflow_runtime.logs import get_log
from tierflow_runtime.streams import Frames

from tierflow_coordinator.room import Room

log = get_log(__name__)

MOST_ASKED: Final = 512
"""Runs that one orchestrator is asked for and has not answered: far more than are on the way at once, and so few that it takes them up in less than a second."""

FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 1.0


class Listener(Protocol):
    """Who hears what comes up. None of these may block."""

    def link_up(self, link: Link) -> None:
        """The orchestrator has said hello."""
        ...

    def link_down(self, link: Link) -> None:
        """The stream is gone, with whatever was on its way."""
        ...

    def received(self, link: Link, frame: orchestrator.ExecuteRunsResponse) -> None:
        """A frame has come."""
        ...


class Link:
    """One orchestrator, as this coordinator sees it. Connects again for ever, until it is cancelled."""

    def __init__(
        self,
        address: str,
        *,
        hello: orchestrator.CoordinatorHello,
        listener: Listener,
        channel: Callable[[str], grpc.aio.Channel],
    ) -> None:
        self.address = address
        self.instance_id = ""
        self.ready = False
        """The orchestrator has said hello on the present stream."""
        self.draining = False
        self.outstanding = 0
        """Runs that were sent here and of which no end is known."""
        self.asked = 0
        """Of these: neither accepted nor refused yet."""
        self.room = Room()
        self.last_error = ""
        self._hello = hello
        self._listener = listener
        self.channel = channel(address)
        self._frames = Frames()
        self._writer: asyncio.Task[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether new runs may be sent here."""
        return self.asked < MOST_ASKED and self.would_take

    @property
    def would_take(self) -> bool:
        """Whether it has room for new runs, now or once it has answered those that it was asked for."""
        return self.ready and not self.draining and self.outstanding < self.room.limit

    def put(self, field: str, item: Any) -> None:
        """Sends an item behind what waits. Raises FailureError where no message can carry it. Lost where the link is not up."""
        self._frames.put(field, item)

    def put_first(self, field: str, item: Any) -> None:
        """Sends an item before what waits: for commands and acknowledgements."""
        self._frames.put_first(field, item)

    async def run(self) -> None:
        """Keeps the stream, until cancelled."""
        await afterwards(self._keep(), lambda: self.channel.close(None))

    async def _keep(self) -> None:
        delay = FIRST_DELAY
        while True:
            was_ready = await self._stream()
            delay = FIRST_DELAY if was_ready else min(delay * 2, LONGEST_DELAY)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))

    async def _stream(self) -> bool:
        """One stream from its start to its end; returns whether the orchestrator said hello on it."""
        self._frames = Frames()
        call = stubs.OrchestratorServiceStub(self.channel).ExecuteRuns()  # type: ignore[call-arg]
        return await afterwards(self._converse(call), lambda: self._hang_up(call))

    async def _converse(self, call: Any) -> None:
        try:
            await call.write(orchestrator.ExecuteRunsRequest(hello=self._hello))
            self._writer = asyncio.create_task(self._write(call))
            await self._read(call)
        except grpc.RpcError as error:
            self._note(error)

    async def _hang_up(self, call: Any) -> bool:
        was_ready, self.ready = self.ready, False
        self._frames.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
        call.cancel()
        if was_ready:
            self._listener.link_down(self)
        return was_ready

    async def _write(self, call: Any) -> None:
        try:
            while frame := await self._frames.next():
                await call.write(orchestrator.ExecuteRunsRequest(**frame))
        except (grpc.RpcError, asyncio.InvalidStateError):
            call.cancel()  # The reader sees the end and tells why.

    async def _read(self, call: Any) -> None:
        while True:
            frame = await call.read()
            if frame is EOF:
                return
            if frame.HasField("hello"):
                self.instance_id = frame.hello.instance_id
                self.draining = False
                self.room.open()
                self.ready = True
                self.last_error = ""
                log.info("connected to an orchestrator", address=self.address, orchestrator=self.instance_id)
                self._listener.link_up(self)
            if frame.draining:
                self.draining = True
            self._listener.received(self, frame)

    def _note(self, error: grpc.RpcError) -> None:
        text = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)
        if text != self.last_error:
            self.last_error = text
            log.warning("no stream to an orchestrator", address=self.address, reason=text)
