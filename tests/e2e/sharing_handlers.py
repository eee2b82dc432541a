"""Handlers for the tests of what a swarm shares."""

import asyncio
from typing import Any

from tierflow import Conflict, Context, PermissionDenied, handler


@handler("s.request_size")
async def request_size(context: Context) -> int:
    """Bytes of the request with which this attempt came."""
    return context._request.ByteSize()


@handler("s.add")
async def add(context: Context, key: str, item: Any) -> int:
    """Adds to a list on the blackboard, whoever else does so now."""
    return len(await context.blackboard.change(key, lambda items: [*(items or []), item]))


@handler("s.length")
async def length(context: Context, key: str) -> int:
    """How long the text of a key is, fetched now."""
    return len(await context.blackboard.get(key))


@handler("s.apart", isolate=True)
async def apart(context: Context, key: str) -> int:
    """The same in a process of its own."""
    return len(await context.blackboard.get(key))


@handler("s.adapt")
async def adapt(context: Context, tone: str) -> str:
    """Wants another policy."""
    now = await context.blackboard.context()
    try:
        await context.blackboard.update_context(now.version, policy={"tone": tone}, reason="it works better")
    except PermissionDenied:
        return "refused"
    return "accepted"


@handler("s.over")
async def over(context: Context, key: str, rounds: int) -> int:
    """Counts on the blackboard for a while, each time from the version that it read."""
    version = await context.blackboard.set(key, 0)
    for number in range(1, rounds + 1):
        try:
            version = await context.blackboard.set(key, number, expected_version=version)
        except Conflict as error:
            raise AssertionError(f"somebody else wrote {key}") from error
        await asyncio.sleep(0.1)
    return int(await context.blackboard.get(key))
