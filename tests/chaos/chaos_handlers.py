"""Handlers that note each of their executions in a file, so that real executions can be counted (S7, K10)."""

import asyncio
import json
import os
from typing import Any

from tierflow import Context, handler

FILE = os.environ.get("CHAOS_EXECUTIONS", "")


def note(context: Context) -> None:
    """One line for one execution; a line is one write, so that lines of several executors do not mix."""
    fact = {
        "run_id": context.run_id,
        "step_id": context.step_id,
        "attempt_id": context.attempt_id,
        "idempotency_key": context.idempotency_key,
        "epoch": context.epoch,
    }
    descriptor = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(fact).encode() + b"\n")
    finally:
        os.close(descriptor)


@handler("chaos.effect")
async def effect(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    """Notes that it was called, takes `seconds`, returns its input."""
    note(context)
    await asyncio.sleep(given.get("seconds", 0.0))
    return given
