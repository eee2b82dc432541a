"""Acknowledgements are read the same, however the bytes are cut."""

from typing import Any

import pytest
from nats.aio.client import Client
from tierflow_runtime.acknowledgements import AcknowledgementParser, new_client, parser_of

INBOX = "_INBOX.abc."
BYTES = (
    b'MSG _INBOX.abc.1 7 9\r\n{"seq":1}\r\n'
    + b'MSG _INBOX.abc.2 7 9\r\n{"seq":2}\r\n'
    + b"PING\r\n"
    + b"MSG other.subject 3 5\r\nhello\r\n"
    + b'MSG _INBOX.abc.3 7 14\r\n{"seq":"\r\n\r\n"}\r\n'
    + b"HMSG _INBOX.abc.4 7 30 30\r\nNATS/1.0 503 No responders\r\n\r\n\r\n"
    + b'MSG _INBOX.abc.5 7 9\r\n{"seq":5}\r\n'
)


class Noting(Client):
    """Notes what comes the usual way."""

    def __init__(self) -> None:
        super().__init__()
        self.pings = 0
        self.usual: list[tuple[bytes, bytes]] = []

    async def _process_ping(self) -> None:
        self.pings += 1

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.usual.append((bytes(subject), bytes(data)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 33, 34, 35, 50, 1000])
async def test_however_they_are_cut(size: int) -> None:
    """H3, H16: every message is heard once, in order, the usual way or the short one, and nothing else is swallowed."""
    client = Noting()
    parser = AcknowledgementParser(client)
    heard: list[tuple[int, bytes]] = []
    parser.hear(INBOX, lambda number, data: heard.append((number, data)))
    for start in range(0, len(BYTES), size):
        await parser.parse(BYTES[start : start + size])
    found: dict[int, Any] = dict(heard)
    for subject, data in client.usual:
        if subject.startswith(INBOX.encode()):
            found[int(subject.rpartition(b".")[2])] = data
    assert found == {1: b'{"seq":1}', 2: b'{"seq":2}', 3: b'{"seq":"\r\n\r\n"}', 4: b"", 5: b'{"seq":5}'}
    assert len(heard) + len(client.usual) == 6
    assert (client.pings, (b"other.subject", b"hello") in client.usual, bytes(parser.buf)) == (1, True, b"")


def test_a_client_has_one() -> None:
    """H16: the publisher finds the parser of clients that were made for it, and none at others."""
    assert parser_of(new_client()) is not None
    assert parser_of(Client()) is None
