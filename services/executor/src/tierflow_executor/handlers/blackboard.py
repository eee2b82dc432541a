"""Handlers that read and write what the swarm shares, for flows. What a step read is its output, and so in its run's journal, with versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tierflow import Context, HandlerFailed, TierflowError, Unavailable, handler


@handler("blackboard.read")
async def read(context: Context, keys: list[str], *, required: bool = False) -> dict[str, Any]:
    """Values and versions of keys of the swarm's blackboard; keys that are not there are left out, or fail the step where they are required."""
    with _told():
        items = await context.blackboard.items(*keys)
    missing = [key for key in keys if key not in items]
    if missing and required:
        raise HandlerFailed(f"not on the blackboard: {', '.join(missing)}", code="NOT_FOUND", retryable=False)
    return {
        "values": {key: item.value for key, item in items.items()},
        "versions": {key: item.version for key, item in items.items()},
    }


@handler("blackboard.list")
async def keys(context: Context, prefix: str = "", *, most: int = 1000) -> dict[str, Any]:
    """Keys of the swarm's blackboard that begin with a prefix, in their order, with their versions; without values."""
    found: dict[str, int] = {}
    with _told():
        async for item in context.blackboard.keys(prefix):
            if len(found) >= most:
                break
            found[item.key] = item.version
    return {"keys": list(found), "versions": found}


@handler("blackboard.write")
async def write(context: Context, values: dict[str, Any], expected: dict[str, int] | None = None) -> dict[str, Any]:
    """Writes keys, all of them or none. `expected` has the versions that they must have, 0 where one must not be there; else it fails with VERSION_CONFLICT."""
    with _told():
        # A second attempt at the same step is the same write: what the first one wrote is not a conflict.
        same = hashlib.sha256(context.idempotency_key.encode()).hexdigest() if expected else ""
        version = await context.blackboard.write(values, expected=expected, command_id=same)
    return {"version": version, "keys": list(values)}


@contextmanager
def _told() -> Iterator[None]:
    """What the swarm's side refuses keeps its code; only that nobody answers is worth another attempt."""
    try:
        yield
    except TierflowError as error:
        raise HandlerFailed(str(error), code=error.code or None, retryable=isinstance(error, Unavailable)) from error
