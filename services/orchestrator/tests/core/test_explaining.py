"""Why something waits: each kind of blocker, with who holds it and until when (S5)."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_flow.definition import Norm
from tierflow_orchestrator.core.commands import Cancel, Pause, ReportLost, ReportStarted
from tierflow_orchestrator.core.explaining import Blocker, Explained, earliest, explain
from tierflow_runtime.values import Allocation, Options, RetryPolicy

from .fakes import SECOND, START, Shell, Value, approval, call, flow, map_, signal, subflow, wait

RETRY = RetryPolicy(max_attempts=3, initial_delay=SECOND, jitter=0.0)


def seen(shell: Shell, step_id: str = "") -> Explained:
    found = explain(shell.run, step_id)
    assert found is not None
    return found


def only(shell: Shell, step_id: str = "") -> Blocker:
    """The one thing that is waited for."""
    (blocker,) = seen(shell, step_id).blockers
    assert blocker.description
    return blocker


def test_needs() -> None:
    """S5: steps that have not ended, by name, and how they stand."""
    shell = Shell(flow(call("a"), call("b"), call("c", "a", "b")))
    shell.complete("b")
    blocker = only(shell, "c")
    assert (blocker.kind, blocker.held_by) == ("NEEDS", ("a",))
    assert "a is SCHEDULED" in blocker.description


def test_slots() -> None:
    """S5: the shell says whose; here only that one is wanted."""
    shell = Shell(flow(call("a")), auto=False)
    assert only(shell, "a").kind == only(shell).kind == "SLOT"


def test_backoff() -> None:
    """S5: until the next attempt is due."""
    shell = Shell(flow(call("a", retry=RETRY)), auto=False)
    shell.assign()
    shell.fail("a", "TIMEOUT", retryable=True)
    blocker = only(shell, "a")
    assert (blocker.kind, blocker.until) == ("BACKOFF", shell.run.steps["a"].next_attempt_at)
    assert earliest((blocker,)) == blocker.until


@pytest.mark.parametrize(
    ("step", "kind", "held", "until"),
    [
        (wait("w", "1h"), "TIMER", (), START + 3600 * SECOND + 1),
        (signal("w", "paid"), "SIGNAL", ("paid",), None),
        (
            approval("w", users=["ada"], roles=["boss"], timeout="1h"),
            "APPROVAL",
            ("ada", "role boss"),
            START + 3600 * SECOND + 1,
        ),
    ],
)
def test_waits(step: Any, kind: str, held: tuple[str, ...], until: int | None) -> None:
    """S5: a moment, a message, people; who may go on before its moment has no earliest one."""
    shell = Shell(flow(step))
    blocker = only(shell)
    assert (blocker.kind, blocker.held_by, blocker.until) == (kind, held, until)
    assert earliest((blocker,)) == (until if kind == "TIMER" else None)


def test_an_approval_that_a_norm_demands() -> None:
    """S5, L13: as any other."""
    norm = Norm("ask", "oblige", ("h",), approval=Value({"users": ["ada"], "needed": 1, "message": "Really?"}))
    blocker = only(Shell(flow(call("a"), norms=(norm,))))
    assert (blocker.kind, blocker.description) == ("APPROVAL", "0 of 1 have approved: Really?")


def test_limits_on_steps_at_once() -> None:
    """S5: who takes up the room; of a map, its items."""
    shell = Shell(flow(call("a"), call("b")), allocation=Allocation(concurrent_steps=1))
    blocker = only(shell, "b")
    assert (blocker.kind, blocker.held_by) == ("CONCURRENCY", ("a",))
    mapped = Shell(flow(map_("m", 3, concurrency=1)))
    blocker = only(mapped, "m[1]")
    assert (blocker.kind, blocker.held_by) == ("MAP_CONCURRENCY", ("m[0]",))


def test_quota() -> None:
    """S5: what the run may do is done."""
    shell = Shell(flow(call("a"), call("b"), concurrency=1), allocation=Allocation(steps=1))
    assert [blocker.kind for blocker in seen(shell, "b").blockers] == ["QUOTA", "CONCURRENCY"]


def test_pause_stop_and_start_time() -> None:
    """S5: what holds all of a run up."""
    shell = Shell(flow(call("a"), call("b", "a")))
    shell.tell(Pause(command_id="p", reason="lunch"))
    assert [blocker.kind for blocker in seen(shell).blockers] == ["PAUSE", "ATTEMPT"]
    assert "lunch" in seen(shell).blockers[0].description
    shell.tell(Cancel(command_id="c"))
    assert [blocker.kind for blocker in seen(shell).blockers] == ["STOPPING", "STOPPING"]
    later = Shell(flow(call("a")), options=Options(not_before=START + 99))
    blocker = only(later)
    assert (blocker.kind, blocker.until, earliest((blocker,))) == ("START_TIME", START + 99, START + 99)


def test_breakpoint() -> None:
    """S5, G6."""
    shell = Shell(flow(call("a")), auto=False)
    shell.run.steps["a"].held = True
    assert only(shell, "a").kind == "BREAKPOINT"


def test_an_operator_must_decide() -> None:
    """S5, R26: nobody knows how the attempt ended."""
    shell = Shell(flow(call("a", side_effecting=True)))
    shell.tell(ReportLost(attempt_id=shell.attempt_id("a"), reason="gone"))
    blocker = only(shell)
    assert (blocker.kind, blocker.held_by) == ("OPERATOR", ("e1",))


def test_what_is_under_way() -> None:
    """S5: an attempt at its executor, a run of another flow; nothing for what has ended, nor for what is not there."""
    shell = Shell(flow(call("a"), subflow("c", "other")), options=Options(timeout=90 * SECOND))
    shell.tell(ReportStarted(attempt_id=shell.attempt_id("c"), started_at=shell.now))
    kinds = {blocker.step_id: (blocker.kind, blocker.held_by) for blocker in seen(shell).blockers}
    assert kinds == {"a": ("ATTEMPT", ("e1",)), "c": ("CHILD", (shell.run.steps["c"].child,))}
    assert seen(shell).deadline == shell.run.deadline is not None
    shell.complete("a")
    assert seen(shell, "a").blockers == ()
    assert explain(shell.run, "nothing") is None
