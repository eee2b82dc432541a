"""Handlers that note each of their executions, for the auditor to compare (S7, K10)."""

import json
import os
import pathlib
from typing import Any

from tierflow import Context, HandlerFailed, handler


def note(context: Context) -> None:
    """One line for one execution."""
    fact = {name: getattr(context, name) for name in ("run_id", "step_id", "attempt_id", "idempotency_key")}
    with pathlib.Path(os.environ["EXECUTIONS"]).open("a") as file:
        file.write(json.dumps(fact) + "\n")


@handler("audited.work")
async def work(context: Context, given: Any) -> Any:
    """Returns what it is given."""
    note(context)
    context.spend(3)
    return given


@handler("audited.flaky")
async def flaky(context: Context, given: Any) -> Any:
    """Works the second time."""
    note(context)
    if context.attempt == 1:
        raise HandlerFailed("not yet", retryable=True)
    return given
