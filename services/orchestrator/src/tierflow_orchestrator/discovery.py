"""Finding instances of another tier: a fixed list, or DNS names that give one address per instance (a headless Service)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from tierflow_runtime.logs import get_log

log = get_log(__name__)

LOOK_EVERY = 5.0
"""Seconds between looks at DNS."""


async def resolve(targets: Sequence[str], known: dict[str, set[str]] | None = None) -> set[str]:
    """The addresses (host:port) behind `targets`: each `host:port`, or `dns:///name:port`.

    A name that cannot be resolved now has those that it had before, which `known` keeps: a name server that is away takes nobody away.
    """
    known = {} if known is None else known
    found: set[str] = set()
    for target in targets:
        if not target.startswith("dns:///"):
            found.add(target)
            continue
        host, _, port = target.removeprefix("dns:///").rpartition(":")
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            log.info("a name cannot be resolved now", target=target, reason=str(error))
        else:
            known[target] = {_where(str(info[4][0]), port) for info in infos}
        found |= known.get(target, set())
    return found


async def follow(
    targets: Sequence[str],
    appeared: Callable[[str], None],
    vanished: Callable[[str], None],
    *,
    every: float = LOOK_EVERY,
) -> None:
    """Tells of addresses that appear and vanish, for ever."""
    listed: set[str] = set()
    names: dict[str, set[str]] = {}
    dynamic = any(target.startswith("dns:///") for target in targets)
    while True:
        now = await resolve(targets, names)
        for address in sorted(now - listed):
            appeared(address)
        for address in sorted(listed - now):
            vanished(address)
        listed = now
        if not dynamic:
            return
        await asyncio.sleep(every)


def _where(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
