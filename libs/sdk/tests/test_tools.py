"""Tool calls of handlers: what is told of them, when, and what is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tierflow import BudgetExhausted, Cancelled, Context, Rejected
from tierflow.errors import TierflowError, Unavailable
from tierflow_contracts.common.v1.blackboard_pb2 import ContextAnswer, ContextCall, ToolCallReport, ToolCallStored
from tierflow_contracts.common.v1.failure_pb2 import ErrorCode, Failure
from tierflow_contracts.common.v1.state_pb2 import ToolOutcome
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest


class Port:
    """Whoever runs the attempt: keeps what is told, refuses what it is told to."""

    cancelled = False
    traceparent = ""

    def __init__(self, *refused: ErrorCode.ValueType, tool_calls: int = 100) -> None:
        self.refused = list(refused)
        self.left = tool_calls
        self.told: list[ToolCallReport] = []

    def book(self, *, tool_calls: int, **_: Any) -> None:
        """Counts."""
        self.left -= tool_calls
        if self.left < 0:
            raise BudgetExhausted("no more")

    async def call_context(self, call: ContextCall) -> ContextAnswer:
        """Numbers a call as an executor does."""
        report = call.tool_call
        if not report.number:
            report.number = 1 + sum(not each.outcome for each in self.told)
        if self.refused:
            return ContextAnswer(failure=Failure(code=self.refused.pop(0), message="so it is"))
        kept = ToolCallReport()
        kept.CopyFrom(report)
        self.told.append(kept)
        return ContextAnswer(tool_call_stored=ToolCallStored())

    @property
    def said(self) -> list[tuple[int, str, str, str, int]]:
        """Number, tool, outcome, code and size of what was told."""
        return [
            (r.number, r.tool, ToolOutcome.Name(r.outcome).removeprefix("TOOL_OUTCOME_"), r.code, r.size) for r in self.told
        ]  # fmt: skip


def context(port: Port) -> Context:
    return Context(StepExecutionRequest(), port)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "size"), [(b"12345", 5), ("\u00e4", 2), ({"a": [1]}, 9), (None, 4), (object(), None)]
)
async def test_both_events_of_a_call(value: Any, size: int | None) -> None:
    """B19, H7: the beginning is stored before the call is made; the end says how long it took and how much came back, never what."""
    port = Port()
    async with context(port).tool("search") as call:
        assert port.said == [(1, "search", "UNSPECIFIED", "", 0)], "it is told before the call is made"
        call.returned(value)
    told = port.said[1]
    assert told[:4] == (1, "search", "SUCCESS", "")
    assert told[4] == size if size is not None else told[4] > 0
    assert port.told[1].duration.ToNanoseconds() > 0
    assert port.left == 99


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (Rejected("secret"), "FAILURE", "HANDLER_REJECTED"),
        (KeyError("secret"), "FAILURE", "KeyError"),
        (Cancelled(), "CANCELLED", ""),
        (asyncio.CancelledError(), "CANCELLED", ""),
    ],
)
async def test_how_a_call_ends(error: BaseException, outcome: str, code: str) -> None:
    """B19, H7: what leaves the block says how the call ended, and goes on; of an error only its code or its type is told."""
    port = Port()
    with pytest.raises(type(error)):
        async with context(port).tool("search"):
            raise error
    assert port.said[1] == (1, "search", outcome, code, 0)
    assert b"secret" not in port.told[1].SerializeToString()


async def test_a_call_whose_beginning_is_not_stored_is_not_made() -> None:
    """H7: no call without its event: where nobody stores it, or no call is left in the budget, the block is not entered."""
    made = False
    for port, error in ((Port(ErrorCode.ERROR_CODE_UNAVAILABLE), Unavailable), (Port(ErrorCode.ERROR_CODE_STALE), TierflowError), (Port(tool_calls=0), BudgetExhausted)):  # fmt: skip
        with pytest.raises(error):
            async with context(port).tool("search"):
                made = True
        assert not port.told
    assert not made


async def test_an_end_that_nobody_takes_hides_nothing() -> None:
    """H7, F27: the orchestrator ends what is open with the attempt; the handler goes on, with its own error where it has one."""
    port = Port()
    async with context(port).tool("search"):
        port.refused = [ErrorCode.ERROR_CODE_UNAVAILABLE]

    async def breaks() -> None:
        async with context(port).tool("search"):
            port.refused = [ErrorCode.ERROR_CODE_UNAVAILABLE]
            raise KeyError

    with pytest.raises(KeyError):
        await breaks()
    assert [each.outcome for each in port.told] == [0, 0]


async def test_the_end_is_told_while_the_attempt_is_being_stopped() -> None:
    """H7, I6: a stopped attempt still says that its call was stopped, before it goes."""
    port = Port()
    inside = asyncio.Event()

    async def attempt() -> None:
        async with context(port).tool("search"):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(attempt())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert port.said[1][2] == "CANCELLED"


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\0"])
def test_names_of_tools(name: str) -> None:
    """A5, B19: a name that cannot be shown is refused where it is written."""
    with pytest.raises(ValueError, match="name of a tool"):
        context(Port()).tool(name)
