"""Handlers that call tools, for the tests of what is seen of that."""

import asyncio
import pathlib

from tierflow import Context, HandlerFailed, handler


def told(gate: str) -> bool:
    """Whether the test says that it may go on."""
    return pathlib.Path(gate).exists()


def mark(context: Context, marks: str) -> None:
    """Says that the first attempt is within its tool."""
    pathlib.Path(marks, context.step_id).touch()


@handler("t.agent")
async def agent(context: Context, gate: str, secret: str = "") -> dict[str, int]:
    """Thinks, and once it is told to, asks two tools, one of which does not answer."""
    while not told(gate):
        context.progress(kind="thinking", message="what to look for")
        await asyncio.sleep(0.1)
    async with context.tool("search") as call:
        call.returned({"found": secret})
    try:
        async with context.tool("weather"):
            raise HandlerFailed(f"{secret} is not known there", code="NOT_FOUND")
    except HandlerFailed:
        return {"found": 1}


@handler("t.lookup", tool=True)
async def lookup(n: int) -> dict[str, int]:
    """Is a tool as a whole."""
    return {"n": n}


@handler("t.hangs", isolate=True)
async def hangs(context: Context, marks: str) -> int:
    """The first attempt never comes back from its tool: it waits to be killed with its executor."""
    async with context.tool("deep thought"):
        if context.attempt == 1:
            mark(context, marks)
            await asyncio.Event().wait()
    return context.attempt


@handler("t.hangs_whole", tool=True)
async def hangs_whole(context: Context, marks: str) -> int:
    """The same as a tool as a whole, which calls others as well."""
    async with asyncio.TaskGroup() as group:
        for name in ("one", "two", "three"):
            group.create_task(_asks(context, name))
    if context.attempt == 1:
        mark(context, marks)
        await asyncio.Event().wait()
    return context.attempt


async def _asks(context: Context, name: str) -> None:
    async with context.tool(name):
        await asyncio.sleep(0)
