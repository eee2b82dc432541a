"""Handlers for the tests of steering within the whole system."""

import asyncio
import pathlib
from typing import Any

from tierflow import Context, HandlerFailed, handler


@handler("t.needs")
async def needs(context: Context, path: str, value: Any = None) -> Any:
    """Fails for good as long as a file is not there; notes each execution beside it."""
    with pathlib.Path(path + ".ran").open("a") as file:  # noqa: ASYNC230 - one short line
        file.write(f"{context.step_id}\n")
    if not pathlib.Path(path).exists():  # noqa: ASYNC240 - as above
        raise HandlerFailed(f"{path} is not there", retryable=False)
    return value


@handler("t.long", timeout="5m")
async def long(context: Context, path: str, seconds: float = 60) -> str:
    """Notes that it has begun, and takes long."""
    with pathlib.Path(path).open("a") as file:  # noqa: ASYNC230 - as above
        file.write(f"{context.step_id}\n")
    context.spend(7)
    await asyncio.sleep(seconds)
    return "done"
