"""Reads JetStream's acknowledgements where they arrive: below nats-py's subscriptions, which cost ten times as much for each of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

_LINE_END: Final = 2


class AcknowledgementParser(Parser):
    """nats-py's parser, which hands out messages to one inbox itself; everything else goes the usual way.

    So do messages to that inbox with headers, which tell of trouble: whoever uses this subscribes as well.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._mine: re.Pattern[bytes] | None = None
        self._heard: Callable[[int, bytes], None]

    def hear(self, inbox: str, heard: Callable[[int, bytes], None]) -> None:
        """Calls back with number and content of each message to `<inbox><number>`. The content is not empty."""
        self._mine = re.compile(rb"MSG %s(\d+) \d+ ([1-9]\d*)\r\n" % re.escape(inbox.encode()))
        self._heard = heard

    async def parse(self, data: bytes = b"") -> None:
        """Takes what has arrived."""
        if self._mine is not None and self.state == AWAITING_CONTROL_LINE:
            if self.buf:
                data = bytes(self.buf) + data
                self.buf.clear()
            data = self._hear(self._mine, data)
            if not data:
                return
        await super().parse(data)

    def _hear(self, mine: re.Pattern[bytes], data: bytes) -> bytes:
        """Hands out acknowledgements up to the first thing that is none; returns the rest. One that is not all there is kept until it is."""
        at = 0
        heard = self._heard
        while (found := mine.match(data, at)) is not None:
            begin = found.end()
            end = begin + int(found[2])
            if end + _LINE_END > len(data):
                self.buf.extend(data[at:])
                return b""
            at = end + _LINE_END
            heard(int(found[1]), data[begin:end])
        return data[at:] if at else data


def new_client() -> Client:
    """A client of nats-py with such a parser."""
    client = Client()
    client._ps = AcknowledgementParser(client)
    return client


def parser_of(client: Client) -> AcknowledgementParser | None:
    """The parser of a client, where it has one of these."""
    parser: Any = client._ps
    return parser if isinstance(parser, AcknowledgementParser) else None
