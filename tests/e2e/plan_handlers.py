"""A handler for the tests of plans: it ends when it is told to, by a file."""

import asyncio
import pathlib
from typing import Any

from tierflow import handler


@handler("p.held")
async def held(directory: str, says: Any) -> Any:
    """Says that it has begun; returns `says` once it is released."""
    place = pathlib.Path(directory)
    (place / "begun").touch()
    while not (place / "released").exists():
        await asyncio.sleep(0.02)
    return says
