"""Moments as people write them (RFC 3339, such as `2030-01-31T08:00:00Z`), as integer microseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_moment(text: str) -> int:
    """The microseconds since the epoch; raises `ValueError` where it is no moment or says no time zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} is no moment; write one with a time zone, such as 2030-01-31T08:00:00Z")
    try:
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise ValueError(f"{text[:40]!r} is out of range") from None
