"""Tool calls: each begins before it is made and ends once, whatever becomes of its attempt."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from tierflow_orchestrator.core import calling, dump, load
from tierflow_orchestrator.core.calling import MOST_OPEN
from tierflow_orchestrator.core.commands import (
    Abort,
    AssignSlot,
    Cancel,
    ReportLost,
    ReportResult,
    ReportTool,
    ReportUnconfirmed,
)
from tierflow_orchestrator.core.events import (
    RunEnded,
    StepCompleted,
    StepScheduled,
    StepStarted,
    ToolCallBegan,
    ToolCallEnded,
)
from tierflow_orchestrator.core.step import MOST_BEYOND
from tierflow_runtime.values import Failure, RetryPolicy, Usage
from tierflow_testing.history import check_history

from .fakes import SECOND, Shell, call, flow
from .written import sound

LOST = "LOST"


def shell(*, tool: bool = True, **keys: Any) -> Shell:
    """A run of one step, whose attempt is a tool call where `tool`."""
    it = Shell(flow(call("a", **keys)), auto=False)
    it.decide(AssignSlot(step_id="a", executor_id="e1", tool=tool))
    return it


def told(it: Shell, number: int, outcome: str = "", **more: Any) -> Any:
    """The attempt tells of one of its calls."""
    command = ReportTool(attempt_id=it.attempt_id("a"), number=number, tool="search", outcome=outcome, **more)
    return it.decide(command)


def calls(it: Shell) -> list[tuple[str, str]]:
    """Each call by its number, `-` where it is the attempt, with its outcome: empty where it begins."""
    return [
        (event.call_id.partition("#")[2] or "-", getattr(event, "outcome", ""))
        for event, _ in it.journal
        if isinstance(event, ToolCallBegan | ToolCallEnded)
    ]


def checked(it: Shell) -> None:
    """Every invariant holds of the history and the run."""
    sound(it)
    assert not check_history(it.journal)


def test_an_attempt_that_is_a_tool_call_has_both_events() -> None:
    """B19, H7: the decision that gives it to its executor begins the call, the one that ends it ends the call, with duration, size and how; before all that follows."""
    it = shell()
    it.now += 5 * SECOND
    it.complete("a", '"four"', usage=Usage(tool_calls=1, wall_time=3 * SECOND))
    kinds = [type(event) for event, _ in it.journal]
    assert kinds.index(ToolCallBegan) == kinds.index(StepScheduled) + 1
    assert kinds.index(ToolCallEnded) < kinds.index(StepCompleted) < kinds.index(RunEnded)
    ended = it.events(ToolCallEnded)[0]
    assert (ended.tool, ended.outcome, ended.code, ended.duration, ended.size) == ("h", "SUCCESS", "", 3 * SECOND, 6)
    assert it.run.steps["a"].tools is None
    checked(it)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (lambda it: it.fail("a"), "FAILURE"),
        (lambda it: (it.decide(Cancel(command_id="c")), it.cancelled("a")), "CANCELLED"),
        (lambda it: it.decide(ReportLost(attempt_id=it.attempt_id("a"), reason="gone")), LOST),
        (
            lambda it: (it.decide(Cancel(command_id="c")), it.decide(ReportLost(attempt_id=it.attempt_id("a"), reason=""))),
            LOST,
        ),
        (
            lambda it: (it.decide(Cancel(command_id="c")), it.decide(ReportUnconfirmed(attempt_id=it.attempt_id("a")))),
            LOST,
        ),
        (lambda it: it.decide(Abort(failure=Failure(code="INTERNAL", message="x", tier=2, component="c", operation="o"))), LOST),
    ],
)  # fmt: skip
def test_every_end_of_an_attempt_ends_its_calls(end: Any, outcome: str) -> None:
    """V52, B19, H7, F28: failed, stopped, lost, given up or cut off: the call that the attempt is ends as that did, one on its way of which nobody said is lost."""
    it = shell()
    told(it, 1)
    told(it, 2)
    told(it, 1, "SUCCESS")
    end(it)
    assert calls(it) == [("-", ""), ("1", ""), ("2", ""), ("1", "SUCCESS"), ("2", LOST), ("-", outcome)]
    checked(it)


def test_the_next_attempt_counts_its_calls_anew() -> None:
    """H7, R23: calls of an attempt that was lost are ended before the next one begins; its own have ids of their own."""
    it = shell(on_lost="RETRY", retry=RetryPolicy(max_attempts=2), tool=False)
    told(it, 1)
    first = it.attempt_id("a")
    it.decide(ReportLost(attempt_id=first, reason="gone"))
    it.decide(AssignSlot(step_id="a", executor_id="e2"))
    late = it.decide(ReportTool(attempt_id=first, number=1, tool="search", outcome="SUCCESS"))
    assert not late.events
    assert late.reply.failure is not None
    assert late.reply.failure.code == "STALE"
    told(it, 1)
    told(it, 1, "FAILURE", code="ValueError", duration=7, size=9)
    assert calls(it) == [("1", ""), ("1", LOST), ("1", ""), ("1", "FAILURE")]
    ended = it.events(ToolCallEnded)[-1]
    assert (ended.code, ended.duration, ended.size) == ("ValueError", 7, 9)
    it.complete("a")
    checked(it)


def test_what_comes_again_changes_nothing() -> None:
    """R14, B19: a report that is repeated is answered as stored; one of a call that has ended does not begin it again; an end without a beginning is nothing."""
    it = shell(tool=False)
    assert not told(it, 1, "SUCCESS").events
    assert told(it, 2).reply.applied
    assert told(it, 1).reply.applied, "calls that are made at once may be told of in any order"
    again = told(it, 2)
    assert (again.events, again.reply.applied, again.reply.failure) == ([], False, None)
    told(it, 2, "SUCCESS")
    assert not told(it, 2, "FAILURE").events
    refused = told(it, 2).reply
    assert refused.failure is not None
    assert refused.failure.code == "STALE"
    assert calls(it) == [("2", ""), ("1", ""), ("2", "SUCCESS")]


def test_calling_a_tool_says_that_the_attempt_has_started() -> None:
    """H1, H2: nobody sees a tool called by an attempt that has not started, whatever got lost on the way."""
    it = shell(tool=False)
    told(it, 1)
    kinds = [type(event) for event, _ in it.journal]
    assert kinds.index(StepStarted) < kinds.index(ToolCallBegan)
    it.complete("a")
    assert len(it.events(StepStarted)) == 1
    checked(it)


def test_what_is_remembered_of_calls_is_bounded() -> None:
    """B19: an attempt may make any number of calls, so many at once; of those that ended a number is left, also where one never came. All of it is in snapshots."""
    it = shell(tool=False)
    for number in range(1, MOST_OPEN + 1):
        told(it, number)
    refused = told(it, MOST_OPEN + 1).reply.failure
    assert refused is not None
    assert (refused.code, refused.retryable) == ("RATE_LIMITED", True)
    for number in range(1, MOST_OPEN + 1):
        told(it, number, "SUCCESS")
    for number in range(MOST_OPEN + 2, MOST_OPEN + MOST_BEYOND + 10):
        told(it, number)
        told(it, number, "SUCCESS")
    kept = it.run.steps["a"].tools
    assert kept is not None
    assert not kept.open
    assert len(kept.above) <= MOST_BEYOND
    assert dump(load(dump(it.run))) == dump(it.run) == dump(it.folded())
    assert told(it, MOST_OPEN + 1).reply.failure is not None, "given up: the call is not to be made any more"


def test_attempts_without_tool_calls_have_nothing_of_them() -> None:
    """H7: no event, and nothing in the run, for whoever calls no tool."""
    it = shell(tool=False)
    it.complete("a")
    assert not calls(it)
    assert it.run.steps["a"].tools is None


def test_an_output_by_reference_has_its_size() -> None:
    """H7, H15: what came back is counted, never told."""
    from tierflow_runtime.values import BlobRef

    it = shell()
    it.decide(
        ReportResult(
            attempt_id=it.attempt_id("a"), state="COMPLETED", output=BlobRef("0" * 64, 70_000), started_at=it.now
        )
    )
    assert it.events(ToolCallEnded)[0].size == 70_000


def test_there_is_one_path() -> None:
    """B19: nothing else makes the events of tool calls than what this file tests; what is read from journals aside."""
    package = pathlib.Path(calling.__file__).parents[1]
    makers = {
        path.name
        for path in package.rglob("*.py")
        if re.search(r"\bToolCall(Began|Ended)\(\s*step_id", path.read_text())
    }
    assert makers == {"calling.py", "wire_tools.py"}
