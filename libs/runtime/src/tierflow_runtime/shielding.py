"""Work that goes on when whoever asked for it has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import grpc

from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

log = get_log(__name__)

T = TypeVar("T")


def finished(call: Awaitable[T]) -> asyncio.Future[T]:
    """The answer of a call that is finished in any case: a client that hangs up has said what it wanted.

    What the call raises once nobody waits for it is no defect where it is a failure; `asyncio.shield` alone would leave it to the event loop, which
    logs it as one.
    """
    work = asyncio.ensure_future(call)
    waiting = asyncio.shield(work)

    def seen(done: asyncio.Future[T]) -> None:
        if not waiting.cancelled() or done.cancelled():
            return
        error = done.exception()
        if isinstance(error, (FailureError, grpc.RpcError)):
            log.info("what nobody waits for any more has failed", failure=str(error))
        elif error is not None:
            log.error("what nobody waits for any more has broken", error=error)

    work.add_done_callback(seen)
    return waiting
