"""A step of a run: its state and what is known of its attempts."""

from __future__ import annotations

import msgspec
from tierflow_runtime.values import NO_USAGE, Failure, Micros, Payload, Usage

from tierflow_orchestrator.core.states import STEP


class Branches(msgspec.Struct, gc=False, omit_defaults=True):
    """The items of a map step: how many there are, how many ended how."""

    count: int
    released: int = 0
    """Items that were made READY; item `released` is next."""
    ended: int = 0
    failed: int = 0
    cancelled: int = 0
    degraded: int = 0
    sealed_by: str = ""
    """The item whose failure exceeded what is tolerated; empty as long as the map can complete."""


class Step(msgspec.Struct, gc=False, omit_defaults=True):
    """One node of a run, or one item of a map. Changed only by `evolve`."""

    id: str
    of: str
    """Id of its definition in the flow: its own, or its map's."""
    handler: str
    """Empty for a map itself, whose items call the handler, and for steps that call nothing."""
    state: str = STEP.initial
    reason: str = ""
    waiting: int = 0
    """Needed steps that have not ended."""
    blocked_by: str = ""
    """The first needed step that neither completed nor failed tolerably."""
    failing: bool = False
    """Whether a needed step failed, or was skipped because of one that failed."""
    index: int = -1
    """Place among the items of its map; -1 where it is no item."""
    attempt: int = 0
    """Attempts started, counted against the retry policy."""
    epoch: int = 0
    """Rises with each attempt; part of the attempt's id (rule R23)."""
    attempt_id: str = ""
    executor_id: str = ""
    unbooked: tuple[int, ...] = ()
    """Epochs that were given up without a result: a late one is booked, once."""
    asked: bool = False
    """Lost, and waiting for an operator."""
    input: Payload | None = None
    output: Payload | None = None
    outcome: str = ""
    failure: Failure | None = None
    """The last failure; kept when a later attempt completes."""
    tolerated: bool = False
    usage: Usage = NO_USAGE
    scheduled_at: Micros | None = None
    started_at: Micros | None = None
    ended_at: Micros | None = None
    next_attempt_at: Micros | None = None
    branches: Branches | None = None
    stopping: str = ""
    """Why its attempts are being stopped, apart from its run; empty where they are not."""
    stop_to: str = ""
    """The state in which it ends once they are."""
    wakes_at: Micros | None = None
    """Of a step that waits: until when at the latest."""

    @property
    def is_map(self) -> bool:
        """Whether it stands for a map as a whole whose items are known."""
        return self.branches is not None

    @property
    def is_waiting(self) -> bool:
        """Whether it has begun to wait for something other than an executor."""
        return self.state == "RUNNING" and not self.handler and self.branches is None

    @property
    def is_item(self) -> bool:
        """Whether it is an item of a map."""
        return self.index >= 0

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self.state in STEP.final

    @property
    def in_flight(self) -> bool:
        """Whether an attempt of it is scheduled or running."""
        return (self.state == "RUNNING" or self.state == "SCHEDULED") and bool(self.handler)


def item_id(map_id: str, index: int) -> str:
    """Id of an item of a map."""
    return f"{map_id}[{index}]"
