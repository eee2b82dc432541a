"""The relay's way out: the process's NATS connection and the publisher on it."""

from __future__ import annotations

import asyncio
from typing import Any

from tierflow_runtime.messaging import Messaging

from tierflow_durable.packing import Message


class Outlet:
    """What the relay needs of the connection, in one object."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        return self._messaging.connected

    @property
    def room(self) -> int:
        """Messages that may be sent now."""
        return self._messaging.publisher.room

    def publish(self, message: Message) -> asyncio.Future[Any]:
        """Sends; the future is resolved by JetStream's acknowledgement or an error."""
        return self._messaging.publisher.publish(message.subject, message.payload, message.msg_id, message.headers)
