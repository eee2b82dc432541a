"""Gathers what is wrong with a flow, so that all of it can be told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from tierflow_expressions.hints import nearest

from tierflow_flow.definition import FlowError, Problem
from tierflow_flow.limits import MAX_PROBLEMS

Place: TypeAlias = tuple[str | int, ...]
"""Where something is in a flow's text: keys and indexes from the top."""

_MAX_HINTS = 10
_MAX_PLACE = 300
_MAX_DESCRIPTION = 600


def show_place(place: Place) -> str:
    """A place as messages write it: `steps.walk.with.files[0]`; the whole flow is `flow`."""
    shown = ""
    for part in place:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            name = part if len(part) <= 100 else part[:97] + "..."
            shown += f".{name}" if shown else name
        if len(shown) > _MAX_PLACE:
            shown = shown[:_MAX_PLACE] + "..."
            break
    return shown.replace("\x00", "\\0") or "flow"


class Problems:
    """The problems found so far, and the lines of the source."""

    def __init__(self, lines: Mapping[Place, int]) -> None:
        self._lines = lines
        self._found: list[Problem] = []
        self._count = 0
        self._hints = 0

    def add(self, place: Place, description: str) -> None:
        """Note a problem."""
        self._count += 1
        if len(description) > _MAX_DESCRIPTION:
            description = description[:_MAX_DESCRIPTION] + "..."
        if self._count <= MAX_PROBLEMS:
            self._found.append(Problem(show_place(place), description, self.line(place)))

    def hint(self, word: str, words: Iterable[str]) -> str:
        """As `nearest`, for the first few problems only: searching costs."""
        self._hints += 1
        return nearest(word, words) if self._hints <= _MAX_HINTS else ""

    def line(self, place: Place) -> int:
        """The line of the place or of the nearest thing around it; 0 where lines are not known."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 0)

    def raise_if_any(self) -> None:
        """Raise `FlowError` with everything that was found, in the order of the text."""
        if not self._found:
            return
        found = sorted(self._found, key=lambda problem: problem.line)
        if self._count > MAX_PROBLEMS:
            found.append(Problem("flow", f"{self._count - MAX_PROBLEMS} more problems"))
        raise FlowError(found)
