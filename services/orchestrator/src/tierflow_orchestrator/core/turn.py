"""One decision in the making: it applies each event at once, so that what follows is decided on the state after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from tierflow_runtime.values import Failure, Micros

from tierflow_orchestrator.core.events import RunEvent
from tierflow_orchestrator.core.evolve import evolve
from tierflow_orchestrator.core.run import Run


class Difference(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How another version of a flow differs: hashes and versions before and after, ids of steps."""

    from_hash: str
    to_hash: str
    from_version: str
    to_version: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a command: whether it changed the run, the state after it, and why it was not applied where that is an error or stale."""

    applied: bool
    state: str
    failure: Failure | None = None
    version: int = 0
    """Of the run's limits and policies after it, where the command was about those."""
    generation: int = 0
    difference: Difference | None = None
    """How the flow of a migration differs."""


class Decision(msgspec.Struct, frozen=True):
    """What a command led to: events in order (already applied), the answer, and large values to be stored with them, by SHA-256."""

    events: Sequence[RunEvent]
    reply: Reply
    blobs: Mapping[str, bytes]


class Turn:
    """A decision under way."""

    __slots__ = ("blobs", "events", "now", "run")

    def __init__(self, run: Run, now: Micros) -> None:
        self.run = run
        self.now = now
        self.events: list[RunEvent] = []
        self.blobs: dict[str, bytes] = {}

    def emit(self, event: RunEvent) -> None:
        """Adds an event and applies it."""
        evolve(self.run, event, self.now)
        self.events.append(event)

    def applied(self) -> Reply:
        """The command changed something."""
        return Reply(applied=True, state=self.run.state)

    def refused(self, failure: Failure | None = None) -> Reply:
        """The command did not apply."""
        return Reply(applied=False, state=self.run.state, failure=failure)
