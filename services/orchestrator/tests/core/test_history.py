"""The checker of histories finds what is wrong with them: a good history is changed in every way that matters, and each change is found (Lesson 45)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tierflow_orchestrator.core.commands import Cancel, Pause, ReportLost, ReportResult, Resume, WakeUp
from tierflow_orchestrator.core.events import (
    CommandReceived,
    ItemsExpanded,
    LateResult,
    RunCreated,
    RunEnded,
    RunStateChanged,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepScheduled,
    StepStarted,
)
from tierflow_runtime.values import Failure, RetryPolicy, Usage
from tierflow_testing.history import check_history

from .fakes import SECOND, Shell, call, flow, map_

Journal = list[tuple[Any, int]]
NEEDS = {"a": (), "m": ("a",), "z": ("m",)}


def good() -> Journal:
    """A life with a retry, a loss with a late result, a map, a pause."""
    policy = RetryPolicy(jitter=0.0)
    shell = Shell(flow(call("a", retry=policy), map_("m", 2, "a", retry=policy, tolerate=1), call("z", "m")))
    shell.fail("a", "TIMEOUT", retryable=True)
    shell.now += SECOND
    shell.tell(WakeUp())
    lost = shell.attempt_id("a")
    shell.tell(ReportLost(attempt_id=lost, reason="gone"))
    shell.tell(ReportResult(attempt_id=lost, state="COMPLETED", usage=Usage(credits=3)))
    shell.complete("a")
    shell.fail("m[0]")
    shell.tell(Pause(command_id="p"))
    shell.complete("m[1]")
    shell.tell(Resume(command_id="r"))
    shell.complete("z")
    assert shell.run.state == "COMPLETED"
    return shell.journal


def cancelled() -> Journal:
    shell = Shell(flow(call("a"), map_("m", 2, "a"), call("z", "m")))
    shell.tell(Cancel(command_id="c"))
    shell.cancelled("a")
    assert shell.run.state == "CANCELLED"
    return shell.journal


def at(journal: Journal, kind: type, number: int = 0) -> int:
    return [i for i, (event, _) in enumerate(journal) if isinstance(event, kind)][number]


def changed(kind: type, number: int = 0, **fields: Any) -> Any:
    def change(journal: Journal) -> None:
        place = at(journal, kind, number)
        journal[place] = (msgspec.structs.replace(journal[place][0], **fields), journal[place][1])

    return change


def removed(kind: type, number: int = 0) -> Any:
    return lambda journal: journal.pop(at(journal, kind, number))


def doubled(kind: type, number: int = 0) -> Any:
    def change(journal: Journal) -> None:
        place = at(journal, kind, number)
        journal.insert(place, journal[place])

    return change


def moved(kind: type, number: int, to: int) -> Any:
    """The event is moved to the front by `to` places."""

    def change(journal: Journal) -> None:
        place = at(journal, kind, number)
        journal.insert(place - to, journal.pop(place))

    return change


def added(event: Any, before: type | None = None) -> Any:
    def change(journal: Journal) -> None:
        journal.insert(len(journal) if before is None else at(journal, before), (event, journal[-1][1]))

    return change


FORGED = StepCompleted(step_id="a", attempt=9, attempt_id="x/a/9", output="1", usage=Usage(attempts=1, steps=1))
VAGUE = Failure(code="TIMEOUT", message="", tier=3)
CHANGES = {
    "ended twice": (doubled(RunEnded), "V1"),
    "a step after the end": (added(StepStarted(step_id="z", attempt=1, attempt_id="x", started_at=1)), "V1"),
    "an illegal move": (changed(RunStateChanged, 0, to="PAUSED"), "V2"),
    "from another state": (changed(RunStateChanged, 1, from_="QUEUED"), "V2"),
    "created twice": (doubled(RunCreated), "V3"),
    "never created": (removed(RunCreated), "V3"),
    "work before RUNNING": (moved(StepScheduled, 0, 1), "V3"),
    "scheduled before its needs": (moved(StepScheduled, -1, 7), "V4"),
    "an item that is none": (changed(StepScheduled, -2, step_id="m[5]"), "V4"),
    "items before they are known": (removed(ItemsExpanded), "V4"),
    "expanded twice": (doubled(ItemsExpanded), "V2"),
    "two attempts at once": (doubled(StepScheduled), "V5"),
    "scheduled without a retry": (removed(StepRetrying), "V5"),
    "an epoch left out": (changed(StepScheduled, 1, epoch=5), "V6"),
    "an attempt left out": (changed(StepScheduled, 1, attempt=5), "V6"),
    "another id": (changed(StepScheduled, 1, attempt_id="x/a/2"), "V6"),
    "too early": (changed(StepRetrying, 0, next_attempt_at=2**60), "V7"),
    "scheduled while paused": (removed(RunStateChanged, -1), "V9"),
    "usage that is not the sum": (changed(RunEnded, usage=Usage(credits=1)), "V10"),
    "booked twice": (doubled(LateResult), "V10"),
    "late, but not lost": (changed(LateResult, attempt_id="0190f000-0000-7000-8000-000000000001/a/1"), "V10"),
    "never ended": (removed(StepCompleted, 0), "V11"),
    "no end": (removed(RunEnded), "V11"),
    "a completion of an attempt that never existed": (added(FORGED, before=StepFailed), "V11"),
    "a late result of an attempt that never existed": (changed(LateResult, attempt_id="x/a/9"), "V15"),
    "started by another attempt": (changed(StepStarted, 0, attempt_id="x/a/9"), "V15"),
    "completed without starting": (removed(StepStarted, 1), "V2"),
    "a success that was none": (changed(RunEnded, outcome="SUCCESS"), "V19"),
    "a failure that was not tolerated": (changed(StepFailed, step_id="m", attempt_id="", tolerated=False), "V19"),
    "FAILED for no reason": (changed(RunEnded, to="FAILED", outcome="FAILURE"), "V19"),
    "CANCELLED by nobody": (changed(RunEnded, to="CANCELLED", outcome="CANCELLED"), "V19"),
    "a failure that says nothing": (changed(StepRetrying, 0, failure=VAGUE), "V20"),
}


def test_good_histories() -> None:
    """V1 to V20: nothing is found where nothing is wrong."""
    assert check_history(good(), NEEDS, complete=True) == []
    assert check_history(cancelled(), NEEDS, complete=True) == []
    assert check_history(good()[:9]) == []


@pytest.mark.parametrize("name", CHANGES)
def test_bad_histories(name: str) -> None:
    """Lesson 45: each kind of breach is found, under its number."""
    change, invariant = CHANGES[name]
    journal = good()
    change(journal)
    assert invariant in {breach.invariant for breach in check_history(journal, NEEDS, complete=True)}


def test_bad_cancel() -> None:
    """V9, V19: a cancelled run needs somebody who said so, and schedules nothing more."""
    journal = cancelled()
    removed(CommandReceived)(journal)
    assert {"V19"} == {breach.invariant for breach in check_history(journal, NEEDS)}
    journal = cancelled()
    more = StepScheduled(step_id="z", attempt=1, attempt_id="x/z/1", epoch=1, executor_id="e", handler="h", input="{}")
    added(more, before=StepCancelled)(journal)
    assert "V9" in {breach.invariant for breach in check_history(journal, NEEDS)}
