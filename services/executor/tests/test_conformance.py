"""This executor keeps the rules that every executor must keep."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tierflow_testing.executor_conformance import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(serve: Callable[..., Any], check: Callable[[str], Awaitable[None]]) -> None:
    """A1, A8, F5, F32, G1, S7, R24, R25, R27, R29, Lesson 1, Lesson 5: the conformance test for executors, from the contract alone."""
    served = await serve(slots=8)
    await check(served.address)
