"""Which orchestrators there are, and which of them to ask: found by address list or by DNS (a headless Service in Kubernetes)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final

import grpc
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_runtime.afterwards import afterwards, end_all
from tierflow_runtime.channels import open_channel
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import Failure, FailureError

from tierflow_coordinator.links import Link, Listener

log = get_log(__name__)

RESOLVE_EVERY: Final = 5.0
PATIENCE: Final = 3.0
"""Seconds for which a call waits for the first orchestrator: one that starts, or starts again, is there by then."""
_DNS: Final = "dns:///"


class Orchestrators:
    """The links to all orchestrators. Owns their tasks."""

    def __init__(
        self,
        targets: Sequence[str],
        *,
        hello: orchestrator.CoordinatorHello,
        listener: Listener,
        channel: Callable[[str], grpc.aio.Channel] | None = None,
        resolve_every: float = RESOLVE_EVERY,
    ) -> None:
        self._fixed = [target for target in targets if not target.startswith(_DNS)]
        self._names = [target.removeprefix(_DNS) for target in targets if target.startswith(_DNS)]
        self._hello = hello
        self._listener = listener
        self._channel = channel or open_channel
        self._resolve_every = resolve_every
        self._links: dict[str, Link] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = 0
        self._up = asyncio.Event()

    @property
    def links(self) -> Sequence[Link]:
        """All links, up or not."""
        return tuple(self._links.values())

    @property
    def ready(self) -> bool:
        """Whether any orchestrator is connected."""
        return any(link.ready for link in self._links.values())

    async def run(self) -> None:
        """Keeps the links, until cancelled."""
        await afterwards(self._keep(), self._end)

    async def _keep(self) -> None:
        for address in self._fixed:
            self.link_to(address)
        while True:
            await self._resolve()
            await asyncio.sleep(self._resolve_every)

    async def _end(self) -> None:
        await end_all(self._tasks.values())

    def link_to(self, address: str) -> Link:
        """The link to an address, new where there was none: an orchestrator that owns a run may have been found by nobody yet."""
        link = self._links.get(address)
        if link is None:
            link = Link(address, hello=self._hello, listener=self, channel=self._channel)
            self._links[address] = link
            self._tasks[address] = asyncio.create_task(link.run(), name=f"link {address}")
        return link

    def pick(self) -> Link | None:
        """The least loaded of those that have room for a new run; None where there is none. Equals take turns."""
        best: Link | None = None
        links = list(self._links.values())
        self._turn += 1
        for index in range(len(links)):
            link = links[(index + self._turn) % len(links)]
            if link.has_room and (best is None or link.outstanding < best.outstanding):
                best = link
        return best

    def probe(self, *, waiting: int) -> None:
        """Some time has passed: those that were full may have room again. Where nobody waits, nothing was learnt."""
        for link in self._links.values():
            if waiting:
                link.room.probe()
            elif link.outstanding == 0:
                link.room.open()

    def busy(self) -> bool:
        """Whether somebody has room, but is behind with answering."""
        return any(link.would_take for link in self._links.values())

    def any(self) -> Link | None:
        """Any link that is up, a draining one too: for commands, which every orchestrator hands to the run's owner."""
        return self.pick() or next((link for link in self._links.values() if link.ready), None)

    async def channel(self, patience: float = PATIENCE) -> grpc.aio.Channel:
        """A channel for unary calls and watches; where no orchestrator is connected, one is waited for a little.

        Raises:
            FailureError: UNAVAILABLE, where none came.
        """
        link = self.any()
        if link is None:
            self._up.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._up.wait(), patience)
            link = self.any()
        if link is None:
            raise FailureError(self.away())
        return link.channel

    def link_up(self, link: Link) -> None:
        """See `Listener`."""
        self._up.set()
        self._listener.link_up(link)

    def link_down(self, link: Link) -> None:
        """See `Listener`."""
        self._listener.link_down(link)

    def received(self, link: Link, frame: orchestrator.ExecuteRunsResponse) -> None:
        """See `Listener`."""
        self._listener.received(link, frame)

    def away(self) -> Failure:
        """Says that no orchestrator is connected, and which were tried."""
        tried = "; ".join(f"{link.address} ({link.last_error or 'not yet connected'})" for link in self._links.values())
        return failure(
            "UNAVAILABLE",
            "No orchestrator is connected now.",
            tier=1,
            component="orchestrators",
            operation="connect",
            detail=tried or "TIERFLOW_ORCHESTRATORS names none",
        )

    async def _resolve(self) -> None:
        if not self._names:
            return
        found: set[str] = set()
        for name in self._names:
            host, _, port = name.rpartition(":")
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except OSError as error:
                log.warning("an orchestrator's name cannot be resolved", target=name, reason=str(error))
                return
            found.update(_where(str(where[0]), int(where[1])) for *_, where in infos)
        for address in found:
            self.link_to(address)
        for address, link in list(self._links.items()):
            if address not in found and address not in self._fixed and not link.ready:
                await self._drop(address)

    async def _drop(self, address: str) -> None:
        self._links.pop(address)
        task = self._tasks.pop(address)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
