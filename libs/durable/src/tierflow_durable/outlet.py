"""The relay's way out: the process's NATS connection and the publisher on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tierflow_runtime.messaging import Messaging


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

    def publish(
        self, subject: str, payload: bytes, msg_id: str, headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[Any]:
        """Sends; the future is resolved by JetStream's acknowledgement or an error."""
        return self._messaging.publisher.publish(subject, payload, msg_id, headers)
