"""Every command in every state of a run, against the table that docs/states.md shows."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core import dump
from tierflow_orchestrator.core.commands import (
    Cancel,
    Migrate,
    Pause,
    Resume,
    Retry,
    SetBreakpoints,
    Signal,
    Skip,
    StepOnce,
    Update,
)
from tierflow_orchestrator.core.events import CommandReceived
from tierflow_orchestrator.core.states import ANSWERED, COMMANDS, RUN

from .fakes import Shell
from .invariants import check_invariants
from .test_commands import (
    cancelled,
    cancelling,
    compensating,
    completed,
    failed,
    paused,
    pausing,
    preparing,
    queued,
    running,
    suspended,
)

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
FLOW = """
name: test
version: "2"
steps:
  a: {call: h}
  b: {call: h, needs: [a]}
  lost: {call: h}
  more: {call: h, needs: [b]}
"""
TOLD: dict[str, Any] = {
    "pause": Pause(command_id="x", actor="ann", reason="why"),
    "interrupt": Pause(command_id="x", interrupt=True, actor="ann", reason="why"),
    "resume": Resume(command_id="x", actor="ann", reason="why"),
    "cancel": Cancel(command_id="x", actor="ann", reason="why"),
    "retry": Retry(command_id="x", actor="ann", reason="why"),
    "skip": Skip(command_id="x", step_id="b", actor="ann", reason="why"),
    "step": StepOnce(command_id="x", actor="ann", reason="why"),
    "breakpoints": SetBreakpoints(command_id="x", breakpoints=("b",), actor="ann", reason="why"),
    "update": Update(command_id="x", concurrency=5, actor="ann", reason="why"),
    "migrate": Migrate(
        command_id="x", definition=parse(FLOW, "yaml").canonical, flow=parse(FLOW, "yaml"), actor="ann", reason="why"
    ),
}


def test_the_matrix_is_whole() -> None:
    """O14: every command, every state."""
    assert {*TOLD, "signal"} == set(COMMANDS)
    assert set(MAKERS) == set(RUN.states)


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("state", MAKERS)
def test_matrix(state: str, name: str) -> None:
    """C2, C9, G3, G10, I14, O14: where the table has it, it applies and is journaled with who and why; elsewhere nothing changes, and the answer says so."""
    shell = MAKERS[state]()
    shell.auto = False
    before = dump(shell.run)
    decision = shell.decide(TOLD[name])
    applies = state in COMMANDS[name]
    assert decision.reply.applied == applies
    assert decision.reply.state == shell.run.state
    told = [event for event in decision.events if isinstance(event, CommandReceived)]
    if applies:
        (one,) = told
        assert (one.command, one.actor, one.reason) == (name, "ann", "why")
        assert decision.reply.failure is None
    elif name in ANSWERED:
        assert decision.reply.failure is None
        assert all(event in told for event in decision.events)
    else:
        assert not decision.events
        assert dump(shell.run) == before
        assert decision.reply.failure is not None
        assert decision.reply.failure.code == "STATE_CONFLICT"
        assert state in decision.reply.failure.message
    again = shell.decide(TOLD[name])
    assert again.reply.applied == applies
    if applies:
        assert not again.events, "V16"
    if shell.run.flow is not None and name != "migrate":
        check_invariants(shell.run)
        shell.check()


@pytest.mark.parametrize("state", MAKERS)
def test_signals(state: str) -> None:
    """Q5, O14: where the table has it, a signal is looked at, and here refused by the flow's definition; elsewhere it is answered with the state."""
    shell = MAKERS[state]()
    shell.run.flow = shell.flow
    decision = shell.decide(Signal(command_id="x", name="go", actor="ann"))
    assert not decision.events
    assert (decision.reply.applied, decision.reply.state) == (False, state)
    code = None if decision.reply.failure is None else decision.reply.failure.code
    assert code == ("INVALID_REQUEST" if state in COMMANDS["signal"] else None)


def test_the_table_is_in_the_docs() -> None:
    """C2: docs/states.md shows what the code does."""
    page = (pathlib.Path(__file__).parents[4] / "docs" / "states.md").read_text()
    for name, states in COMMANDS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        other = "-" if name in ANSWERED else "refused"
        assert cells == ["applies" if state in states else other for state in RUN.states]
