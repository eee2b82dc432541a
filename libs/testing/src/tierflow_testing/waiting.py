"""Waiting for facts, never for seconds."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, overload

Fact = TypeVar("Fact")

PATIENCE: Final = 60.0
"""Seconds until a fact is given up: costs nothing when it comes, and a slow machine is no failure."""


@overload
async def eventually(
    predicate: Callable[[], Awaitable[Fact]], timeout: float = ..., *, interval: float = ..., message: str = ...
) -> Fact: ...


@overload
async def eventually(
    predicate: Callable[[], Fact], timeout: float = ..., *, interval: float = ..., message: str = ...
) -> Fact: ...


async def eventually(
    predicate: Callable[[], Any], timeout: float = PATIENCE, *, interval: float = 0.01, message: str = ""
) -> Any:
    """Asks until the answer is true and returns it.

    An AssertionError of the predicate counts as "not yet"; the last one is shown if the time runs out.

    Args:
        predicate: A plain or async function without arguments.
        timeout: Seconds, after which it was not a fact.
        interval: Seconds between two questions.
        message: What is waited for, for the error.

    Raises:
        AssertionError: It did not become true in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        answer: Any = None
        refusal: AssertionError | None = None
        try:
            asked = predicate()
            answer = await asked if inspect.isawaitable(asked) else asked
        except AssertionError as error:
            refusal = error
        if answer:
            return answer
        if loop.time() >= deadline:
            what = message or getattr(predicate, "__name__", "the condition")
            raise AssertionError(f"not within {timeout:g} s: {what}; last answer {answer!r}") from refusal
        await asyncio.sleep(interval)
