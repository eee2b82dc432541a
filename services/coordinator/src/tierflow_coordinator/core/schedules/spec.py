"""What a schedule is to do, as data. Durations and moments in microseconds."""

from __future__ import annotations

from typing import Final

import msgspec
from tierflow_runtime.values import Micros

SKIP: Final = "SKIP"
BUFFER_ONE: Final = "BUFFER_ONE"
BUFFER_ALL: Final = "BUFFER_ALL"
CANCEL_RUNNING: Final = "CANCEL_RUNNING"
ALLOW: Final = "ALLOW"
POLICIES: Final = (SKIP, BUFFER_ONE, BUFFER_ALL, CANCEL_RUNNING, ALLOW)
"""What may become of a time while a swarm of an earlier one is at work."""

SECOND: Final[Micros] = 1_000_000
DAY: Final[Micros] = 86_400 * SECOND
CATCH_UP: Final[Micros] = DAY
"""So much later a time still fires, where the schedule does not say."""
MAX_WAITING: Final = 100
"""So many times wait at most, where the schedule does not say."""


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When it fires, and how. What it makes is opaque here: a serialised `SwarmTemplate`."""

    cron: tuple[str, ...] = ()
    every: Micros | None = None
    offset: Micros = 0
    time_zone: str = "UTC"
    start_at: Micros | None = None
    end_at: Micros | None = None
    jitter: Micros = 0
    overlap: str = SKIP
    max_waiting: int = MAX_WAITING
    catch_up: Micros = CATCH_UP
    pause_after_failures: int = 0
    max_firings: int = 0
    swarm: bytes = b""
    description: str = ""
