"""The state machines of runs and steps, as tables.

A move that is not in its table raises `IllegalTransition`. docs/states.md is drawn from the tables; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


class IllegalTransition(Exception):
    """A move that the table does not have. It is a defect of the core: decisions look before they move."""

    def __init__(self, machine: str, subject: str, from_: str, to: str) -> None:
        super().__init__(f"{machine} {subject!r} cannot go from {from_ or 'nothing'} to {to}")
        self.machine = machine
        self.subject = subject
        self.from_ = from_
        self.to = to


@dataclass(frozen=True, slots=True)
class Machine:
    """A state machine: for each state the states that may follow, each with the reason for the move in a few words."""

    name: str
    initial: str
    table: Mapping[str, Mapping[str, str]]
    reserved: tuple[str, ...] = ()
    """States that the contracts have and no move leads to yet."""
    after: frozenset[str] = frozenset()
    """States that only come after the end."""
    reopens: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Moves out of final states, into a new generation (rule R31)."""
    final: frozenset[str] = field(init=False)
    over: frozenset[str] = field(init=False)
    """States in which it has ended: the final ones, those that only come after the end, and those from which only such follow."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "final", frozenset(state for state, moves in self.table.items() if not moves))
        over = frozenset(state for state, moves in self.table.items() if moves.keys() <= self.after)
        object.__setattr__(self, "over", over | self.after)

    @property
    def states(self) -> tuple[str, ...]:
        """All states that can be reached, in the order of the table."""
        return tuple(self.table)

    def allows(self, from_: str, to: str) -> bool:
        """Whether the table has the move."""
        return to in self.table.get(from_, ())

    def check(self, subject: str, from_: str, to: str) -> None:
        """Raises `IllegalTransition` where the table does not have the move; `subject` is whose state it is."""
        if from_ not in self.table or to not in self.table[from_]:
            raise IllegalTransition(self.name, subject, from_, to)

    def check_reopening(self, subject: str, from_: str, to: str) -> None:
        """Raises `IllegalTransition` where no new generation begins with the move."""
        if to not in self.reopens.get(from_, ()):
            raise IllegalTransition(self.name, subject, from_, to)


_CANCEL = {"CANCELLING": "cancel, or deadline passed"}

RUN: Final = Machine(
    name="run",
    initial="QUEUED",
    table={
        "QUEUED": {"PREPARING": "its time has come", "FAILED": "cannot be prepared", **_CANCEL},
        "PREPARING": {"RUNNING": "flow and input are good", "FAILED": "flow or input is not good", **_CANCEL},
        "RUNNING": {
            "SUSPENDED": "only waits are left, or an operator must decide",
            "PAUSING": "pause, a breakpoint, a step failed under PAUSE, or one step was done",
            "CANCELLING": "cancel, deadline passed, or a step failed under FAIL_FAST",
            "COMPENSATING": "as FAILED, and there is something to compensate",
            "COMPLETED": "all steps ended",
            "FAILED": "all steps ended, one failed; or its output cannot be made",
        },
        "SUSPENDED": {
            "RUNNING": "resume, or a wait is over",
            "PAUSING": "pause",
            "CANCELLING": "cancel, deadline passed, or a step failed under FAIL_FAST",
        },
        "PAUSING": {
            "PAUSED": "nothing is in flight",
            "RUNNING": "resume",
            "SUSPENDED": "resume, and only waits are left or an operator must decide",
            "CANCELLING": "cancel, deadline passed, or a step failed under FAIL_FAST",
            "COMPENSATING": "as FAILED, and there is something to compensate",
            "COMPLETED": "all steps ended",
            "FAILED": "all steps ended, one failed; or its output cannot be made",
        },
        "PAUSED": {
            "RUNNING": "resume, or one step",
            "SUSPENDED": "resume, and only waits are left or an operator must decide",
            **_CANCEL,
        },
        "CANCELLING": {
            "COMPENSATING": "nothing is in flight, and there is something to compensate",
            "CANCELLED": "nothing is in flight",
            "FAILED": "nothing is in flight; a failure or the deadline was the reason",
        },
        "COMPENSATING": {
            "CANCELLED": "everything is compensated; the run was cancelled",
            "FAILED": "everything is compensated; or a compensation failed",
        },
        "COMPLETED": {},
        "FAILED": {},
        "CANCELLED": {},
    },
    reopens={"FAILED": {"QUEUED": "retry"}},
)

_STOPPED = "the run is stopped, or the step alone"

STEP: Final = Machine(
    name="step",
    initial="PENDING",
    table={
        "PENDING": {
            "READY": "everything it needs has ended",
            "COMPLETED": "its result is taken over from another run",
            "SKIPPED": "somebody skips it",
            "CANCELLED": _STOPPED,
        },
        "READY": {
            "SCHEDULED": "an executor's slot is assigned",
            "AWAITING_APPROVAL": "people are asked first",
            "RUNNING": "a map's items are known, a block has begun, or it waits for what is no attempt",
            "COMPLETED": "it is decided at once",
            "SKIPPED": "its condition is false, a need did not complete, or somebody skips it",
            "FAILED": "an expression fails, or the budget is used up",
            "CANCELLED": _STOPPED,
        },
        "AWAITING_APPROVAL": {
            "READY": "approved: its handler may be called",
            "COMPLETED": "approved, and that was all",
            "RUNNING": "not approved, and its handler is called",
            "FAILED": "rejected, or nobody decided in time",
            "SKIPPED": "somebody skips it",
            "CANCELLED": _STOPPED,
        },
        "SCHEDULED": {
            "RUNNING": "the executor has started it, or it failed and its handler is called",
            "BACKOFF": "failed or lost, another attempt follows",
            "FAILED": "failed or lost for good",
            "READY": "stopped by a pause",
            "SKIPPED": "somebody skips it",
            "CANCELLED": _STOPPED,
        },
        "RUNNING": {
            "READY": "stopped by a pause, or its handler step wants it to begin again",
            "COMPLETED": "a result, or the wait or the block is over",
            "BACKOFF": "failed or lost, another attempt follows",
            "FAILED": "failed or lost for good",
            "SKIPPED": "somebody skips it",
            "CANCELLED": _STOPPED,
        },
        "BACKOFF": {
            "AWAITING_APPROVAL": "people are asked first",
            "SCHEDULED": "the delay is over and a slot is assigned",
            "RUNNING": "the delay is over and the block begins again, or its handler is called",
            "SKIPPED": "somebody skips it",
            "FAILED": "an expression fails, or the budget is used up",
            "CANCELLED": _STOPPED,
        },
        "COMPLETED": {"COMPENSATING": "the run failed or was cancelled, and the step says what compensates it"},
        "FAILED": {},
        "SKIPPED": {},
        "CANCELLED": {},
        "COMPENSATING": {"COMPENSATED": "what it did is undone", "FAILED": "its compensation failed for good"},
        "COMPENSATED": {},
    },
    after=frozenset(("COMPENSATING", "COMPENSATED")),
    reopens={
        state: {"PENDING": "the run is retried, and it runs again"}
        for state in ("COMPLETED", "FAILED", "SKIPPED", "CANCELLED", "COMPENSATED")
    },
)

LIVE: Final = ("SCHEDULED", "RUNNING")
"""States of a step with an attempt in flight (a map or a wait that is RUNNING has none of its own)."""

_ALIVE: Final = ("QUEUED", "PREPARING", "RUNNING", "SUSPENDED", "PAUSING", "PAUSED")
_WORKING: Final = ("RUNNING", "SUSPENDED", "PAUSING", "PAUSED")

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "pause": ("RUNNING", "SUSPENDED"),
    "interrupt": ("RUNNING", "SUSPENDED", "PAUSING"),
    "resume": ("SUSPENDED", "PAUSING", "PAUSED"),
    "cancel": _ALIVE,
    "retry": ("FAILED",),
    "skip": _WORKING,
    "step": ("PAUSED",),
    "breakpoints": _ALIVE,
    "update": _ALIVE,
    "migrate": ("PAUSED",),
    "signal": _ALIVE,
}
"""The states of a run in which a command applies, as far as the state alone says so. Drawn in docs/states.md; a test applies every command in every state."""

ANSWERED: Final = ("pause", "interrupt", "resume", "cancel", "signal")
"""Commands that are no error elsewhere: they are answered with the state. All others are refused with STATE_CONFLICT."""
