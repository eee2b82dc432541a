"""What a kind of steps says to the navigator. Kinds decide and emit nothing themselves: what follows from their word is the same for all of them."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from tierflow_runtime.values import Failure, Micros, Payload

from tierflow_orchestrator.core.events import ApprovalRequested, RunEvent
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Dispatch(msgspec.Struct, frozen=True):
    """It stays READY until an executor has a slot for its handler."""


class Expand(msgspec.Struct, frozen=True):
    """It becomes this many items, each a step."""

    count: int


class Begin(msgspec.Struct, frozen=True):
    """The steps of its block begin."""


class Iterate(msgspec.Struct, frozen=True):
    """The iteration of this index begins."""

    index: int


class Again(msgspec.Struct, frozen=True):
    """Its block failed and is run again at this moment."""

    failure: Failure
    at: Micros


class Reset(msgspec.Struct, frozen=True):
    """It begins anew, as if everything that it needs had just ended."""


class Stopped(msgspec.Struct, frozen=True):
    """It was stopped, and everything below it has."""

    reason: str


class Undone(msgspec.Struct, frozen=True):
    """It is compensated, or could not be."""

    failure: Failure | None = None


class Wait(msgspec.Struct, frozen=True):
    """It waits, RUNNING, for something other than an executor; until this moment at the latest, where there is one."""

    reason: str
    until: Micros | None = None


class Complete(msgspec.Struct, frozen=True):
    """It is done. `facts` are events that come before its completion."""

    output: Payload | None = None
    facts: tuple[RunEvent, ...] = ()
    outcome: str = "SUCCESS"


class Fail(msgspec.Struct, frozen=True):
    """It has failed; `final`: whoever handles its errors had a say already."""

    failure: Failure
    final: bool = False


class Ask(msgspec.Struct, frozen=True):
    """It asks people, and waits until they have decided."""

    request: ApprovalRequested


class Escalate(msgspec.Struct, frozen=True):
    """Nobody has decided in time: further people are asked, until this moment at the latest, where there is one."""

    until: Micros | None


class Resolve(msgspec.Struct, frozen=True):
    """What people were asked is decided; what follows for the step, where it is not its handler's turn."""

    verdict: str
    then: Complete | Fail | None = None


Proceed: TypeAlias = (
    Dispatch
    | Expand
    | Begin
    | Iterate
    | Again
    | Reset
    | Stopped
    | Undone
    | Wait
    | Complete
    | Fail
    | Ask
    | Escalate
    | Resolve
)


class Kind:
    """A kind of steps."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """How a step goes on that is READY and whose condition holds. Raises `ExpressionError`: the step fails."""
        raise NotImplementedError

    def received(self, turn: Turn, step: Step) -> Proceed:
        """How a step goes on that waits for a signal, which is there."""
        raise NotImplementedError

    def go_on(self, turn: Turn, step: Step) -> Proceed:
        """How a step goes on of which an iteration has completed. Raises `ExpressionError`: the step fails."""
        raise NotImplementedError

    def due(self, turn: Turn, step: Step) -> Proceed:
        """How a step goes on that waits and whose moment has come."""
        return Complete()
