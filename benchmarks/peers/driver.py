"""The closed loop that every product is driven with: a fixed number of runs, a fixed number of them at once, each submitted when another has ended.

Runs within the product's own environment and therefore needs nothing but the standard library. It is told what to do by lines of JSON on standard input,
`{"operation", "count", "at_once", "limit"}`, and answers each with one line: `{"seconds", "latencies", "errors"}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Once = Callable[[int], Awaitable[None]]
"""Performs one run from its submission until its result is there; gets its number. Raises where the result is wrong."""

ITEMS = {"w3": 1_000, "w3big": 10_000}


async def closed_loop(once: Once, count: int, at_once: int, limit: float) -> dict[str, Any]:
    """Performs `count` runs, `at_once` of them at any time, for at most `limit` seconds."""
    numbers = iter(range(count))
    latencies: list[float] = []
    errors: list[str] = []

    async def lane() -> None:
        for number in numbers:
            began = time.perf_counter()
            try:
                await once(number)
            except Exception as error:  # noqa: BLE001 - whatever a product raises is counted and told
                errors.append(repr(error)[:300])
            else:
                latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    try:
        async with asyncio.timeout(limit):
            await asyncio.gather(*(lane() for _ in range(min(at_once, count))))
    except TimeoutError:
        errors.append(f"{count - len(latencies)} of {count} had not ended after {limit} s")
    return {"seconds": time.perf_counter() - began, "latencies": latencies, "errors": errors}


async def serve(operations: Mapping[str, Once]) -> None:
    """Says that it is ready, then performs what it is told until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what products print is not an answer
    loop = asyncio.get_running_loop()

    def answer(value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer("ready")
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        answer(await closed_loop(operations[told["operation"]], told["count"], told["at_once"], told["limit"]))


def settings() -> dict[str, Any]:
    """What the load was started with: a JSON object as the first argument."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given
