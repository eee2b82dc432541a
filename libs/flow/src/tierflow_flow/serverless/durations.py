"""Durations as the DSL writes them: ISO 8601, or an object of days, hours and so on."""

from __future__ import annotations

import re
from typing import Any, Final

from tierflow_flow.limits import MAX_RUN_TIMEOUT

_ISO: Final = re.compile(
    r"P(?!$)(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?(?:T(?=\d)(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)
_ISO_UNITS: Final = (604_800_000_000, 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000)
_UNITS: Final = {
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "minutes": 60_000_000,
    "seconds": 1_000_000,
    "milliseconds": 1_000,
}


def micros_of(value: Any) -> int:
    """The microseconds of a duration. Raises `ValueError`."""
    if isinstance(value, dict):
        total = _of_parts(value)
    elif isinstance(value, str) and len(value) <= 100 and (match := _ISO.fullmatch(value)):
        total = round(sum(float(part) * unit for part, unit in zip(match.groups(), _ISO_UNITS, strict=True) if part))
    else:
        raise ValueError(
            "is no duration: write PT30S, or an object such as {seconds: 30}; years and months have no fixed length"
        )
    if not 0 <= total <= MAX_RUN_TIMEOUT:
        raise ValueError(f"is longer than {MAX_RUN_TIMEOUT // 86_400_000_000} days")
    return total


def _of_parts(value: dict[str, Any]) -> int:
    total = 0
    for name, number in value.items():
        if name not in _UNITS:
            raise ValueError(f"has the key {name!r}; a duration has {', '.join(_UNITS)}")
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ValueError(f"has {name} that are no whole number")
        total += number * _UNITS[name]
    if not value:
        raise ValueError("is an empty object")
    return total
