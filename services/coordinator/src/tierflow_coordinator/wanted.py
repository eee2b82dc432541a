"""What a run is to the coordinator that wants it, whom it asks, and who hears the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_runtime.values import Context, Failure

from tierflow_coordinator.core import commands
from tierflow_coordinator.links import Link

WEATHER: Final = frozenset(
    ("UNAVAILABLE", "DATABASE_UNAVAILABLE", "QUEUE_FULL", "RATE_LIMITED", "NOT_OWNER", "FENCED", "STALE")
)
"""Refusals that say nothing of the run: it is asked for again."""
FULL: Final = frozenset(("QUEUE_FULL", "RATE_LIMITED", "UNAVAILABLE", "DATABASE_UNAVAILABLE"))
"""Of these: there is no room now, for this run or any other."""
_ENDED: Final = frozenset(("COMPLETED", "FAILED", "CANCELLED"))
_RESTS: Final = frozenset(("PAUSED", *_ENDED))
IN_EFFECT: Final = {"pause": _RESTS, "interrupt": _RESTS}
"""States in which a command has taken full effect, where a receipt alone does not say so."""
UNDONE: Final = frozenset(("RUNNING", "SUSPENDED"))
"""States of a run that took a pause and goes on all the same: somebody has told it to, in between."""


class Fleet(Protocol):
    """Which orchestrators there are."""

    def pick(self) -> Link | None:
        """Where a new run goes; None where nobody has room."""
        ...

    def probe(self, *, waiting: int) -> None:
        """Some time has passed, and so many runs wait for room."""
        ...

    def busy(self) -> bool:
        """Whether somebody has room, but is behind with answering."""
        ...

    def any(self) -> Link | None:
        """Where a command goes."""
        ...

    def link_to(self, address: str) -> Link:
        """The link to an address."""
        ...


class Answers(Protocol):
    """Who hears what the orchestrators say of runs."""

    def run_accepted(self, swarm_id: str, run_id: str) -> None:
        """The run is stored in Tier 2."""
        ...

    def run_refused(self, swarm_id: str, run_id: str, refusal: Failure) -> None:
        """The run was refused for good."""
        ...

    def run_ended(self, link: Link, result: run_pb2.RunExecutionResult) -> None:
        """A result has come, of a run of any coordinator's swarm (rule R28)."""
        ...

    def run_state(self, swarm_id: str, run_id: str, state: str) -> None:
        """A receipt for a command tells where the run is."""
        ...

    def pause_undone(self, swarm_id: str) -> None:
        """The run took a pause, and was resumed before it was PAUSED."""
        ...

    def cancel_received(self, swarm_id: str, run_id: str) -> None:
        """The run, or its tombstone, is cancelled or about to be."""
        ...


class Wanted:
    """One run that a swarm waits for."""

    __slots__ = (
        "accepted",
        "asked",
        "build",
        "command_at",
        "context",
        "due",
        "link",
        "order",
        "polls",
        "run_id",
        "swarm_id",
        "tries",
        "unanswered",
    )

    def __init__(self, swarm_id: str, run_id: str, build: Callable[[], run_pb2.RunExecutionRequest] | None) -> None:
        self.swarm_id = swarm_id
        self.run_id = run_id
        self.build = build
        """Makes the request; None where only a command is to be brought down."""
        self.link: Link | None = None
        self.accepted = False
        self.asked = False
        """It is one of those that its link was asked for and has not answered."""
        self.tries = 0
        self.unanswered = 0
        """Requests for it to which there was neither an acceptance nor a refusal."""
        self.due = 0.0
        self.order: commands.CommandRun | None = None
        self.context: Context | None = None
        """Of the run that the order is for."""
        self.polls = 0
        self.command_at = 0.0
