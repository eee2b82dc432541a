"""Durations as people write them: seconds, `90s`, `1h30m`, a timedelta."""

from __future__ import annotations

import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_TEXT = re.compile(r"(?:\d+(?:\.\d+)?(?:us|ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")


def microseconds(value: float | str | timedelta, field: str = "timeout") -> int:
    """A duration in microseconds.

    Args:
        value: Seconds, a text of numbers with units (us, ms, s, m, h, d), or a timedelta.
        field: What to call it in the error.

    Raises:
        InvalidRequest: It is none of these, or not positive.
    """
    from tierflow.errors import invalid

    if isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
    elif isinstance(value, str):
        if not _TEXT.fullmatch(value):
            raise invalid(field, f"{value!r} is not a duration; write for example 500ms, 30s, 15m or 1h30m")
        micros = sum(round(float(number) * _UNITS[unit]) for number, unit in _PART.findall(value))
    else:
        micros = round(value * 1_000_000)
    if micros <= 0:
        raise invalid(field, f"must be longer than nothing, not {value!r}")
    return micros


def duration(value: float | str | timedelta, field: str = "timeout") -> Duration:
    """A duration as it is sent. Takes and raises what `microseconds` does."""
    micros = microseconds(value, field)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)
