"""A promised figure, what was measured, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement against its bound.

    Attributes:
        rows: Capabilities that promise it, such as `P2`.
        what: What is measured, and how.
        measured: The figure.
        bound: What it must not exceed; or must reach, where `least`.
        unit: Of both.
        least: Whether the bound is the least that counts, not the most.
    """

    rows: str
    what: str
    measured: float
    bound: float
    unit: str
    least: bool = False

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        return self.measured >= self.bound if self.least else self.measured <= self.bound


def table(figures: Sequence[Figure]) -> str:
    """All of them as Markdown."""
    lines = ["| Row | What | Promised | Measured | Kept |", "|---|---|---|---|---|"]
    for each in figures:
        sign = "≥" if each.least else "≤"
        kept = "yes" if each.kept else "**no**"
        lines.append(
            f"| {each.rows} | {each.what} | {sign} {each.bound:g} {each.unit} | {each.measured:g} {each.unit} | {kept} |"
        )
    return "\n".join(lines)
