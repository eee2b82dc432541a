"""Tierflow: the load, over gRPC to Tier 1."""

from __future__ import annotations

import uvloop
from tierflow import Client

from benchmarks.peers.driver import ITEMS, Once, serve, settings
from benchmarks.workloads import CHAIN, FAN_OUT, ONE_STEP, ready


async def main() -> None:
    """Registers the flows and drives them."""
    async with Client(settings()["address"]) as client:
        await ready(client)
        for flow in (ONE_STEP, CHAIN, FAN_OUT):
            await client.register_flow(flow)

        def run(flow: str, items: int | None = None) -> Once:
            async def once(number: int) -> None:
                given = {"i": number} if items is None else {"items": list(range(items))}
                expected = {"i": number} if items is None else {"done": True}
                result = await client.run(flow, given)
                if result != expected and result != {"only": expected}:
                    raise RuntimeError(f"wrong result: {result!r}")

            return once

        fans = {name: run("bench-fan-out@1", items) for name, items in ITEMS.items()}
        await serve({"w1": run("bench-one@1"), "w2": run("bench-chain@1"), **fans})


if __name__ == "__main__":
    uvloop.run(main())
