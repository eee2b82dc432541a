"""The simulated network: connections between processes, and what passes over them. `channels` and `serving` are the part of gRPC that the services use.

A stream keeps its order, different streams do not wait for each other. Connections break, are refused, hang while processes are frozen or cut off from each other, and
what was on its way is lost with them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.loop import Loop, World

if TYPE_CHECKING:
    from simulation.serving import SimServer

WINDOW = 32
"""Messages on their way in one direction of a stream, beyond which its writer waits."""


class Network:
    """All servers, and what lies between processes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.servers: dict[str, SimServer] = {}
        self.connections: list[Connection] = []
        self.cuts: set[frozenset[str]] = set()
        self.slow = 1.0
        self.keepalive = 3.0
        """Seconds after which a silent peer counts as gone."""
        self.on_send: Callable[[Connection, bool, str, Any], None] = lambda connection, up, method, message: None

    def latency(self) -> float:
        chance = self.random.random()
        return (0.0001 + 0.0005 * chance if chance < 0.97 else 0.02 * self.random.random()) * self.slow

    def is_cut(self, a: str, b: str) -> bool:
        return bool(self.cuts) and frozenset((a, b)) in self.cuts

    def cut(self, a: str, b: str) -> None:
        """Nothing passes between two processes until it is healed; connections break when they have been silent for too long."""
        self.cuts.add(frozenset((a, b)))
        for connection in self.between(a, b):
            connection.suspect()

    def heal(self, a: str, b: str) -> None:
        self.cuts.discard(frozenset((a, b)))
        for connection in self.between(a, b):
            connection.resume()

    def between(self, a: str, b: str | None = None) -> list[Connection]:
        self.connections = [each for each in self.connections if not each.broken]
        names = (a,) if b is None else (a, b)
        return [each for each in self.connections if all(name in each.names for name in names)]

    def frozen(self, process: str) -> None:
        for connection in self.between(process):
            connection.suspect()

    def died(self, loop: Loop, *, silent: bool) -> None:
        """A process is gone: its peers are told by its machine, or find out."""
        for connection in self.between(loop.name):
            if loop in (connection.client, connection.server.loop):
                connection.die(loop.name, silent=silent)


class Connection:
    """One connection of a channel: both processes, and the streams on it."""

    def __init__(self, network: Network, client: Loop, server: SimServer) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.names = (client.name, server.loop.name)
        self.broken = False
        self.broken_at = float("inf")
        self.calls: list[Any] = []
        """Both ends of each stream that is open."""
        self.held: list[tuple[Pipe, Any]] = []
        network.connections.append(self)

    @property
    def is_cut(self) -> bool:
        return self.network.is_cut(*self.names)

    def suspect(self) -> None:
        """Silence has begun: if it lasts, each end takes the other for dead."""
        wait = self.network.keepalive * (0.7 + 0.6 * self.network.random.random())
        self.network.world.after(wait, self._still_silent)

    def _still_silent(self) -> None:
        if self.broken:
            return
        if self.is_cut or self.client.frozen or self.server.loop.frozen:
            self.break_("the peer is silent")

    def resume(self) -> None:
        held, self.held = self.held, []
        for pipe, item in held:
            pipe.transmit(item)

    def break_(self, why: str) -> None:
        """Both ends find out, each at its own time. What is on its way is lost."""
        if self.broken:
            return
        self.broken = True
        network = self.network
        self.broken_at = network.world.now
        calls, self.calls = self.calls, []
        for call in calls:
            call.loop.deliver(network.world.now + network.latency(), call.broke, why)

    def die(self, process: str, *, silent: bool) -> None:
        if self.broken:
            return
        network = self.network
        if silent:
            network.world.after(
                network.keepalive * (0.7 + 0.6 * network.random.random()), self.break_, f"{process} is silent"
            )
        else:
            self.break_(f"{process} has reset the connection")


class Pipe:
    """One direction of a stream: in order, with a window."""

    __slots__ = ("connection", "last", "receive", "target", "under_way", "writers")

    def __init__(self, connection: Connection, target: Loop, receive: Callable[[Any], None]) -> None:
        self.connection = connection
        self.target = target
        self.receive = receive
        self.last = 0.0
        self.under_way = 0
        self.writers: deque[Any] = deque()

    async def send(self, item: Any, loop: Loop) -> None:
        """Sends, and waits while too much is under way."""
        while self.under_way >= WINDOW and not self.connection.broken:
            future = loop.create_future()
            self.writers.append(future)
            await future
        self.put(item)
        await asyncio.sleep(0)

    def put(self, item: Any) -> None:
        if self.connection.broken:
            return
        self.under_way += 1
        if self.connection.is_cut:
            self.connection.held.append((self, item))
        else:
            self.transmit(item)

    def transmit(self, item: Any) -> None:
        network = self.connection.network
        self.last = max(self.last + 1e-7, network.world.now + network.latency())
        self.target.deliver(self.last, self._arrive, item, self.last)

    def _arrive(self, item: Any, at: float) -> None:
        """What arrived before the connection broke is read, also by a process that was frozen when it came."""
        if at > self.connection.broken_at:
            return
        self.under_way -= 1
        if self.writers:
            self.wake()
        self.receive(item)

    def wake(self) -> None:
        while self.writers:
            future = self.writers.popleft()
            if not future.done():
                # Whoever writes is another process: it hears of the room as of anything else.
                future.get_loop().deliver(self.connection.network.world.now, done, future)
                return


def done(future: Any) -> None:
    if not future.done():
        future.set_result(None)
