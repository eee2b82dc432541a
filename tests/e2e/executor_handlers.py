"""Handlers for the tests of executors within the whole system."""

import asyncio
import pathlib
from typing import Any

from tierflow import Context, HandlerFailed, handler


@handler("t.resume")
async def resume(context: Context) -> dict[str, Any]:
    """Fails twice, each time after a heartbeat that says where it was."""
    page = (context.last_heartbeat or {"page": 0})["page"] + 1
    context.heartbeat({"page": page})
    context.log.info("page %d", page)
    await asyncio.sleep(0.2)  # long enough for the heartbeat to be sent before the result
    if page < 3:
        raise HandlerFailed(f"broke off at page {page}")
    return {"pages": page, "attempt": context.attempt}


@handler("t.big")
def big(size: int) -> dict[str, str]:
    """Returns much."""
    return {"text": "x" * size}


@handler("t.note")
async def note(path: str, number: int) -> int:
    """Notes that it ran and takes a moment."""
    with pathlib.Path(path).open("a") as file:  # noqa: ASYNC230 - one short line
        file.write(f"{number}\n")
    await asyncio.sleep(0.3)
    return number


@handler("t.slow", timeout="200ms")
async def slow(seconds: float) -> float:
    """Takes its time; declares that it should not."""
    await asyncio.sleep(seconds)
    return seconds


async def _get_stuck(context: Context) -> Any:
    """Where the last attempt was; one that does not know gives two signs of life, then none, and never returns."""
    if context.last_heartbeat is None:
        for page in (1, 2):
            context.heartbeat({"page": page})
            await asyncio.sleep(0.1)
        await asyncio.Event().wait()
    return context.last_heartbeat


@handler("t.stuck", timeout="5m")
async def stuck(context: Context) -> Any:
    """Gets stuck on the executor's event loop, which goes on."""
    return await _get_stuck(context)


@handler("t.stuck_apart", timeout="5m", isolate=True)
async def stuck_apart(context: Context) -> Any:
    """The same in a process of its own, which stays alive while it is stuck."""
    return await _get_stuck(context)
