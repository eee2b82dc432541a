"""The simulated NATS: one stream of events that acknowledges late, loses messages and acknowledgements, and is away at times."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime.errors import failure
from tierflow_runtime.messaging import EVENTS, StreamMade
from tierflow_runtime.publisher import Heard
from tierflow_runtime.values import FailureError

from simulation.loop import World

IN_FLIGHT = 64
ACK_TIMEOUT = 3.0


class Broker:
    """The server, with what it has stored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.up = True
        self.loss = 0.0
        """Share of the messages to which something happens."""
        self.stored: dict[tuple[str, int], bytes] = {}
        """Events by entity and sequence number: what the stream holds now."""
        self.ever: set[tuple[str, int]] = set()
        """Events that it has ever held."""
        self.stream = 0
        """Which stream of the name it is; 0 before the first was made."""
        self.subjects: dict[tuple[str, int], str] = {}
        self.messages = 0
        self.connections: list[SimMessaging] = []

    def lose(self) -> None:
        """The stream is gone with all that it held; whoever notices first makes it anew."""
        self.stored.clear()
        self.stream += 1

    def store(self, subject: str, payload: bytes) -> None:
        self.messages += 1
        batch = event_pb2.EventBatch.FromString(payload)
        entity = batch.source.entity_id
        for event in batch.events:
            key = (entity, event.seq)
            self.subjects[key] = subject
            self.stored[key] = event.SerializeToString(deterministic=True)
            self.ever.add(key)

    def stop(self) -> None:
        self.up = False
        for connection in self.connections:
            connection.publisher.disconnect()

    def start(self) -> None:
        self.up = True


class SimPublisher:
    """Stands in for `EventPublisher`."""

    def __init__(self, broker: Broker, loop: Any) -> None:
        self._broker = broker
        self._loop = loop
        self._open: dict[int, Any] = {}
        self._number = 0
        self.up = False

    @property
    def dead(self) -> bool:
        return bool(self._loop.dead or self._loop.frozen)

    @property
    def room(self) -> int:
        return IN_FLIGHT - len(self._open)

    def publish(self, subject: str, payload: bytes, msg_id: str, headers: Mapping[str, str] | None = None) -> Any:
        broker, loop = self._broker, self._loop
        future = loop.create_future()
        if not self.up or not self.room:
            future.set_exception(_unavailable("not connected"))
            return future
        self._number += 1
        number = self._number
        self._open[number] = future
        world = broker.world
        chance = broker.random
        lost = broker.loss and chance.random() < broker.loss
        fate = chance.randrange(3) if lost else 3
        if fate == 0:  # never arrives
            loop.deliver(world.now + ACK_TIMEOUT, self._end, number, _unavailable("no acknowledgement"))
            return future
        world.after(0.0003 + 0.001 * chance.random(), self._arrive, number, subject, payload, fate)
        return future

    def send(self, subject: str, payload: bytes, msg_id: str, headers: Mapping[str, str] | None, heard: Heard) -> None:
        future = self.publish(subject, payload, msg_id, headers)
        future.add_done_callback(lambda done: done.cancelled() or heard(done.exception() or b""))

    def _arrive(self, number: int, subject: str, payload: bytes, fate: int) -> None:
        broker = self._broker
        now = broker.world.now
        if not broker.up:
            return
        broker.store(subject, payload)
        if fate == 1:  # the acknowledgement is lost
            self._loop.deliver(now + ACK_TIMEOUT, self._end, number, _unavailable("no acknowledgement"))
            return
        wait = 1.0 if fate == 2 else 0.001
        self._loop.deliver(now + 0.0003 + wait * broker.random.random(), self._end, number, None)

    def _end(self, number: int, error: Exception | None) -> None:
        future = self._open.pop(number, None)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def publish_progress(self, subject: str, batch: Any) -> None:
        """May be lost, and is."""

    def disconnect(self) -> None:
        """The connection is gone, with everything under way."""
        if self.up and not self._loop.dead:
            self._loop.deliver(self._broker.world.now, self._disconnected)

    def _disconnected(self) -> None:
        self.up = False
        for number in list(self._open):
            self._end(number, _unavailable("disconnected"))


class SimMessaging:
    """Stands in for `Messaging`: connects as long as the broker is there."""

    def __init__(
        self, broker: Broker, name: str, on_stream: Callable[[StreamMade], Awaitable[None]] | None = None
    ) -> None:
        self._broker = broker
        self._on_stream = on_stream
        self._known = 0
        self.client = None
        self.publisher = SimPublisher(broker, asyncio.get_running_loop())
        broker.connections.append(self)

    @property
    def connected(self) -> bool:
        return self.publisher.up

    async def wait_connected(self) -> None:
        while not self.connected:
            await asyncio.sleep(0.1)

    async def run(self) -> None:
        broker = self._broker
        while True:
            if not self.publisher.up and broker.up:
                self.publisher.up = True
            if self.publisher.up and self._known != (broker.stream or 1):
                made_here = not broker.stream
                broker.stream = broker.stream or 1
                lost, self._known = bool(self._known), broker.stream
                if self._on_stream is not None:
                    await self._on_stream(StreamMade(EVENTS, str(broker.stream), made_here, lost=lost))
            await asyncio.sleep(1.0)


def _unavailable(text: str) -> FailureError:
    return FailureError(failure("UNAVAILABLE", text, component="messaging", operation="publish"))
