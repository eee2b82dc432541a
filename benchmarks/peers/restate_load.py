"""Restate: the load, over HTTP to its ingress."""

from __future__ import annotations

import aiohttp
import uvloop

from benchmarks.peers.driver import ITEMS, Once, serve, settings


async def main() -> None:
    """Drives the service."""
    ingress = settings()["ingress"]
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        def call(handler: str, items: int | None = None) -> Once:
            async def once(number: int) -> None:
                given = number if items is None else items
                async with session.post(f"{ingress}/Bench/{handler}", json=given) as response:
                    said = await response.text()
                if said != str(given):
                    raise RuntimeError(f"{response.status}: {said[:200]}")

            return once

        fans = {name: call("w3", items) for name, items in ITEMS.items()}
        await serve({"w1": call("w1"), "w2": call("w2"), **fans})


if __name__ == "__main__":
    uvloop.run(main())
