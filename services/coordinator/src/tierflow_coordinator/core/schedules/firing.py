"""One time of a schedule, and what has become of it."""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec
from tierflow_runtime.values import Failure, Micros

from tierflow_coordinator.core.schedules import states


class Firing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A firing as it is at one moment; what becomes of it is another value."""

    firing_id: str
    kind: str
    time: Micros
    """The time that it is for, without jitter."""
    state: str = states.NEW
    reason: str = ""
    swarm_id: str = ""
    outcome: str = ""
    failure: Failure | None = None
    fired_at: Micros | None = None
    ended_at: Micros | None = None
    retry_at: Micros | None = None
    version: int = 1
    previous: Micros | None = None
    """The time of the scheduled firing before it."""

    @property
    def running(self) -> bool:
        """Whether a swarm is being made or at work."""
        return self.state in states.RUNNING

    @property
    def over(self) -> bool:
        """Whether nothing becomes of it any more."""
        return self.state in states.FIRING_OVER

    @property
    def failed(self) -> bool:
        """Whether its swarm failed, or was refused."""
        return self.state == states.REFUSED or self.outcome == "FAILURE"


def triggered_id(command_id: str) -> str:
    """The id of a firing by hand: the command's."""
    return f"trigger/{_short(command_id)}"


def backfilled_id(command_id: str, time: str) -> str:
    """The id of a firing of a backfill: the command's, and its time."""
    return f"backfill/{_short(command_id)}/{time}"


def _short(command_id: str) -> str:
    return hashlib.blake2b(command_id.encode(), digest_size=8).hexdigest()


REQUESTS: Final = "schedule/"
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def request_id(schedule_id: str, firing_id: str) -> str:
    """The request id of the firing's swarm: the same firing is the same swarm, however often it is asked for (rule R8)."""
    return f"{REQUESTS}{schedule_id}/{firing_id}"


def firing_of(request: str) -> tuple[str, str] | None:
    """The schedule and the firing of a swarm's request id; None where that is not one's."""
    if not request.startswith(REQUESTS):
        return None
    schedule_id, slash, firing_id = request[len(REQUESTS) :].partition("/")
    return (schedule_id, firing_id) if slash and firing_id and _ID.fullmatch(schedule_id) else None
