"""The bad network that chaos tests are made of."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tierflow_testing.cables import Cables

ROUTE = "here-there"


@pytest.fixture
def cables() -> Iterator[Cables]:
    with Cables() as made:
        yield made


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """The address of a server that sends everything back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


class Talk:
    """One connection through a cable."""

    def __init__(self, cables: Cables, echo: str) -> None:
        self._address = cables.through(ROUTE, echo)

    async def __aenter__(self) -> "Talk":
        host, _, port = self._address.partition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    def say(self, text: bytes) -> None:
        self._writer.write(text)

    async def hear(self, size: int, patience: float = 60.0) -> bytes:
        return await asyncio.wait_for(self._reader.readexactly(size), patience)

    async def seconds(self, text: bytes) -> float:
        """How long a question and its answer took."""
        began = time.monotonic()
        self.say(text)
        assert await self.hear(len(text)) == text
        return time.monotonic() - began


async def test_carries_everything_to_one_server(cables: Cables, echo: str) -> None:
    """O7: without orders a cable changes nothing; one route has one cable for each server, and addresses in a text are found."""
    assert cables.through(ROUTE, echo) == cables.through(ROUTE, echo) != echo
    assert cables.through(ROUTE, f"nats://{echo}") == "nats://" + cables.through(ROUTE, echo)
    async with Talk(cables, echo) as talk:
        text = bytes(range(256)) * 4096
        await talk.seconds(text)
    assert cables.connected(ROUTE) == 1
    assert cables.broken(ROUTE) == 0


async def test_cut_and_refused(cables: Cables, echo: str) -> None:
    """O7: a cut breaks what is open; what is refused is broken until it is mended."""
    async with Talk(cables, echo) as talk:
        await talk.seconds(b"a")
        cables.cut(ROUTE)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await talk.hear(1)
    async with Talk(cables, echo) as talk:
        await talk.seconds(b"b")
    cables.cut(ROUTE, refuse=True)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with Talk(cables, echo) as talk:
            await talk.hear(1)
    cables.mend(ROUTE)
    async with Talk(cables, echo) as talk:
        await talk.seconds(b"c")
    assert cables.broken(ROUTE) >= 2


async def test_delayed_and_throttled(cables: Cables, echo: str) -> None:
    """O7: a delay counts in each direction and does not pile up; a throttle limits bytes; both end when it is mended."""
    async with Talk(cables, echo) as talk:
        cables.delay(ROUTE, 0.1)
        assert await talk.seconds(b"a") >= 0.2
        began = time.monotonic()
        for _ in range(200):
            talk.say(b"x")
            await asyncio.sleep(0)
        await talk.hear(200)
        assert time.monotonic() - began < 20  # if it piled up, 40
        cables.delay(ROUTE, 0.0)
        cables.throttle(ROUTE, 50_000, "back")
        assert await talk.seconds(b"b" * 10_000) >= 0.2
        cables.mend(ROUTE)
        assert await talk.seconds(b"c" * 1_000_000) < 10  # throttled, 20


@pytest.mark.parametrize("direction", ["there", "back", "both"])
async def test_held_up_in_one_direction(cables: Cables, echo: str, direction: str) -> None:
    """O7: what is held up neither arrives nor breaks anything, and arrives when it is mended."""
    async with Talk(cables, echo) as talk:
        await talk.seconds(b"a")
        cables.hold(ROUTE, direction)  # type: ignore[arg-type]
        talk.say(b"hello")
        with pytest.raises(TimeoutError):
            await talk.hear(1, patience=0.2)
        cables.mend(ROUTE)
        assert await talk.hear(5) == b"hello"


async def test_answers_are_lost(cables: Cables, echo: str) -> None:
    """O7, H3: what is muted reaches the server, and the answer is gone."""
    async with Talk(cables, echo) as talk:
        await talk.seconds(b"a")
        cables.mute(ROUTE)
        talk.say(b"lost")
        with pytest.raises(TimeoutError):
            await talk.hear(1, patience=0.2)
        cables.cut(ROUTE)
    async with Talk(cables, echo) as talk:
        await talk.seconds(b"b")


async def test_stranded_connections(cables: Cables, echo: str) -> None:
    """O7: a stranded connection is dead in silence, also after it is mended; a new one works."""
    async with Talk(cables, echo) as old:
        await old.seconds(b"a")
        cables.strand(ROUTE)
        old.say(b"lost")
        async with Talk(cables, echo) as new:
            await new.seconds(b"b")
        cables.mend(ROUTE)
        with pytest.raises(TimeoutError):
            await old.hear(1, patience=0.2)
