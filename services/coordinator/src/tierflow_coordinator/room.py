"""How many runs an orchestrator is believed to take (J10).

A refusal tells how much room there was; each end makes room for one; and a few are sent beyond that from time to time, more each time that they are taken,
since runs also give up their room without an end (they park), and other coordinators' runs end unheard here.
"""

from __future__ import annotations

import math
from typing import Final

PROBE_EVERY: Final = 1.0
"""Seconds between two tries beyond the room that is known."""
FIRST_STEP: Final = 4
MOST_STEP: Final = 1024


class Room:
    """How many runs one orchestrator takes: any number, until it refuses one because it is full."""

    __slots__ = ("_step", "limit")

    def __init__(self) -> None:
        self.limit: float = math.inf
        self._step = FIRST_STEP

    def refused(self, outstanding: int) -> bool:
        """It was full with so many; returns whether that is news."""
        news = self.limit == math.inf
        self.limit = float(outstanding)
        self._step = FIRST_STEP
        return news

    def probe(self) -> None:
        """Allows a few more, to see whether they are taken."""
        if self.limit < math.inf:
            self.limit += float(self._step)
            self._step = min(2 * self._step, MOST_STEP)

    def open(self) -> None:
        """Nothing is known any more: a new stream, or nobody waits."""
        self.limit = math.inf
        self._step = FIRST_STEP
