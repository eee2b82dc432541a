"""The bounds of one evaluation."""

from __future__ import annotations

from typing import Final

from tierflow_flow.jq.errors import JqLimit

MAX_TEXT: Final = 8_192
"""Characters of one expression."""
MAX_NESTING: Final = 40
"""Levels of an expression."""
MAX_CALLS: Final = 60
"""Calls of functions of one's own inside one another."""
MAX_STEPS: Final = 100_000
"""Steps of one evaluation: one for each node that is visited and each value that passes."""
MAX_MADE: Final = 4_000_000
"""Units of memory that one evaluation may fill: one for each item, entry and character made."""
MAX_WRITTEN: Final = 1_000_000
"""Parts of a value that is written as text, or yielded: one that has the same part at many places is written with all of them."""
MAX_LEVELS: Final = 200
"""Levels of nesting of a value that is made."""


class Budget:
    """What an evaluation may still spend."""

    __slots__ = ("made", "steps")

    def __init__(self, steps: int = MAX_STEPS, made: int = MAX_MADE) -> None:
        self.steps = steps
        self.made = made

    def step(self, count: int = 1) -> None:
        """Spends steps. Raises `JqLimit`."""
        self.steps -= count
        if self.steps < 0:
            raise JqLimit("the expression takes too many steps")

    def make(self, size: int) -> None:
        """Spends memory. Raises `JqLimit`."""
        self.made -= size
        if self.made < 0:
            raise JqLimit("the expression makes values that are too large")
