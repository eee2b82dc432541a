"""A TCP proxy that a test can mute and cut: between a service and its server, as a bad network would be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from tierflow_testing.ports import free_port


class Cable:
    """Forwards every connection to `host:port`, as long as it is told to. Lives in the event loop of the test.

    `async with Cable("127.0.0.1", 5432) as cable:` and connect to `cable.port`.
    """

    def __init__(self, host: str, port: int) -> None:
        """Prepares, listens to nothing yet."""
        self._target = (host, port)
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._muted = False
        self._refusing = False
        self.swallowed = 0
        """Bytes of answers that were lost."""

    def url(self, address: str) -> str:
        """An address of the server, such as `postgresql://role@127.0.0.1:5432/name`, that leads through this cable."""
        return address.replace(f"{self._target[0]}:{self._target[1]}", f"127.0.0.1:{self.port}")

    def mute(self) -> None:
        """From now on questions reach the server, and its answers are lost."""
        self._muted = True

    async def cut(self, *, refuse: bool = False) -> None:
        """Breaks all connections; new ones are made again, unless they are refused until `mend`."""
        self._muted = False
        self._refusing = refuse
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def mend(self) -> None:
        """New connections are made again."""
        self._refusing = False

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        await self.cut(refuse=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
            there = asyncio.ensure_future(_pump(reader, _writing(far)))
            back = asyncio.ensure_future(_pump(far_reader, self._answering(writer)))
            try:
                await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()
        except OSError:
            pass  # The server is away: whoever connected sees a broken connection, as without the cable.
        finally:
            for end in (writer, far):
                if end is not None:
                    end.transport.abort()

    def _answering(self, writer: asyncio.StreamWriter) -> Callable[[bytes], Awaitable[None]]:
        write = _writing(writer)

        async def answer(data: bytes) -> None:
            if self._muted:
                self.swallowed += len(data)
            else:
                await write(data)

        return answer


def _writing(writer: asyncio.StreamWriter) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return write


async def _pump(reader: asyncio.StreamReader, take: Callable[[bytes], Awaitable[None]]) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            await take(data)
