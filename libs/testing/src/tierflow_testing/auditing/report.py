"""What an audit found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOST_SHOWN = 50
"""Problems of one kind that are printed; all are counted."""


@dataclass(slots=True)
class Report:
    """Problems, one text each, and what was counted. An audit without problems is `ok`."""

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _of_kind: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self._of_kind

    def problem(self, kind: str, text: str) -> None:
        """Notes that something does not hold. `kind` says what is broken, with the rule; `text` where and how."""
        self._of_kind[kind] += 1
        if self._of_kind[kind] <= MOST_SHOWN:
            self.problems.append(f"{kind}: {text}")

    def expect(self, holds: bool, kind: str, text: str) -> None:
        """A problem, unless it holds."""
        if not holds:
            self.problem(kind, text)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "problems": self.problems,
            "problems_by_kind": dict(self._of_kind),
            "counts": dict(sorted(self.counts.items())),
        }

    def __str__(self) -> str:
        lines = [f"  {name:<28} {number}" for name, number in sorted(self.counts.items())]
        if self.ok:
            return "\n".join(["Everything holds.", *lines])
        more = sum(self._of_kind.values()) - len(self.problems)
        shown = [f"  {text}" for text in self.problems] + ([f"  and {more} more"] if more else [])
        return "\n".join([f"{sum(self._of_kind.values())} problems:", *shown, "Counted:", *lines])
