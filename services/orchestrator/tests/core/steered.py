"""What is checked after each move of a run that is steered."""

from __future__ import annotations

from tierflow_orchestrator.core import dump, load
from tierflow_testing.history import check_history

from .fakes import Shell
from .invariants import check_invariants


def sound(shell: Shell, *, complete: bool = False) -> None:
    """All invariants, of the state and of the history; and the journal gives the state."""
    check_invariants(shell.run)
    shell.check()
    again = load(dump(shell.run))
    again.flow = shell.run.flow
    assert dump(again) == dump(shell.run)
    needs = {spec.id: spec.needs for spec in shell.flow.steps}
    assert not check_history(shell.journal, needs, complete=complete)
