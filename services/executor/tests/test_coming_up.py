"""Isolated handlers whose processes take long to come up."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from tierflow.handler import declared
from tierflow_contracts.common.v1.state_pb2 import STEP_STATE_COMPLETED
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request

MODULE = """
import sys, time
from tierflow import handler

if getattr(sys.modules["__main__"].__spec__, "name", "") == "tierflow_executor.isolated":
    time.sleep(1)


@handler("late.done", isolate=True)
def done() -> str:
    '''Is done at once.'''
    return "done"


@handler("late.silent", isolate=True)
def silent() -> None:
    '''Gives no sign of life.'''
    time.sleep(300)
"""


@pytest.fixture
def late(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Handlers in a module that takes a second to load in their process."""
    (tmp_path / "late_handlers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("late_handlers")
    return [each for each in declared() if each.module == "late_handlers"]


async def test_a_process_that_comes_up_is_no_silent_work(serve: Callable[..., Any], late: list[Any]) -> None:
    """K9, Lesson 20: the heartbeat timeout counts from where the handler is called, however long its process takes to load it."""
    served = await serve()
    for each in late:
        served.engine.registry.add(each)
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("late.done", "{}", heartbeat_timeout=0.4, timeout=60))
        assert result.state == STEP_STATE_COMPLETED, result.failure
        result = await peer.run(a_request("late.silent", "{}", heartbeat_timeout=0.4, timeout=60))
        assert ERROR_CODES.name(result.failure.code) == "HEARTBEAT_TIMEOUT"
