"""A TCP proxy that a test can cut, refuse, mute, hold up, delay and throttle: between a service and its server, as a bad network would be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal

from tierflow_testing.ports import free_port

Direction = Literal["there", "back", "both"]
"""From whoever connects to the server, from the server back, or both."""

ON_THE_WAY = 256
"""Pieces of at most 64 KiB that are under way in one direction; beyond, the sender is slowed down, as TCP would."""


class Way:
    """One direction of a cable, for all its connections."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds that each piece is under way."""
        self.rate = 0
        """Bytes per second and connection; 0: as fast as it goes."""
        self.open = asyncio.Event()
        self.open.set()

    def clear(self) -> None:
        """Nothing is wrong with it any more."""
        self.delay, self.rate = 0.0, 0
        self.open.set()


class Pair:
    """One connection and its continuation."""

    def __init__(self) -> None:
        self.stranded = False


class Cable:
    """Forwards every connection to `host:port`, as long as it is told to. Lives in the event loop of the test; `Cables` has a thread for some.

    `async with Cable("127.0.0.1", 5432) as cable:` and connect to `cable.port`.
    """

    def __init__(self, host: str, port: int) -> None:
        """Prepares, listens to nothing yet."""
        self._target = (host, port)
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Pair] = {}
        self._muted = False
        self._refusing = False
        self._there, self._back = Way(), Way()
        self.swallowed = 0
        """Bytes that were lost."""
        self.connected = 0
        """Connections that were made so far."""
        self.broken = 0
        """Connections that were cut or refused."""

    def url(self, address: str) -> str:
        """An address of the server, such as `postgresql://role@127.0.0.1:5432/name`, that leads through this cable."""
        return address.replace(f"{self._target[0]}:{self._target[1]}", f"127.0.0.1:{self.port}")

    def mute(self) -> None:
        """From now on questions reach the server, and its answers are lost."""
        self._muted = True

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """From now on each piece takes so long; how much can be under way does not change."""
        for way in self._ways(direction):
            way.delay = seconds

    def throttle(self, bytes_per_second: int, direction: Direction = "both") -> None:
        """From now on no connection carries more."""
        for way in self._ways(direction):
            way.rate = bytes_per_second

    def hold(self, direction: Direction = "both") -> None:
        """From now on nothing arrives in this direction and no connection breaks. What was sent arrives after `mend`, as TCP's repetitions would, unless it is cut."""
        for way in self._ways(direction):
            way.open.clear()

    def strand(self) -> None:
        """The connections of now carry nothing any more, in silence and for ever: neither end is told, nor hears when the other gives up. New ones work.

        That is what a firewall does that has forgotten its connections.
        """
        for pair in self._connections.values():
            pair.stranded = True

    async def cut(self, *, refuse: bool = False) -> None:
        """Breaks all connections; new ones are made again, unless they are refused until `mend`."""
        self._muted = False
        self._refusing = refuse
        self.broken += len(self._connections)
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def mend(self) -> None:
        """New connections are made again, and nothing is delayed, throttled or held up."""
        self._refusing = False
        for way in self._ways("both"):
            way.clear()

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self.cut(refuse=True)

    def _ways(self, direction: Direction) -> list[Way]:
        return {"there": [self._there], "back": [self._back], "both": [self._there, self._back]}[direction]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.broken += 1
            writer.transport.abort()
            return
        self.connected += 1
        pair = Pair()
        task = asyncio.ensure_future(self._connect(reader, writer, pair))
        self._connections[task] = pair
        task.add_done_callback(self._connections.pop)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: Pair) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
            there = asyncio.ensure_future(_pump(reader, self._carrying(far, pair, answers=False), self._there))
            back = asyncio.ensure_future(_pump(far_reader, self._carrying(writer, pair, answers=True), self._back))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                if pair.stranded:  # who is left does not hear that the other is gone
                    await asyncio.wait({there, back})
            finally:
                there.cancel()
                back.cancel()
        except OSError:
            pass  # The server is away: whoever connected sees a broken connection, as without the cable.
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()

    def _carrying(
        self, writer: asyncio.StreamWriter, pair: Pair, *, answers: bool
    ) -> Callable[[bytes], Awaitable[None]]:
        async def carry(data: bytes) -> None:
            if pair.stranded or (answers and self._muted):
                self.swallowed += len(data)
                return
            writer.write(data)
            await writer.drain()

        return carry


async def _pump(reader: asyncio.StreamReader, take: Callable[[bytes], Awaitable[None]], way: Way) -> None:
    """Carries everything that comes to `take`, until one end closes."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY)
    delivering = asyncio.ensure_future(_deliver(under_way, take, way))
    try:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await under_way.put((asyncio.get_running_loop().time() + way.delay, data))
        await under_way.put((0.0, b""))
        await delivering
    finally:
        delivering.cancel()


async def _deliver(
    under_way: asyncio.Queue[tuple[float, bytes]], take: Callable[[bytes], Awaitable[None]], way: Way
) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while True:
            due, data = await under_way.get()
            if not data:
                return
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            if way.rate:
                await asyncio.sleep(len(data) / way.rate)
            await way.open.wait()
            await take(data)
