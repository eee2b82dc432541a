"""The states of a schedule and of a firing, and which may follow which. Names are those of the enums in the contract, without prefix."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tierflow_runtime.values import Failure, FailureError

NEW = ""
ACTIVE = "ACTIVE"
PAUSED = "PAUSED"
DELETING = "DELETING"
ENDED = "ENDED"
DELETED = "DELETED"

OPEN = (ACTIVE, PAUSED, DELETING)
OVER = frozenset((ENDED, DELETED))

TRANSITIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        NEW: frozenset((ACTIVE, PAUSED)),
        ACTIVE: frozenset((PAUSED, DELETING, ENDED, DELETED)),
        PAUSED: frozenset((ACTIVE, DELETING, DELETED)),
        DELETING: frozenset((DELETED,)),
        ENDED: frozenset(),
        DELETED: frozenset(),
    }
)

WAITING = "WAITING"
REQUESTED = "REQUESTED"
DELAYED = "DELAYED"
STARTED = "STARTED"
CANCELLING = "CANCELLING"
FIRING_ENDED = "ENDED"
SKIPPED = "SKIPPED"
REFUSED = "REFUSED"

FIRING_OVER = frozenset((FIRING_ENDED, SKIPPED, REFUSED))
RUNNING = frozenset((REQUESTED, DELAYED, STARTED, CANCELLING))
"""A swarm is being made or at work."""

FIRING_TRANSITIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        NEW: frozenset((WAITING, REQUESTED, SKIPPED)),
        WAITING: frozenset((REQUESTED, SKIPPED)),
        REQUESTED: frozenset((STARTED, DELAYED, REFUSED)),
        DELAYED: frozenset((REQUESTED, SKIPPED, REFUSED)),
        STARTED: frozenset((CANCELLING, FIRING_ENDED)),
        CANCELLING: frozenset((FIRING_ENDED,)),
        # A swarm that failed may be retried and end otherwise (rule R31).
        FIRING_ENDED: frozenset((FIRING_ENDED,)),
        SKIPPED: frozenset(),
        REFUSED: frozenset(),
    }
)

SCHEDULED = "SCHEDULED"
TRIGGERED = "TRIGGERED"
BACKFILLED = "BACKFILLED"


def check(before: str, after: str) -> None:
    """Refuses a transition of a schedule that is not in the table. Raises FailureError STATE_CONFLICT, naming both states."""
    _check(TRANSITIONS, "schedule", before, after)


def check_firing(before: str, after: str) -> None:
    """Refuses a transition of a firing that is not in the table. Raises FailureError STATE_CONFLICT, naming both states."""
    _check(FIRING_TRANSITIONS, "firing", before, after)


def _check(table: Mapping[str, frozenset[str]], what: str, before: str, after: str) -> None:
    if after not in table.get(before, frozenset()):
        message = f"A {what} cannot go from {before or 'nothing'} to {after}."
        raise FailureError(
            Failure(code="STATE_CONFLICT", message=message, tier=1, component="schedule", operation="transition")
        )
