"""The client's side of gRPC: channels and calls, as `grpc.aio` has them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import grpc

from simulation.loop import Loop
from simulation.network import Connection, Network, Pipe, done

EOF = grpc.aio.EOF  # type: ignore[attr-defined]
CONNECT_TIMEOUT = 1.0
"""Seconds, as the channels of the services have it."""

NO_METADATA = grpc.aio.Metadata()
OPEN, HALF_CLOSE, CANCEL = object(), object(), object()
"""What passes on a stream beside messages."""


class Status(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str
    metadata: Any = NO_METADATA

    def error(self) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(self.code, NO_METADATA, self.metadata, self.details)


class SimChannel:
    """Stands in for `grpc.aio.Channel`."""

    def __init__(self, network: Network, address: str) -> None:
        self.network = network
        self.address = address
        self.loop: Loop = asyncio.get_running_loop()  # type: ignore[assignment]
        self.connection: Connection | None = None
        self._connecting: list[Any] | None = None
        self.closed = False

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return lambda metadata=None, **_more: Call(self, method, request_serializer, response_deserializer, metadata)

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, timeout: float | None = None, metadata: Any = None, **_more: Any) -> Any:
            return self._unary(
                Call(self, method, request_serializer, response_deserializer, metadata), request, timeout
            )

        return call

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, timeout: float | None = None, metadata: Any = None, **_more: Any) -> Any:
            made = Call(self, method, request_serializer, response_deserializer, metadata)
            made.first = request
            return made

        return call

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(requests: Any, timeout: float | None = None, metadata: Any = None, **_more: Any) -> Any:
            made = Call(self, method, request_serializer, response_deserializer, metadata)
            return self._answer(made, requests, timeout)

        return call

    async def close(self, grace: float | None = None) -> None:
        self.closed = True
        if self.connection is not None:
            self.connection.break_("the channel was closed")

    async def _unary(self, call: Call, request: Any, timeout: float | None) -> Any:
        async def one() -> AsyncIterator[Any]:
            yield request

        return await self._answer(call, one(), timeout)

    async def _answer(self, call: Call, requests: AsyncIterator[Any], timeout: float | None) -> Any:
        """Sends all requests and waits for the one answer."""
        timer = None
        if timeout is not None:
            late = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            timer = self.loop.call_later(timeout, call.end, late)
        try:
            async for request in requests:
                await call.write(request)
            await call.done_writing()
            answer = await call.read()
            if answer is EOF:
                raise Status(grpc.StatusCode.INTERNAL, "no answer").error()
            return answer
        finally:
            if timer is not None:
                timer.cancel()
            call.cancel()

    async def connect(self) -> Connection:
        """The connection, made where there is none. Raises AioRpcError UNAVAILABLE."""
        if self.connection is not None and not self.connection.broken:
            return self.connection
        future = self.loop.create_future()
        if self._connecting is None:
            self._connecting = []
            self.network.world.after(self.network.latency() * 2, self._reach, self.network.world.now + CONNECT_TIMEOUT)
        self._connecting.append(future)
        error = await future
        if error is not None:
            raise error.error()
        assert self.connection is not None
        return self.connection

    def _reach(self, until: float) -> None:
        if self.loop.dead:
            return
        network = self.network
        server = network.servers.get(self.address)
        away = server is not None and (server.loop.frozen or network.is_cut(self.loop.name, server.loop.name))
        if away:
            if network.world.now >= until:
                self._settle(Status(grpc.StatusCode.UNAVAILABLE, "failed to connect: timeout"))
            else:
                network.world.after(0.1, self._reach, until)
        elif server is None or server.loop.dead or server.closed:
            self._settle(Status(grpc.StatusCode.UNAVAILABLE, "failed to connect: connection refused"))
        else:
            self.connection = Connection(network, self.loop, server)
            self._settle(None)

    def _settle(self, error: Status | None) -> None:
        waiting, self._connecting = self._connecting or [], None
        for future in waiting:
            self.loop.deliver(self.network.world.now, _answer, future, error)


def _answer(future: Any, value: Any) -> None:
    if not future.done():
        future.set_result(value)


class Call:
    """The client's end of a call: `grpc.aio.StreamStreamCall`, and unary calls on top of it."""

    def __init__(self, channel: SimChannel, method: str, serialize: Any, deserialize: Any, metadata: Any) -> None:
        self.channel = channel
        self.loop = channel.loop
        self.method = method
        self.first: Any = None
        self._serialize = serialize
        self._deserialize = deserialize
        self._metadata = metadata
        self._pipe: Pipe | None = None
        self._peer: Any = None
        self._queue: deque[Any] = deque()
        self._reader: Any = None
        self._opening: Any = None
        self.status: Status | None = None
        self.connection: Connection | None = None

    async def _open(self) -> None:
        if self._pipe is not None:
            return
        connection = await self.channel.connect()
        if self.status is not None:
            raise self.status.error()
        if self._pipe is not None:
            return
        self.connection = connection
        server = connection.server
        peer = self._peer = server.called(self, connection, self.method, self._metadata)
        connection.calls += (self, peer)
        self._pipe = Pipe(connection, server.loop, peer.receive)
        peer.pipe = Pipe(connection, self.loop, self._receive)
        self._pipe.put(OPEN)

    async def write(self, message: Any) -> None:
        self._check()
        try:
            await self._open()
        except grpc.aio.AioRpcError as error:
            if self.status is None:
                self.status = Status(error.code(), str(error.details()), error.trailing_metadata())
            raise
        self._check()
        assert self._pipe is not None
        assert self.connection is not None
        self.channel.network.on_send(self.connection, True, self.method, message)
        await self._pipe.send(self._serialize(message), self.loop)
        self._check()

    def _check(self) -> None:
        if self.status is None:
            return
        if self.status.code is grpc.StatusCode.OK:
            raise asyncio.InvalidStateError("RPC already finished.")
        raise self.status.error()

    async def done_writing(self) -> None:
        if self._pipe is not None and self.status is None:
            self._pipe.put(HALF_CLOSE)

    async def read(self) -> Any:
        if self._pipe is None and self.first is not None:
            first, self.first = self.first, None
            await self.write(first)
            await self.done_writing()
        elif self._pipe is None:
            await self._open()
        while not self._queue:
            if self.status is not None:
                if self.status.code is grpc.StatusCode.OK:
                    return EOF
                raise self.status.error()
            self._reader = self.loop.create_future()
            await self._reader
        return self._deserialize(self._queue.popleft())

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not EOF:
            yield message

    def cancel(self) -> bool:
        if self.status is not None:
            return False
        self.end(Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        return True

    def done(self) -> bool:
        return self.status is not None

    def end(self, status: Status) -> None:
        """The client gives up: the server is told."""
        if self.status is not None:
            return
        self._finish(status)
        if self._pipe is not None:
            self._pipe.put(CANCEL)

    def broke(self, why: str) -> None:
        self._finish(Status(grpc.StatusCode.UNAVAILABLE, why))

    def _receive(self, item: Any) -> None:
        if self.status is not None:
            return
        if isinstance(item, Status):
            self._finish(item)
        else:
            self._queue.append(item)
            self._wake()

    def _finish(self, status: Status) -> None:
        if self.status is None:
            self.status = status
            if self.connection is not None:
                leave(self.connection, self)
            if self._pipe is not None:
                for future in self._pipe.writers:
                    done(future)
            self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


def leave(connection: Connection, call: Any) -> None:
    """One end of a call is over."""
    if call in connection.calls:
        connection.calls.remove(call)
