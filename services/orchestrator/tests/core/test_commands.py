"""Every command in every state of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tierflow_orchestrator.core import Run, decide, dump, load, open_effects
from tierflow_orchestrator.core.commands import (
    AssignSlot,
    Bury,
    Cancel,
    FailPrepare,
    Pause,
    ReportLost,
    ReportResult,
    ReportStarted,
    ReportUnconfirmed,
    Resume,
    WakeUp,
)
from tierflow_orchestrator.core.events import CommandReceived, LateResult, RunEnded, RunStateChanged, StepScheduled
from tierflow_orchestrator.core.react import react
from tierflow_orchestrator.core.run import REMEMBERED_COMMANDS
from tierflow_orchestrator.core.states import RUN
from tierflow_runtime.values import Failure, Options, Usage

from .fakes import RUN_ID, SECOND, START, Shell, call, create, flow
from .invariants import check_invariants

FLOW = flow(call("a"), call("b", "a"), call("lost", on_lost="ASK"))
CANCEL, PAUSE, RESUME = Cancel(command_id="c", actor="ann", reason="why"), Pause(command_id="p"), Resume(command_id="r")
FAILURE = Failure(code="FLOW_NOT_FOUND", message="no", tier=2, component="flows", operation="prepare")


def queued() -> Shell:
    return Shell(FLOW, options=Options(not_before=START + 100 * SECOND))


def preparing() -> Shell:
    """A run whose flow is not at hand yet."""
    shell = Shell(FLOW, options=Options(not_before=START + 100 * SECOND))
    shell.run.flow = None
    shell.now = START + 101 * SECOND
    shell.tell(WakeUp())
    return shell


def running() -> Shell:
    return Shell(FLOW)


def suspended() -> Shell:
    shell = running()
    shell.tell(ReportLost(attempt_id=shell.attempt_id("lost"), reason="gone"))
    return shell


def pausing() -> Shell:
    shell = running()
    shell.tell(Pause(command_id="before"))
    return shell


def paused() -> Shell:
    shell = pausing()
    shell.complete("a")
    shell.complete("lost")
    return shell


def cancelling() -> Shell:
    shell = running()
    shell.tell(Cancel(command_id="before"))
    return shell


def completed() -> Shell:
    shell = running()
    for step in ("a", "lost", "b"):
        shell.complete(step)
    return shell


def failed() -> Shell:
    shell = running()
    shell.fail("a")
    shell.complete("lost")
    return shell


def cancelled() -> Shell:
    shell = cancelling()
    shell.cancelled("a")
    shell.cancelled("lost")
    return shell


def compensating() -> Shell:
    undoes = call("a", undo=call("a!compensate"))
    made = Shell(flow(undoes, call("b", "a"), compensate_on=frozenset({"failure"})))
    made.complete("a")
    made.fail("b")
    return made


MAKERS: dict[str, Callable[[], Shell]] = {
    "QUEUED": queued,
    "PREPARING": preparing,
    "RUNNING": running,
    "SUSPENDED": suspended,
    "PAUSING": pausing,
    "PAUSED": paused,
    "CANCELLING": cancelling,
    "COMPENSATING": compensating,
    "COMPLETED": completed,
    "FAILED": failed,
    "CANCELLED": cancelled,
}
ALIVE = ("QUEUED", "PREPARING", "RUNNING", "SUSPENDED", "PAUSING", "PAUSED")

# command: {state: the state that it leads to}; in all other states it does not apply.
LEADS: dict[str, tuple[Any, dict[str, str]]] = {
    "cancel": (
        CANCEL,
        {
            "QUEUED": "CANCELLED",
            "PREPARING": "CANCELLED",
            "RUNNING": "CANCELLING",
            "SUSPENDED": "CANCELLING",
            "PAUSING": "CANCELLING",
            "PAUSED": "CANCELLED",
        },
    ),
    "pause": (PAUSE, {"RUNNING": "PAUSING", "SUSPENDED": "PAUSING"}),
    "resume": (RESUME, {"PAUSING": "RUNNING", "PAUSED": "RUNNING", "SUSPENDED": "RUNNING"}),
    "wake": (WakeUp(), {}),
    "fail_prepare": (FailPrepare(failure=FAILURE), {"QUEUED": "FAILED", "PREPARING": "FAILED"}),
    "create": (create(FLOW), {}),
    "assign nothing": (AssignSlot(step_id="nothing", executor_id="e"), {}),
    "assign pending": (AssignSlot(step_id="b", executor_id="e"), {}),
    "forged result": (ReportResult(attempt_id=f"{RUN_ID}/a/7", state="COMPLETED"), {}),
    "forged start": (ReportStarted(attempt_id=f"{RUN_ID}/a/7", started_at=1), {}),
    "forged loss": (ReportLost(attempt_id=f"{RUN_ID}/a/7", reason=""), {}),
    "forged receipt": (ReportUnconfirmed(attempt_id=f"{RUN_ID}/a/7"), {}),
}


def test_the_states_are_all() -> None:
    """O14: the matrix has every state, and each maker makes it."""
    assert set(MAKERS) == set(RUN.states)
    for state, make in MAKERS.items():
        assert make().run.state == state


@pytest.mark.parametrize("name", LEADS)
@pytest.mark.parametrize("state", MAKERS)
def test_matrix(state: str, name: str) -> None:
    """C2, G3, G10, O14: each command in each state leads where the table says, or changes nothing; the answer says which."""
    command, leads = LEADS[name]
    shell = MAKERS[state]()
    shell.auto = False
    before, count = dump(shell.run), len(shell.journal)
    decision = shell.decide(command)
    assert decision.reply.applied == (state in leads)
    assert decision.reply.state == shell.run.state == leads.get(state, state)
    new = [event for event, _ in shell.journal[count:]]
    if state not in leads:
        assert all(isinstance(event, CommandReceived) for event in new)
    if not new:
        assert dump(shell.run) == before
    if state not in ALIVE and state not in ("CANCELLING", "COMPENSATING"):
        assert not new, "V1: an ended run answers with its state and nothing else"
    if shell.run.flow is not None:
        check_invariants(shell.run)
        shell.check()


@pytest.mark.parametrize("state", MAKERS)
@pytest.mark.parametrize("kind", [Pause, Resume, Cancel], ids=["pause", "resume", "cancel"])
def test_again(state: str, kind: Any) -> None:
    """C6, V16: the same command id again is answered as the first time, after a restart as well, and leads to no event."""
    shell = MAKERS[state]()
    first = shell.tell(kind(command_id="once")).reply
    count = len(shell.journal)
    assert shell.tell(kind(command_id="once")).reply == first
    shell.run = shell.folded()
    assert shell.tell(kind(command_id="once")).reply == first
    assert len(shell.journal) == count


def test_who_asks_again_hears_when_it_is_done() -> None:
    """C6, V16: a pause takes effect when the last attempt has ended; its command, sent again, is answered with the state that is so by then."""
    shell = running()
    pause = Pause(command_id="once")
    assert shell.tell(pause).reply.state == "PAUSING"
    for step_id in ("a", "lost"):
        shell.complete(step_id)
    again = shell.tell(pause)
    assert not again.events
    assert (again.reply.applied, again.reply.state) == (True, "PAUSED")


def test_cancel_is_heard_by_everything() -> None:
    """C7, G4, G5, G10, Lesson 5: a cancel stops attempts in flight, cancels what waits, and ends when all have answered."""
    shell = running()
    shell.tell(CANCEL)
    assert shell.run.state == "CANCELLING"
    assert shell.run.reason == "why"
    assert {stop.attempt_id for stop in shell.stops} == {shell.attempt_id("a"), shell.attempt_id("lost")}
    assert shell.states() == {"a": "SCHEDULED", "b": "CANCELLED", "lost": "SCHEDULED"}
    assert shell.run.in_flight == 2
    shell.cancelled("a")
    assert not shell.run.ended
    shell.tell(ReportUnconfirmed(attempt_id=shell.attempt_id("lost")))
    (end,) = shell.events(RunEnded)
    assert (end.to, end.outcome, end.reason) == ("CANCELLED", "CANCELLED", "why")
    assert end.unconfirmed_attempts == (shell.attempt_id("lost"),)
    shell.check()


def test_result_after_cancel() -> None:
    """G11, V15: a late result is recorded with its cost, changes no state, and is booked once."""
    shell = running()
    late = shell.attempt_id("lost")
    shell.tell(CANCEL)
    shell.cancelled("a")
    shell.tell(ReportUnconfirmed(attempt_id=late))
    assert shell.run.state == "CANCELLED"
    before = shell.run.usage.credits
    result = ReportResult(attempt_id=late, state="COMPLETED", output="1", usage=Usage(credits=11, attempts=1))
    reply = shell.tell(result).reply
    assert not reply.applied
    assert reply.failure is not None
    assert reply.failure.code == "STALE"
    assert shell.run.usage.credits == before + 11
    assert shell.state("lost") == "CANCELLED"
    shell.tell(result)
    assert shell.run.usage.credits == before + 11
    assert len(shell.events(LateResult)) == 1
    shell.check()


def test_work_that_finishes_while_it_is_cancelled() -> None:
    """G11, E6: an attempt that completes before it can be stopped keeps its result."""
    shell = running()
    shell.tell(CANCEL)
    shell.complete("a", '"done"')
    shell.fail("lost")
    assert shell.run.steps["a"].output == '"done"'
    assert shell.states() == {"a": "COMPLETED", "b": "CANCELLED", "lost": "FAILED"}
    assert shell.run.state == "CANCELLED"
    shell.check()


def test_pause_lets_work_finish_and_starts_nothing() -> None:
    """G6, G5, Lesson 18: PAUSING until nothing is in flight, then PAUSED; then resumed where it was."""
    shell = running()
    shell.tell(PAUSE)
    assert shell.run.state == "PAUSING"
    shell.complete("a")
    assert shell.state("b") == "READY"
    assert not list(shell.run.ready_handlers())
    shell.complete("lost")
    assert shell.run.state == "PAUSED"
    assert shell.run.next_wake() is None
    count = len(shell.events(StepScheduled))
    shell.tell(WakeUp())
    assert len(shell.events(StepScheduled)) == count
    shell.run = shell.folded()
    shell.tell(RESUME)
    assert shell.state("b") == "SCHEDULED"
    shell.complete("b")
    assert shell.run.state == "COMPLETED"
    assert [e.to for e in shell.events(RunStateChanged)] == ["PREPARING", "RUNNING", "PAUSING", "PAUSED", "RUNNING"]
    shell.check()


def test_pause_of_a_run_that_finishes_meanwhile() -> None:
    """G6: where nothing is left to do, a pause keeps nobody waiting."""
    shell = Shell(flow(call("a")))
    shell.tell(PAUSE)
    shell.complete("a")
    assert shell.run.state == "COMPLETED"


def test_one_wins() -> None:
    """C6: a cancel and the last result, in either order: one terminal event, and the other learns the state."""
    for number in range(50):
        shell = Shell(flow(call("a")))
        result = ReportResult(attempt_id=shell.attempt_id("a"), state="COMPLETED", output="1")
        commands = [result, Cancel(command_id="c")]
        replies = [shell.tell(command).reply for command in (commands if number % 2 else reversed(commands))]
        if number % 2:
            assert [reply.applied for reply in replies] == [True, False]
            assert replies[1].state == "COMPLETED"
        else:
            assert replies[0].applied
            assert shell.run.state == "CANCELLED"
        assert len(shell.events(RunEnded)) == 1


def test_command_ids_are_forgotten_in_the_end() -> None:
    """V16: what a run remembers of commands is bounded."""
    shell = running()
    for number in range(REMEMBERED_COMMANDS + 10):
        shell.tell(Resume(command_id=str(number)))
    assert len(shell.run.commands) == REMEMBERED_COMMANDS
    assert "0" not in shell.run.commands
    shell.check()


def test_flow_arrives_later() -> None:
    """C3, Lesson 17: a run whose flow is not at hand is PREPARING, and goes on or fails once that is known."""
    shell = preparing()
    shell.tell(WakeUp())
    assert shell.run.state == "PREPARING"
    shell.run.flow = FLOW
    shell.tell(WakeUp())
    assert shell.run.state == "RUNNING"
    shell.check()
    other = preparing()
    other.tell(FailPrepare(failure=FAILURE))
    assert (other.run.state, other.run.failure) == ("FAILED", FAILURE)


def test_not_before() -> None:
    """G10: a run that is to start later waits QUEUED, and starts when its time has come."""
    shell = queued()
    assert shell.run.next_wake() == START + 100 * SECOND
    shell.tell(WakeUp())
    assert shell.run.state == "QUEUED"
    shell.now = START + 100 * SECOND
    shell.tell(WakeUp())
    assert shell.run.state == "RUNNING"


def test_nothing_before_it_exists() -> None:
    """V3, Lesson 8: a run without events is in no state, and answers everything but its creation with nothing."""
    for command in (CANCEL, PAUSE, RESUME, WakeUp(), FailPrepare(failure=FAILURE)):
        run = Run.fresh(RUN_ID)
        decision = decide(run, command, START)
        assert not decision.events
        assert decision.reply.applied is False


@pytest.mark.parametrize("state", MAKERS)
def test_restart_in_every_state(state: str) -> None:
    """K7, G7, R16: whatever state a run is in, another instance that knows nothing but what is stored brings it to the same end."""
    shell = MAKERS[state]()
    shell.run.flow = shell.flow
    for copy in (shell.folded(), load(dump(shell.run))):
        copy.flow = shell.flow
        assert dump(copy) == dump(shell.run)
        assert list(open_effects(copy)) == list(open_effects(shell.run))
        assert copy.next_wake() == shell.run.next_wake()
    ends = []
    for other in (shell, MAKERS[state]()):
        if other is not shell:
            other.run = other.folded()
        other.run.flow = shell.flow
        ends.append(bring_to_an_end(other))
        other.check()
    assert ends[0] == ends[1]


def bring_to_an_end(shell: Shell) -> tuple[str, str, dict[str, str]]:
    if shell.run.state in ("PAUSED", "SUSPENDED"):
        shell.tell(Resume(command_id="on"))
    shell.now = START + 200 * SECOND
    shell.tell(WakeUp())
    while shell.run.live:
        shell.complete(next(iter(shell.run.live)))
        if shell.run.state in ("PAUSED", "SUSPENDED"):
            shell.tell(Resume(command_id="on"))
    assert shell.run.ended
    return shell.run.state, shell.run.outcome, shell.states()


def test_a_cancel_may_come_before_its_run() -> None:
    """R29, Lesson 5: a run that is cancelled before it comes has a history like any other, nothing to report to Tier 1, and takes no later request."""
    run, first = Run.fresh(RUN_ID), create(FLOW)
    decision = decide(run, Bury(context=first.context, cancel=CANCEL), START)
    assert [type(event).__name__ for event in decision.events] == [
        "RunCreated",
        "CommandReceived",
        "RunStateChanged",
        "RunEnded",
    ]
    assert (decision.reply.applied, run.state, run.outcome, run.reason) == (True, "CANCELLED", "CANCELLED", "why")
    assert run.buried
    assert list(open_effects(run)) == []
    assert [effect for event in decision.events for effect in react(run, event)] == []
    assert load(dump(run)).buried
    for later in (first, Bury(context=first.context, cancel=CANCEL)):
        assert not decide(run, later, START).events
    repeated = decide(run, CANCEL, START)
    assert (repeated.reply.applied, repeated.reply.state, repeated.events) == (True, "CANCELLED", [])
