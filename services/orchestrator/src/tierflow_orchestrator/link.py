"""The stream to one executor: hello, batches both ways, reconnection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import grpc
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1.executor_service_pb2_grpc import ExecutorServiceStub
from tierflow_runtime.afterwards import afterwards
from tierflow_runtime.channels import open_channel
from tierflow_runtime.logs import get_log
from tierflow_runtime.schema import compile_schema
from tierflow_runtime.streams import Frames
from tierflow_runtime.values import FailureError, Micros
from tierflow_runtime.wire import micros

log = get_log(__name__)

grpc_aio: Any = grpc.aio  # the stubs lack EOF


class Listener(Protocol):
    """Who hears what executors say."""

    def hello_of(self, link: Link) -> pb.ExecuteStepsRequest:
        """The first frame of a new stream."""
        ...

    def greeted(self, link: Link, hello: pb.ExecutorHello) -> None:
        """An executor has introduced itself."""
        ...

    def heard(self, link: Link, frame: pb.ExecuteStepsResponse) -> None:
        """A batch came."""
        ...

    def parted(self, link: Link) -> None:
        """The stream is gone."""
        ...


class Link:
    """One executor at one address. `key` names the process behind it: its name and id, as events record it."""

    def __init__(self, address: str, listener: Listener, alive: Callable[[], bool]) -> None:
        self.address = address
        self._listener = listener
        self._alive = alive
        self.frames = Frames()
        self.hello: pb.ExecutorHello | None = None
        self.key = ""
        self.handlers: frozenset[str] = frozenset()
        self.timeouts: dict[str, Micros] = {}
        """Of handlers that declare one."""
        self.side_effecting: frozenset[str] = frozenset()
        """Of these, those that change the world outside, as they say themselves."""
        self.tools: frozenset[str] = frozenset()
        """Of these, those of which each attempt is a tool call."""
        self.schemas: dict[str, str] = {}
        """By handler: the JSON Schema of its input, where it has one that can be used."""
        self.slots = 0
        self.used = 0
        self.connected = False
        self.draining = False
        self.listed = True
        """Its address is one of those that are known; one that is not is dropped with its stream."""
        self._begun = time.monotonic()
        self.lost_since: float | None = None
        """Monotonic seconds since when it has not answered; None while it is connected or was never."""

    @property
    def age(self) -> float:
        """Seconds since its address became known."""
        return time.monotonic() - self._begun

    @property
    def free(self) -> int:
        """Slots that may be used now."""
        return self.slots - self.used if self.connected and not self.draining else 0

    def offers(self, handler: str, labels: Any) -> bool:
        """Whether it has the handler and the labels."""
        if handler not in self.handlers:
            return False
        if not labels:
            return True
        own = self.hello.labels if self.hello is not None else {}
        return all(own.get(name) == value for name, value in labels.items())

    async def run(self) -> None:
        """Keeps a stream open, for ever."""
        channel = open_channel(self.address)
        await afterwards(self._keep(channel), lambda: channel.close(None))

    async def _keep(self, channel: grpc.aio.Channel) -> None:
        pause = 0.05
        while True:
            began = time.monotonic()
            try:
                await self._stream(ExecutorServiceStub(channel))
            except grpc.aio.AioRpcError as error:
                if self.connected:
                    log.warning(
                        "lost an executor's stream",
                        address=self.address,
                        status=error.code().name,
                        reason=error.details(),
                    )
            except Exception as error:  # noqa: BLE001 - a frame that cannot be understood must not make this executor deaf for ever
                log.error("a defect while listening to an executor", address=self.address, error=error)
            finally:
                self._parted()
            pause = 0.05 if time.monotonic() - began > 5 else min(pause * 2, 1.0)
            await asyncio.sleep(pause)

    def _parted(self) -> None:
        if self.connected:
            self.connected = False
            self.lost_since = time.monotonic()
        self._listener.parted(self)

    async def _stream(self, stub: Any) -> None:
        self.frames.close()
        self.frames = Frames()
        call = stub.ExecuteSteps()
        await call.write(self._listener.hello_of(self))
        writing = asyncio.create_task(self._write(call, self.frames))
        await afterwards(self._read(call), lambda: _hang_up(call, writing))

    async def _read(self, call: Any) -> None:
        while True:
            frame = await call.read()
            if frame is grpc_aio.EOF:
                return
            if frame.HasField("hello"):
                self._greet(frame.hello)
            self._listener.heard(self, frame)

    def _greet(self, hello: pb.ExecutorHello) -> None:
        self.hello = hello
        self.handlers = frozenset(handler.name for handler in hello.handlers)
        self.timeouts = {
            handler.name: micros(handler.timeout) for handler in hello.handlers if handler.HasField("timeout")
        }
        self.side_effecting = frozenset(handler.name for handler in hello.handlers if handler.side_effecting)
        self.tools = frozenset(handler.name for handler in hello.handlers if handler.tool)
        self.schemas = {
            handler.name: handler.input_schema_json for handler in hello.handlers if usable(handler.input_schema_json)
        }
        self.slots = hello.slots
        self.draining = False
        self.connected = True
        self.lost_since = None
        self._listener.greeted(self, hello)

    async def _write(self, call: Any, frames: Frames) -> None:
        while True:
            frame = await frames.next()
            if not frame:
                return
            while not self._alive():  # noqa: ASYNC110 - the lease is a fact of time, nobody sets an event
                # Rule R25: past its lease this instance may not start anything; the lease comes back, or the process ends.
                await asyncio.sleep(0.05)
            await call.write(pb.ExecuteStepsRequest(**frame))


async def _hang_up(call: Any, writing: asyncio.Task[None]) -> None:
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await writing
    call.cancel()


def usable(schema: str) -> bool:
    """Whether it is a JSON Schema: an executor that offers something else checks its inputs itself."""
    try:
        compile_schema(schema) if schema else None
    except FailureError:
        return False
    return bool(schema)
