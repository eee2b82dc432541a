"""What a navigator is: a definition and a position give the next positions. Everything else is shared.

A navigator is pure: it sees the run and the decision under way, and answers by events. It does not see executors, slots, attempts, retries of lost attempts, timers,
journals or owners: those are the core's, and the same for all. A run's position is its steps that have not ended; what a navigator needs to know of them
beyond their states is part of the step (`Step.frame`), is changed by events alone, and so is journaled, replayed and put into snapshots like everything else.

`graph` and `sequence` are the native ones: what follows from a step is in its definition's needs, so that `evolve` counts, and `navigator` looks at steps that
have none left. They never come here on their way; a flow whose `program` is None is theirs. docs/navigators.md shows how the three do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from tierflow_runtime.values import Failure, Payload, Usage

from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.serverless import Serverless
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Navigator(Protocol):
    """One that walks definitions of its own. It emits events that make steps known, begin, wait, complete, fail and stop them."""

    def start(self, turn: Turn) -> None:
        """The run begins: its first positions."""

    def look(self, turn: Turn, step: Step) -> None:
        """Something has happened to a step: it is READY, or one inside it has ended."""

    def leave(self, turn: Turn, step: Step, reason: str) -> None:
        """Somebody ends a step by hand: stops everything inside it."""

    def due(self, turn: Turn, step: Step) -> None:
        """The moment has come until which a step waits."""

    def told(self, turn: Turn) -> bool:
        """A message has come in; whether a step has taken it."""

    def refusal(self, run: Run) -> Failure | None:
        """Why a message is refused; None where it is kept until a step takes it."""

    def message(self, turn: Turn, command: commands.Signal) -> str:
        """The JSON text under which a message is kept. Raises `ExpressionError`."""

    def input(self, turn: Turn, step: Step) -> Payload:
        """What the handler of a step is given, when it has a slot. Raises `ExpressionError`: the step fails."""

    def came(self, turn: Turn, step: Step, output: Payload | None, usage: Usage) -> None:
        """The attempt of a step came with a result: completes the step, or fails it."""

    def failed(self, turn: Turn, step: Step, failure: Failure, *, attempt: int, attempt_id: str, usage: Usage) -> None:
        """A step failed and no further attempt is made: ends it, and says what follows."""


SERVERLESS: Final = Serverless()
NAVIGATORS: Final[Mapping[str, Navigator]] = {"serverless": SERVERLESS}
"""Navigators beside the native ones, by the name that a flow has for them."""


def navigator_of(run: Run) -> Navigator | None:
    """The navigator of a run; None: the native one."""
    return NAVIGATORS.get(run.definition().navigator)
