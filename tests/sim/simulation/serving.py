"""The server's side of gRPC: calls with their handlers, within the real boundary of the services."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import grpc
from tierflow_runtime.boundary import Boundary
from tierflow_runtime.security import DevelopmentAuthenticator

from simulation.channels import CANCEL, EOF, HALF_CLOSE, OPEN, Call, Status, leave
from simulation.loop import Loop
from simulation.network import Connection, Network, Pipe


class Details(NamedTuple):
    """What a server's interceptor is told of a call."""

    method: str
    invocation_metadata: Any


class ServerCall:
    """The server's end of a call, and the `context` that its handler gets."""

    def __init__(self, server: SimServer, peer: Call, connection: Connection, method: str, metadata: Any) -> None:
        self.server = server
        self.loop = server.loop
        self.peer = peer
        self.connection = connection
        self.method = method
        self.pipe: Pipe
        self._metadata = metadata
        self._queue: deque[Any] = deque()
        self._reader: Any = None
        self._input_over = False
        self._ended = False
        self._status: Status | None = None
        self.task: Any = None

    # --- the servicer's context ---

    def invocation_metadata(self) -> Any:
        return self._metadata or ()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self._status = Status(code, details, grpc.aio.Metadata(*trailing_metadata))
        raise grpc.aio.AbortError("aborted")

    def cancelled(self) -> bool:
        return self._ended

    def peer_name(self) -> str:
        return self.connection.names[0]

    # --- what arrives ---

    def receive(self, item: Any) -> None:
        if item is OPEN:
            self.task = self.loop.create_task(self._serve(), name=self.method)
        elif item is CANCEL:
            self._abandon()
        elif item is HALF_CLOSE:
            self._input_over = True
            self._wake()
        else:
            self._queue.append(item)
            self._wake()

    def broke(self, why: str) -> None:
        self._abandon()

    def _abandon(self) -> None:
        """The client is gone: its input ends, and its handler is cancelled, in either order."""
        if self._ended:
            return
        self._ended = True
        if self.connection.network.random.random() < 0.5:
            self._input_over = True
            self._wake()
            if self.task is not None:
                self.loop.call_soon(self.task.cancel)
        else:
            if self.task is not None:
                self.task.cancel()
            self.loop.call_soon(self._end_input)

    def _end_input(self) -> None:
        self._input_over = True
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    # --- serving ---

    async def _next(self, deserialize: Any) -> Any:
        while not self._queue:
            if self._input_over:
                return EOF
            self._reader = self.loop.create_future()
            await self._reader
        return deserialize(self._queue.popleft())

    async def _requests(self, deserialize: Any) -> AsyncIterator[Any]:
        while (message := await self._next(deserialize)) is not EOF:
            yield message

    async def _serve(self) -> None:
        try:
            handler = self.server.handler(self.method)
            if handler is None:
                self._status = Status(grpc.StatusCode.UNIMPLEMENTED, self.method)
            elif self.server.closed:
                self._status = Status(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            else:
                await self._call(handler)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:
            if not self._ended:
                self._status = Status(grpc.StatusCode.CANCELLED, "cancelled")
            else:
                return
        finally:
            leave(self.connection, self)
        self._ended = True
        self.pipe.put(self._status or Status(grpc.StatusCode.OK, ""))

    async def _call(self, handler: Any) -> None:
        decode = handler.request_deserializer
        if handler.unary_unary is not None:
            request = await self._next(decode)
            if request is not EOF:
                await self._send(handler, await handler.unary_unary(request, self))
        elif handler.stream_unary is not None:
            await self._send(handler, await handler.stream_unary(self._requests(decode), self))
        else:
            given = await self._next(decode) if handler.unary_stream is not None else self._requests(decode)
            if given is EOF:
                return
            async for message in (handler.unary_stream or handler.stream_stream)(given, self):
                await self._send(handler, message)

    async def _send(self, handler: Any, message: Any) -> None:
        network = self.connection.network
        network.on_send(self.connection, False, self.method, message)
        await self.pipe.send(handler.response_serializer(message), self.loop)


class SimServer:
    """Stands in for `tierflow_runtime.serving.Server`, with the real boundary around every handler."""

    network: Network

    def __init__(self, settings: Any, *, tier: int, component: str, **_: Any) -> None:
        self.loop: Loop = asyncio.get_running_loop()  # type: ignore[assignment]
        self._settings = settings
        self._handlers: dict[str, Any] = {}
        self._boundary = Boundary(DevelopmentAuthenticator(), tier=tier, component=component)
        self.closed = False
        self.serving = False
        self.port = 1

    @property
    def address(self) -> str:
        return str(self._settings.advertised(self.port))

    def add(self, name: str, add_to_server: Callable[[Any, Any], None], servicer: object) -> None:
        add_to_server(servicer, self)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        for method, handler in handlers.items():
            self._handlers[f"/{service}/{method}"] = handler

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        for generic in handlers:
            self._handlers.update(generic._method_handlers)

    def called(self, peer: Call, connection: Connection, method: str, metadata: Any) -> ServerCall:
        """The server's end of a call that is being opened."""
        return ServerCall(self, peer, connection, method, metadata)

    def handler(self, method: str) -> Any:
        """The handler of a method, within the boundary."""
        known = self._handlers.get(method)
        if known is None or isinstance(known, Bound):
            return known

        async def continuation(_: Any) -> Any:
            return known

        wrapping = self._boundary.intercept_service(continuation, Details(method, ()))
        try:
            wrapping.send(None)
        except StopIteration as done:
            bound = self._handlers[method] = Bound(done.value)
            return bound
        raise AssertionError("the boundary waits for something")

    async def start(self) -> int:
        self.network.servers[self.address] = self
        return self.port

    async def announce_ready(self, **_: Any) -> None:
        self.serving = True
        self.loop.process.ready()

    async def set_all_serving(self, serving: bool) -> None:
        self.serving = serving

    async def drain(self, grace: float | None = None) -> None:
        """New calls are refused, calls under way may end within the grace time."""
        if self.closed:
            return
        self.closed = True
        if self.network.servers.get(self.address) is self:
            del self.network.servers[self.address]
        until = self.loop.time() + (self._settings.drain_timeout if grace is None else grace)
        while self.loop.time() < until and any(each.calls for each in self._connections()):
            await asyncio.sleep(0.05)
        for connection in self._connections():
            connection.break_("the server has shut down")

    def _connections(self) -> list[Connection]:
        return [each for each in self.network.connections if each.server is self and not each.broken]


class Bound:
    """A handler within the boundary."""

    __slots__ = (
        "request_deserializer",
        "response_serializer",
        "stream_stream",
        "stream_unary",
        "unary_stream",
        "unary_unary",
    )

    def __init__(self, handler: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(handler, name))
