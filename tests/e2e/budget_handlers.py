"""Handlers for the test of budgets within the whole system."""

import asyncio
import pathlib
from typing import Any

from tierflow import Context, handler


@handler("b.spend", timeout="5m")
async def spend(context: Context, folder: str, amount: int) -> Any:
    """Notes that it has begun, waits until a file is there, and spends."""
    with (pathlib.Path(folder) / "begun").open("a") as file:
        file.write(f"{context.step_id}\n")
    while not (pathlib.Path(folder) / "go").exists():
        context.heartbeat()
        await asyncio.sleep(0.05)
    context.spend(amount, tool_calls=1)
    return amount
