"""Progress of swarms that somebody watches: one NATS subscription per watched swarm, shared by its watchers. NATS may be away; what it loses is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError
from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime.afterwards import afterwards
from tierflow_runtime.logs import get_log
from tierflow_runtime.messaging import Messaging
from tierflow_runtime.subjects import EntitySubjects

log = get_log(__name__)

Heard = Callable[[event_pb2.EventBatch], None]
LOOK_AGAIN: Final = 1.0
"""Seconds between two looks at a connection that is away or was made anew."""


class Listening:
    """One watcher's ear."""

    def __init__(self, subscription: _Subscription, heard: Heard) -> None:
        self._subscription = subscription
        self._heard = heard

    async def close(self) -> None:
        """Hears no more."""
        await self._subscription.leave(self._heard)


class Progress:
    """The subscriptions of this process."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging
        self._subscriptions: dict[str, _Subscription] = {}

    async def listen(self, tenant: str, swarm_id: str, heard: Heard) -> Listening:
        """Calls back with each batch of progress until the answer is closed. Does not wait for NATS."""
        prefix = EntitySubjects(tenant, swarm_id, "").prefix.rpartition(".")[0]
        subject = f"{prefix}.*.progress.>"
        subscription = self._subscriptions.get(subject)
        if subscription is None:
            subscription = _Subscription(subject, self._messaging, self._subscriptions)
        subscription.heard.append(heard)
        return Listening(subscription, heard)


class _Subscription:
    """One subject, as long as somebody listens; over reconnects."""

    def __init__(self, subject: str, messaging: Messaging, registry: dict[str, _Subscription]) -> None:
        self.subject = subject
        self.heard: list[Heard] = []
        self._messaging = messaging
        self._registry = registry
        registry[subject] = self
        self._on: Any = None
        self._subscription: Any = None
        self._task = asyncio.create_task(afterwards(self._keep(), self._end), name=f"progress {subject}")

    async def leave(self, heard: Heard) -> None:
        self.heard.remove(heard)
        if not self.heard:
            self._registry.pop(self.subject, None)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        """Subscribes on the connection that there is; the client renews it over its own reconnects."""
        while True:
            client = self._messaging.client
            if client is not None and client is not self._on and client.is_connected:
                try:
                    self._subscription = await client.subscribe(self.subject, cb=self._received)
                    self._on = client
                except NatsError as error:
                    log.info("progress cannot be heard now", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(LOOK_AGAIN)

    async def _end(self) -> None:
        if self._subscription is not None and self._on is self._messaging.client:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()

    async def _received(self, message: Any) -> None:
        try:
            batch = event_pb2.EventBatch.FromString(message.data)
        except DecodeError:
            log.warning("what came as progress is none", subject=message.subject)
            return
        for heard in list(self.heard):
            heard(batch)
