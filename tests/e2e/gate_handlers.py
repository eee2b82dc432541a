"""A handler that holds attempts until the test lets them go, however slow the machine is."""

import asyncio
import pathlib

from tierflow import Context, handler

_LOOK = 0.05


@handler("t.gate", timeout="10m")
async def gate(context: Context, path: str, begun: str = "") -> None:
    """Notes in a file that it has begun, and waits until another is there."""
    if begun:
        with pathlib.Path(begun).open("a") as file:  # noqa: ASYNC230 - one short line
            file.write(f"{context.step_id}\n")
    while not pathlib.Path(path).exists():  # noqa: ASYNC240 - one short look
        await asyncio.sleep(_LOOK)
