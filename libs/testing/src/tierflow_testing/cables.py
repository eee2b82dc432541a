"""Cables between all parts of a stack, in a thread of their own, so that what a test does itself neither delays them nor is delayed by them."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tierflow_testing.cable import Cable, Direction

T = TypeVar("T")

ADDRESS = re.compile(r"(127\.0\.0\.1):(\d+)")


class Cables:
    """One cable for each route and server; a route is a name such as `orchestrator-postgres`, see `StackOptions.via`. All methods block, any thread may call them.

    `with Cables() as cables: Stack(directory, StackOptions(via=cables.through))`
    """

    def __init__(self) -> None:
        """Prepares, starts nothing."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="cables")
        self._cables: dict[str, dict[int, Cable]] = {}

    def through(self, route: str, address: str) -> str:
        """An address, or all in a text, as they are reached by this route; a cable that is there is used again."""
        return ADDRESS.sub(lambda found: f"127.0.0.1:{self._lay(route, found[1], int(found[2])).port}", address)

    def cut(self, route: str, *, refuse: bool = False) -> None:
        """`Cable.cut` of all cables of a route."""
        for cable in self._of(route):
            self._do(cable.cut(refuse=refuse))

    def mute(self, route: str) -> None:
        """`Cable.mute`: answers are lost."""
        self._tell(route, lambda cable: cable.mute())

    def delay(self, route: str, seconds: float, direction: Direction = "both") -> None:
        """`Cable.delay`."""
        self._tell(route, lambda cable: cable.delay(seconds, direction))

    def throttle(self, route: str, bytes_per_second: int, direction: Direction = "both") -> None:
        """`Cable.throttle`."""
        self._tell(route, lambda cable: cable.throttle(bytes_per_second, direction))

    def hold(self, route: str, direction: Direction = "both") -> None:
        """`Cable.hold`."""
        self._tell(route, lambda cable: cable.hold(direction))

    def strand(self, route: str) -> None:
        """`Cable.strand`: present connections are dead, and nobody knows."""
        self._tell(route, lambda cable: cable.strand())

    def mend(self, route: str) -> None:
        """`Cable.mend`."""
        self._tell(route, lambda cable: cable.mend())

    def connected(self, route: str) -> int:
        """Connections that were made on a route so far."""
        return sum(cable.connected for cable in self._of(route))

    def broken(self, route: str) -> int:
        """Connections on a route that were cut or refused so far."""
        return sum(cable.broken for cable in self._of(route))

    def __enter__(self) -> Cables:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for route in self._cables:
            for cable in self._of(route):
                self._do(cable.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _of(self, route: str) -> list[Cable]:
        return list(self._cables[route].values())

    def _lay(self, route: str, host: str, port: int) -> Cable:
        cables = self._cables.setdefault(route, {})
        if port not in cables:
            cables[port] = self._do(_laid(host, port))
        return cables[port]

    def _tell(self, route: str, do: Callable[[Cable], None]) -> None:
        async def told() -> None:
            for cable in self._of(route):
                do(cable)

        self._do(told())

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)


async def _laid(host: str, port: int) -> Cable:
    return await Cable(host, port).__aenter__()
