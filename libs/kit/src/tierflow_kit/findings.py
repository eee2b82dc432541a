"""What lint found, and how it is shown: to people with the line it is about, to programs, to GitHub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong or suspicious, with its place. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    width: int
    severity: str
    code: str
    """Such as `endless-wait`; comments can silence it by this name."""
    path: str
    """Such as `steps.pay.with`."""
    message: str
    hint: str = ""

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def frame(finding: Finding, lines: Sequence[str]) -> str:
    """The line that a finding is about, the one before it, and a mark below."""
    gutter = len(str(finding.line))
    near = [number for number in (finding.line - 1, finding.line) if 0 < number <= len(lines)]
    shown = [f"{number:>{gutter}} | {_visible(lines[number - 1])}".rstrip() for number in near]
    line = lines[finding.line - 1] if finding.line <= len(lines) else ""
    width = max(1, min(finding.width, len(line) - finding.column + 1))
    shown.append(f"{' ' * gutter} | {' ' * (finding.column - 1)}{'^' * width}")
    if finding.hint:
        shown.append(f"{' ' * gutter} = {finding.hint}")
    return "\n".join(shown)


def _visible(line: str) -> str:
    return line.replace("\t", " ")[:200]


def github(finding: Finding) -> str:
    """An annotation for GitHub's checks."""
    level = {"error": "error", "warning": "warning", "note": "notice"}[finding.severity]
    end = finding.column + finding.width
    where = (
        f"file={_property(finding.file)},line={finding.line},col={finding.column},endColumn={end},title={finding.code}"
    )
    message = f"{finding.message}; {finding.hint}" if finding.hint else finding.message
    return f"::{level} {where}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
