"""Durations as people write them (`500ms`, `30s`, `1h30m`), as integer microseconds."""

from __future__ import annotations

import re

UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
PATTERN = r"^([0-9]{1,18}(\.[0-9]{1,6})?(us|ms|s|m|h|d))+$"
"""As in the published schema."""

_WHOLE = re.compile(PATTERN, re.ASCII)
_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(us|ms|s|m|h|d)", re.ASCII)


def parse_duration(text: str) -> int:
    """The microseconds that `text` stands for; raises `ValueError` where it is no duration or finer than a microsecond."""
    if len(text) > 100 or not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no duration; write a number and a unit, such as 500ms, 30s, 10m or 1h30m")
    total = 0
    for whole, fraction, unit in _PART.findall(text):
        total += int(whole) * UNITS[unit]
        if fraction:
            micros, rest = divmod(int(fraction) * UNITS[unit], 10 ** len(fraction))
            if rest:
                raise ValueError(f"{text!r} is finer than a microsecond")
            total += micros
    return total


def canonical_duration(micros: int) -> str:
    """The one form in which canonical definitions write a duration."""
    return f"{micros}us"
