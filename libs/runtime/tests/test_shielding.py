"""Calls that are finished although their caller has left."""

import asyncio
import gc
import logging
from typing import Any

import pytest
from tierflow_runtime.shielding import finished
from tierflow_runtime.values import Failure, FailureError
from tierflow_testing.waiting import eventually

OVER = FailureError(Failure(code="STATE_CONFLICT", message="the run is over"))


async def _raised(error: Exception, go: asyncio.Event) -> None:
    await go.wait()
    raise error


@pytest.mark.parametrize(("error", "level"), [(OVER, logging.INFO), (ZeroDivisionError(), logging.ERROR)])
async def test_what_fails_after_its_caller_left(caplog: pytest.LogCaptureFixture, error: Exception, level: int) -> None:
    """F22, F27: a failure of a call whose client has hung up is no defect, and not left to the event loop, which says so of everything; a defect is one still."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    go = asyncio.Event()

    async def client() -> None:
        await finished(_raised(error, go))

    waiting = asyncio.create_task(client())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    with caplog.at_level(logging.INFO):
        go.set()
        (line,) = await eventually(lambda: [each for each in caplog.records if "nobody waits" in each.getMessage()])
    assert line.levelno == level
    gc.collect()
    assert told == []


async def test_who_waits_is_told() -> None:
    """F22: answer and failure reach a caller that stays."""
    go = asyncio.Event()
    go.set()
    assert await finished(asyncio.sleep(0, 7)) == 7
    with pytest.raises(FailureError):
        await finished(_raised(OVER, go))
