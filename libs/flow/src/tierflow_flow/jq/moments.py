"""Functions of jq on moments. `now` is the moment that the evaluation was given, never a clock."""

from __future__ import annotations

import calendar
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from tierflow_flow.jq.errors import JqError
from tierflow_flow.jq.values import is_number, normal, shown

if TYPE_CHECKING:
    from tierflow_flow.jq.evaluate import Evaluation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now(ev: Evaluation, value: Any) -> Any:
    """`now`."""
    if ev.now is None:
        raise JqError("the time is not known here")
    return normal(ev.now)


def gmtime(ev: Evaluation, value: Any) -> list[Any]:
    """`gmtime`: seconds since the epoch to their parts."""
    return _parts(_moment(value), value)


def _moment(value: Any) -> datetime:
    if not is_number(value) or not math.isfinite(value):
        raise JqError(f"{shown(value)} is no moment: a number is required")
    try:
        return _EPOCH + timedelta(seconds=math.floor(value))
    except OverflowError:
        raise JqError(f"{shown(value)} is out of range") from None


def _parts(moment: datetime, value: Any = 0) -> list[Any]:
    seconds = moment.second + (value - math.floor(value) if is_number(value) else 0)
    day = moment.timetuple()
    return [moment.year, moment.month - 1, moment.day, moment.hour, moment.minute, normal(seconds), (day.tm_wday + 1) % 7, day.tm_yday - 1]  # fmt: skip


def mktime(ev: Evaluation, value: Any) -> int:
    """`mktime`: parts to seconds since the epoch."""
    if not isinstance(value, list) or len(value) < 6 or not all(map(is_number, value)):
        raise JqError("mktime requires array of 6 numbers")
    year, month, day, hour, minute, second = (math.floor(part) for part in value[:6])
    try:
        return calendar.timegm((year, month + 1, day, hour, minute, second))
    except (ValueError, OverflowError):
        raise JqError("mktime: not a moment") from None


def strftime(ev: Evaluation, value: Any, form: Any) -> str:
    """`strftime(format)`."""
    moment = _EPOCH + timedelta(seconds=mktime(ev, value)) if isinstance(value, list) else _moment(value)
    if not isinstance(form, str) or len(form) > 200:
        raise JqError("strftime/1 requires a string format")
    return moment.strftime(form)


def strptime(ev: Evaluation, value: Any, form: Any) -> list[Any]:
    """`strptime(format)`."""
    if not isinstance(value, str) or not isinstance(form, str) or len(form) > 200 or len(value) > 200:
        raise JqError("strptime/1 requires string inputs and arguments")
    try:
        return _parts(datetime.strptime(value, form).replace(tzinfo=UTC))
    except ValueError:
        raise JqError(f'date "{value}" does not match format "{form}"') from None


MOMENTS: Final[Mapping[tuple[str, int], Callable[..., Any]]] = {
    ("now", 0): now,
    ("gmtime", 0): gmtime,
    ("mktime", 0): mktime,
    ("strftime", 1): strftime,
    ("strptime", 1): strptime,
}
