"""The times of a schedule: of cron expressions in a time zone, and of intervals.

At the turns of the clock cron is read as Debian's cron does: a fixed time that the clock leaps over is the first moment after the leap, one that comes twice is the first
of the two; what is said by `*` follows the hours as they pass. Intervals know no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from tierflow_runtime.values import Micros

from tierflow_coordinator.core.schedules.spec import SECOND, Spec

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final[Micros] = 253_370_764_800 * SECOND
"""The year 9999: no time is looked for beyond."""
_FIELDS: Final = 5


class Moment(NamedTuple):
    """A time, and when it fires: later by its jitter."""

    time: Micros
    fires_at: Micros


def wrong_with_cron(expression: str) -> str:
    """What is wrong with an expression; empty where nothing is."""
    text = expression.strip()
    if text.startswith("@"):
        return "" if text in NICKNAMES else f"is no nickname; there are {', '.join(NICKNAMES)}"
    fields = len(text.split())
    if fields != _FIELDS:
        return f"has {fields} fields; minute, hour, day of month, month and day of week are five"
    try:
        next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        return f"cannot be read: {str(error)[:1].lower()}{str(error)[1:]}"
    except StopIteration:
        return "names no moment that ever comes"
    return ""


def knows_zone(name: str) -> bool:
    """Whether there is such a time zone."""
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def next_time(spec: Spec, after: Micros) -> Micros | None:
    """The first time after a moment; None where there is none."""
    if spec.start_at is not None:
        after = max(after, spec.start_at - 1)
    found = [_next_cron(expression, spec.time_zone, after) for expression in spec.cron]
    if spec.every is not None:
        found.append(_next_interval(spec, spec.every, after))
    first = min((time for time in found if time is not None), default=None)
    return None if first is None or (spec.end_at is not None and first >= spec.end_at) else first


def next_moment(spec: Spec, schedule_id: str, after: Micros) -> Moment | None:
    """The first time after a moment, with its jitter: that follows from the schedule and the time, and never reaches the time after it."""
    time = next_time(spec, after)
    if time is None or not spec.jitter:
        return None if time is None else Moment(time, time)
    following = next_time(spec, time)
    room = spec.jitter if following is None else min(spec.jitter, following - time - 1)
    digest = hashlib.blake2b(f"{schedule_id}/{time}".encode(), digest_size=8).digest()
    return Moment(time, time + int.from_bytes(digest) % (room + 1))


def moments(spec: Spec, schedule_id: str, after: Micros) -> Iterator[Moment]:
    """The times after a moment, in order."""
    while (moment := next_moment(spec, schedule_id, after)) is not None:
        yield moment
        after = moment.time


def local(time: Micros, zone: str) -> datetime:
    """A moment as the clock of a time zone shows it."""
    return (_EPOCH + timedelta(microseconds=time)).astimezone(_zone(zone))


def text_of(time: Micros) -> str:
    """A moment in UTC, as RFC 3339 writes it, without fractions where there are none."""
    return local(time, "UTC").isoformat().replace("+00:00", "Z")


def _next_interval(spec: Spec, every: Micros, after: Micros) -> Micros:
    anchor = (spec.start_at or 0) + spec.offset
    return max(anchor, anchor + ((after - anchor) // every + 1) * every)


def _next_cron(expression: str, zone: str, after: Micros) -> Micros | None:
    if after >= _LAST:
        return None
    text = NICKNAMES.get(expression.strip(), expression.strip())
    for found in CronSim(text, local(after, zone)):
        # Around the end of summer time, the first of two equal clock times may lie before the moment from which is looked.
        time = (found.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        if time > after:
            return time
    return None


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
