"""Handlers for the tests of what is promised of the whole system."""

import asyncio
import pathlib

from tierflow import Context, HandlerFailed, handler


@handler("p.breaks")
async def breaks(n: int) -> int:
    """Has a defect."""
    return n // 0


@handler("p.second")
async def second(context: Context, path: str) -> int:
    """Works the second time; notes each of its attempts."""
    with pathlib.Path(path).open("a") as file:  # noqa: ASYNC230 - one short line
        file.write(f"{context.attempt}\n")
    await asyncio.sleep(0)
    if context.attempt == 1:
        raise HandlerFailed("not yet", retryable=True)
    return context.attempt
