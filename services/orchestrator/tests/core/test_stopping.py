"""Stopping single steps while their run goes on."""

from __future__ import annotations

import pytest
from tierflow_orchestrator.core import dump, load, open_effects
from tierflow_orchestrator.core.commands import ReportLost, ReportResult, ReportUnconfirmed, StopAttempt
from tierflow_orchestrator.core.events import StepCancelled, StepStopping
from tierflow_orchestrator.core.navigator import settle
from tierflow_orchestrator.core.stopping import stop_step
from tierflow_orchestrator.core.turn import Turn
from tierflow_runtime.values import Failure, Usage
from tierflow_testing.history import check_history, shape_of

from .fakes import Shell, call, flow, map_, wait
from .invariants import check_invariants


def stop(shell: Shell, step_id: str) -> None:
    def act(turn: Turn) -> None:
        stop_step(turn, turn.run.steps[step_id], "nobody needs it")
        settle(turn)

    shell.act(act)
    check_invariants(shell.run)


def ended_well(shell: Shell) -> None:
    assert shell.run.state == "COMPLETED"
    shell.check()
    assert not check_history(shell.journal, **shape_of(shell.flow), complete=True)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
def test_an_attempt_in_flight_is_told_and_its_result_refused(state: str) -> None:
    """E7, G11: the step ends CANCELLED with the receipt, whatever the attempt still brings; what it used is booked."""
    shell = Shell(flow(call("a"), call("b")))
    stop(shell, "a")
    assert [effect.attempt_id for effect in shell.stops] == [shell.attempt_id("a")]
    assert shell.state("a") == "SCHEDULED"
    failure = Failure(code="TIMEOUT", message="late", retryable=True) if state == "FAILED" else None
    result = ReportResult(
        attempt_id=shell.attempt_id("a"), state=state, output="1", failure=failure, usage=Usage(credits=9)
    )
    shell.tell(result)
    cancelled = shell.events(StepCancelled)[0]
    assert (cancelled.reason, cancelled.confirmed) == ("nobody needs it", True)
    assert cancelled.ended_as == ("" if state == "CANCELLED" else state)
    assert (shell.state("a"), shell.run.steps["a"].output, shell.run.usage.credits) == ("CANCELLED", None, 9)
    shell.complete("b")
    ended_well(shell)


def test_what_has_not_started_ends_at_once() -> None:
    """E7: steps that are PENDING, READY, in BACKOFF or waiting need no receipt."""
    shell = Shell(flow(call("a"), call("b", "a"), wait("w", "1h")))
    for step_id in ("b", "w"):
        stop(shell, step_id)
        assert shell.state(step_id) == "CANCELLED"
    assert not shell.stops
    shell.complete("a")
    ended_well(shell)


def test_a_map_is_stopped_with_its_items() -> None:
    """E7: items in flight are told, the others do not start."""
    shell = Shell(flow(map_("m", 4, concurrency=2), call("z")))
    stop(shell, "m")
    assert len(shell.stops) == 2
    assert [shell.state(f"m[{i}]") for i in range(4)] == ["SCHEDULED", "SCHEDULED", "CANCELLED", "CANCELLED"]
    shell.cancelled("m[0]")
    shell.complete("m[1]")
    assert (shell.state("m"), shell.state("m[1]")) == ("CANCELLED", "CANCELLED")
    shell.complete("z")
    ended_well(shell)


def test_who_does_not_answer_is_given_up() -> None:
    """S6, R29, R30: lost or unconfirmed, the step ends; what it has used may still come and is booked once."""
    for command in (ReportLost, ReportUnconfirmed):
        shell = Shell(flow(call("a"), call("b")))
        stop(shell, "a")
        attempt_id = shell.attempt_id("a")
        report = (
            command(attempt_id=attempt_id, reason="gone") if command is ReportLost else command(attempt_id=attempt_id)
        )
        shell.tell(report)
        assert shell.state("a") == "CANCELLED"
        assert not shell.events(StepCancelled)[0].confirmed
        before = shell.run.usage.credits
        for _ in range(2):
            shell.tell(ReportResult(attempt_id=attempt_id, state="COMPLETED", usage=Usage(credits=4)))
        assert shell.run.usage.credits == before + 4
        shell.complete("b")
        ended_well(shell)


def test_a_restart_tells_again() -> None:
    """R16, R29: an adopted run stops what was to be stopped, and dispatches it no more."""
    shell = Shell(flow(call("a"), call("b")))
    stop(shell, "a")
    run = load(dump(shell.run))
    run.flow = shell.flow
    stops = [effect for effect in open_effects(run) if isinstance(effect, StopAttempt)]
    assert [(effect.attempt_id, effect.reason) for effect in stops] == [(shell.attempt_id("a"), "nobody needs it")]
    stop(shell, "a")
    assert len(shell.events(StepStopping)) == 1
