"""The simulated network and the part of gRPC that the services use: channels, streams, unary calls, servers.

A stream keeps its order, different streams do not wait for each other. Connections break, are refused, hang while processes are frozen or cut off from each other, and
what was on its way is lost with them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import grpc
from tierflow_runtime.boundary import Boundary
from tierflow_runtime.security import DevelopmentAuthenticator

from simulation.loop import Loop, World

EOF = grpc.aio.EOF  # type: ignore[attr-defined]
WINDOW = 32
"""Messages on their way in one direction of a stream, beyond which its writer waits."""

CONNECT_TIMEOUT = 1.0
NO_METADATA = grpc.aio.Metadata()


class Details(NamedTuple):
    """What a server's interceptor is told of a call."""

    method: str
    invocation_metadata: Any


class Network:
    """All servers, and what lies between processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.servers: dict[str, SimServer] = {}
        self.connections: list[Connection] = []
        self.cuts: set[frozenset[str]] = set()
        self.slow = 1.0
        self.keepalive = 3.0
        """Seconds after which a silent peer counts as gone."""
        self.on_send: Callable[[Connection, bool, str, Any], None] = lambda connection, up, method, message: None

    def latency(self) -> float:
        chance = self.random.random()
        return (0.0001 + 0.0005 * chance if chance < 0.97 else 0.02 * self.random.random()) * self.slow

    def is_cut(self, a: str, b: str) -> bool:
        return bool(self.cuts) and frozenset((a, b)) in self.cuts

    def cut(self, a: str, b: str) -> None:
        """Nothing passes between two processes until it is healed; connections break when they have been silent for too long."""
        self.cuts.add(frozenset((a, b)))
        for connection in self.between(a, b):
            connection.suspect()

    def heal(self, a: str, b: str) -> None:
        self.cuts.discard(frozenset((a, b)))
        for connection in self.between(a, b):
            connection.resume()

    def between(self, a: str, b: str | None = None) -> list[Connection]:
        self.connections = [each for each in self.connections if not each.broken]
        names = (a,) if b is None else (a, b)
        return [each for each in self.connections if all(name in each.names for name in names)]

    def frozen(self, process: str) -> None:
        for connection in self.between(process):
            connection.suspect()

    def died(self, loop: Loop, *, silent: bool) -> None:
        """A process is gone: its peers are told by its machine, or find out."""
        for connection in self.between(loop.name):
            if loop in (connection.client, connection.server.loop):
                connection.die(loop.name, silent=silent)


class Connection:
    """One connection of a channel: both processes, and the streams on it."""

    def __init__(self, network: Network, client: Loop, server: SimServer) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.names = (client.name, server.loop.name)
        self.broken = False
        self.calls: list[Any] = []
        """Both ends of each stream that is open."""
        self.held: list[tuple[Pipe, Any]] = []
        network.connections.append(self)

    @property
    def is_cut(self) -> bool:
        return self.network.is_cut(*self.names)

    def suspect(self) -> None:
        """Silence has begun: if it lasts, each end takes the other for dead."""
        wait = self.network.keepalive * (0.7 + 0.6 * self.network.random.random())
        self.network.world.after(wait, self._still_silent)

    def _still_silent(self) -> None:
        if self.broken:
            return
        if self.is_cut or self.client.frozen or self.server.loop.frozen:
            self.break_("the peer is silent")

    def resume(self) -> None:
        held, self.held = self.held, []
        for pipe, item in held:
            pipe.transmit(item)

    def break_(self, why: str) -> None:
        """Both ends find out, each at its own time. What is on its way is lost."""
        if self.broken:
            return
        self.broken = True
        network = self.network
        calls, self.calls = self.calls, []
        for call in calls:
            call.loop.deliver(network.world.now + network.latency(), call.broke, why)

    def die(self, process: str, *, silent: bool) -> None:
        if self.broken:
            return
        network = self.network
        if silent:
            network.world.after(network.keepalive * (0.7 + 0.6 * network.random.random()), self.break_, f"{process} is silent")
        else:
            self.break_(f"{process} has reset the connection")


class Pipe:
    """One direction of a stream: in order, with a window."""

    __slots__ = ("connection", "last", "receive", "target", "under_way", "writers")

    def __init__(self, connection: Connection, target: Loop, receive: Callable[[Any], None]) -> None:
        self.connection = connection
        self.target = target
        self.receive = receive
        self.last = 0.0
        self.under_way = 0
        self.writers: deque[Any] = deque()

    async def send(self, item: Any, loop: Loop) -> None:
        """Sends, and waits while too much is under way."""
        while self.under_way >= WINDOW and not self.connection.broken:
            future = loop.create_future()
            self.writers.append(future)
            await future
        self.put(item)
        await asyncio.sleep(0)

    def put(self, item: Any) -> None:
        if self.connection.broken:
            return
        self.under_way += 1
        if self.connection.is_cut:
            self.connection.held.append((self, item))
        else:
            self.transmit(item)

    def transmit(self, item: Any) -> None:
        network = self.connection.network
        self.last = max(self.last + 1e-7, network.world.now + network.latency())
        self.target.deliver(self.last, self._arrive, item)

    def _arrive(self, item: Any) -> None:
        if self.connection.broken:
            return
        self.under_way -= 1
        if self.writers:
            self.wake()
        self.receive(item)

    def wake(self) -> None:
        while self.writers:
            future = self.writers.popleft()
            if not future.done():
                # Whoever writes is another process: it hears of the room as of anything else.
                future.get_loop().deliver(self.connection.network.world.now, _done, future)
                return


def _done(future: Any) -> None:
    if not future.done():
        future.set_result(None)


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
            return self._unary(Call(self, method, request_serializer, response_deserializer, metadata), request, timeout)

        return call

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, timeout: float | None = None, metadata: Any = None, **_more: Any) -> Any:
            made = Call(self, method, request_serializer, response_deserializer, metadata)
            made.first = request
            return made

        return call

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return self.stream_stream(method, request_serializer, response_deserializer)

    async def close(self, grace: float | None = None) -> None:
        self.closed = True
        if self.connection is not None:
            self.connection.break_("the channel was closed")

    async def _unary(self, call: Call, request: Any, timeout: float | None) -> Any:
        timer = None
        if timeout is not None:
            late = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            timer = self.loop.call_later(timeout, call.end, late)
        try:
            await call.write(request)
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
        if away or (server is None and self.address in self._silent()):
            if network.world.now >= until:
                self._settle(Status(grpc.StatusCode.UNAVAILABLE, "failed to connect: timeout"))
            else:
                network.world.after(0.1, self._reach, until)
        elif server is None or server.loop.dead or server.closed:
            self._settle(Status(grpc.StatusCode.UNAVAILABLE, "failed to connect: connection refused"))
        else:
            self.connection = Connection(network, self.loop, server)
            self._settle(None)

    def _silent(self) -> tuple[str, ...]:
        return ()

    def _settle(self, error: Status | None) -> None:
        waiting, self._connecting = self._connecting or [], None
        for future in waiting:
            self.loop.deliver(self.network.world.now, _answer, future, error)


def _answer(future: Any, value: Any) -> None:
    if not future.done():
        future.set_result(value)


class Call:
    """The client's end of a call: `grpc.aio.StreamStreamCall`, and unary calls on top of it."""

    def __init__(
        self, channel: SimChannel, method: str, serialize: Any, deserialize: Any, metadata: Any
    ) -> None:
        self.channel = channel
        self.loop = channel.loop
        self.method = method
        self.first: Any = None
        self._serialize = serialize
        self._deserialize = deserialize
        self._metadata = metadata
        self._pipe: Pipe | None = None
        self._peer: ServerCall | None = None
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
        peer = self._peer = ServerCall(server, self, connection, self.method, self._metadata)
        connection.calls += (self, peer)
        self._pipe = Pipe(connection, server.loop, peer.receive)
        peer.pipe = Pipe(connection, self.loop, self._receive)
        self._pipe.put(_OPEN)

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
            self._pipe.put(_HALF_CLOSE)

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
            self._pipe.put(_CANCEL)

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
                _leave(self.connection, self)
            if self._pipe is not None:
                for future in self._pipe.writers:
                    _done(future)
            self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


_OPEN, _HALF_CLOSE, _CANCEL = object(), object(), object()


class ServerCall:
    """The server's end of a call, and the `context` that its handler gets."""

    def __init__(
        self, server: SimServer, peer: Call, connection: Connection, method: str, metadata: Any
    ) -> None:
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
        if item is _OPEN:
            self.task = self.loop.create_task(self._serve(), name=self.method)
        elif item is _CANCEL:
            self._abandon()
        elif item is _HALF_CLOSE:
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
            _leave(self.connection, self)
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


def _leave(connection: Connection, call: Any) -> None:
    if call in connection.calls:
        connection.calls.remove(call)


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

    __slots__ = ("request_deserializer", "response_serializer", "stream_stream", "stream_unary", "unary_stream", "unary_unary")

    def __init__(self, handler: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(handler, name))
        assert self.response_serializer is not None
        assert inspect is not None
