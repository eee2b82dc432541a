"""A handler that holds attempts until the test lets them go, however slow the machine is."""

import asyncio
import pathlib

from tierflow import handler

_LOOK = 0.05


@handler("t.gate", timeout="10m")
async def gate(path: str) -> None:
    """Waits until a file is there."""
    while not pathlib.Path(path).exists():  # noqa: ASYNC240 - one short look
        await asyncio.sleep(_LOOK)
