"""Restate: the service with the three workloads, on hypercorn. Its first argument is the port."""

from __future__ import annotations

import sys

import hypercorn.asyncio
import hypercorn.config
import restate
import uvloop

NO_LIMIT = 2**31 - 1  # hypercorn closes a connection after a thousand requests otherwise
bench = restate.Service("Bench")


async def nothing() -> dict[str, bool]:
    """A step."""
    return {"ok": True}


@bench.handler()
async def w1(context: restate.Context, number: int) -> int:
    """One step."""
    await context.run_typed("only", nothing)
    return number


@bench.handler()
async def w2(context: restate.Context, number: int) -> int:
    """Ten steps, one after the other."""
    for at in range(10):
        await context.run_typed(f"s{at}", nothing)
    return number


@bench.handler()
async def w3(context: restate.Context, items: int) -> int:
    """Steps at the same time and a join. Awaited in their order: `gather` costs the square of their number."""
    under_way = [context.run_typed("each", nothing) for _ in range(items)]
    for each in under_way:
        await each
    return items


def main() -> None:
    """Serves until it is stopped."""
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    config.h2_max_concurrent_streams = NO_LIMIT
    config.keep_alive_max_requests = NO_LIMIT
    config.keep_alive_timeout = NO_LIMIT
    uvloop.run(hypercorn.asyncio.serve(restate.app([bench]), config))


if __name__ == "__main__":
    main()
