"""The relay's way out: the process's NATS connection and the publisher on it."""

from __future__ import annotations

from tierflow_runtime.messaging import Messaging
from tierflow_runtime.publisher import Heard

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

    def send(self, message: Message, heard: Heard) -> None:
        """Sends; `heard` is called once, with JetStream's acknowledgement or an error."""
        self._messaging.publisher.send(*message[:4], heard)
