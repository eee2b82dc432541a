"""`echo` and `sleep`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from tierflow import Context, handler

_SIGN_OF_LIFE = 1.0


@handler("echo", raw=True, inline=True)
def echo(text: str) -> str:
    """Returns its input as it is."""
    return text


class Sleep(BaseModel):
    """How long to sleep."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(ge=0, le=86_400, description="How long, in seconds.")]


class Slept(BaseModel):
    """How long it was."""

    seconds: float


@handler("sleep", timeout="24h")
async def sleep(context: Context, length: Sleep) -> Slept:
    """Waits within an executor, for tests and demonstrations. In flows use a `wait` step, which costs nothing while it waits."""
    loop = asyncio.get_running_loop()
    end = loop.time() + length.seconds
    while (left := end - loop.time()) > 0:
        await asyncio.sleep(min(left, _SIGN_OF_LIFE))
        if length.seconds > _SIGN_OF_LIFE:
            context.progress(100.0 * (1.0 - max(0.0, end - loop.time()) / length.seconds))
    return Slept(seconds=length.seconds)
