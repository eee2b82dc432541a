"""When schedules fire: turns of the clock, intervals, jitter."""

from __future__ import annotations

import itertools
import pathlib
import sys
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_coordinator.core.schedules.spec import Spec
from tierflow_coordinator.core.schedules.times import moments, next_time, wrong_with_cron

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from schedule_world import HOUR, ID, MINUTE, START, at, times


def test_clock_leaps_forward() -> None:
    """Q6: on the night when the clock leaps from 2 to 3, a time between is the first moment after, once; the hours of `*` follow each other."""
    daily = Spec(cron=("30 2 * * *",), time_zone="Europe/Berlin")
    assert times(daily, at("2024-03-30T00:00", "Europe/Berlin"), 3) == [
        "03-30 02:30 +0100", "03-31 03:00 +0200", "04-01 02:30 +0200"]  # fmt: skip
    hourly = Spec(cron=("@hourly",), time_zone="Europe/Berlin")
    assert times(hourly, at("2024-03-31T00:30", "Europe/Berlin"), 3) == [
        "03-31 01:00 +0100", "03-31 03:00 +0200", "03-31 04:00 +0200"]  # fmt: skip


def test_clock_goes_back() -> None:
    """Q6: on the night with two hours from 2 to 3, a fixed time comes once, the first of the two; the hours of `*` both come."""
    daily = Spec(cron=("30 2 * * *",), time_zone="Europe/Berlin")
    assert times(daily, at("2024-10-26T12:00", "Europe/Berlin"), 2) == ["10-27 02:30 +0200", "10-28 02:30 +0100"]
    between = at("2024-10-27T00:45")  # 02:45 for the first time
    assert times(daily, between, 1) == ["10-28 02:30 +0100"]
    in_second = at("2024-10-27T01:10")  # 02:10 for the second time
    assert times(daily, in_second, 1) == ["10-28 02:30 +0100"]
    hourly = Spec(cron=("0 * * * *",), time_zone="Europe/Berlin")
    assert times(hourly, at("2024-10-26T23:30"), 3) == ["10-27 02:00 +0200", "10-27 02:00 +0100", "10-27 03:00 +0100"]


def test_times_of_several_expressions() -> None:
    """Q6: a moment that several expressions and the interval name is one time; start and end bound them all."""
    spec = Spec(cron=("0 9 * * MON-FRI", "@daily", "0 9 13 * *"), every=12 * HOUR, start_at=at("2024-05-12T00:00"))
    spec = msgspec.structs.replace(spec, end_at=at("2024-05-14T00:00"))
    assert times(spec, 0, 20) == [
        "05-12 00:00 +0000", "05-12 12:00 +0000", "05-13 00:00 +0000", "05-13 09:00 +0000", "05-13 12:00 +0000"]  # fmt: skip


def test_intervals_are_counted_from_their_start() -> None:
    """Q6: an interval with an offset is counted from start_at, else from 1970, whatever the clock does."""
    spec = Spec(every=90 * MINUTE, offset=10 * MINUTE)
    assert next_time(spec, 0) == 10 * MINUTE
    assert next_time(spec, 10 * MINUTE) == 100 * MINUTE
    later = Spec(every=90 * MINUTE, offset=10 * MINUTE, start_at=START)
    assert next_time(later, 0) == START + 10 * MINUTE


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("* * * *", "has 4 fields"),
        ("61 * * * *", "cannot be read: bad minute"),
        ("@never", "is no nickname; there are @hourly"),
        ("0 0 30 2 *", "cannot be read: bad day-of-month"),
        ("0 0 0 * * *", "has 6 fields"),
        ("@daily", ""),
        ("*/5 9-17 * * MON-FRI", ""),
    ],
)
def test_expressions_are_checked(text: str, wrong: str) -> None:
    """Q6, A5: an expression that cannot be read, or never comes, is refused with what is wrong."""
    assert wrong_with_cron(text).startswith(wrong)
    assert bool(wrong_with_cron(text)) == bool(wrong)


zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
expressions = st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 * * 0", "15 1,2,3 * * *", "@hourly", "0 */6 1-15 * *"])


@settings(max_examples=60, deadline=None)
@given(zones, st.lists(expressions, min_size=1, max_size=3), st.integers(0, 400 * 24), st.integers(0, 3 * HOUR))
def test_times_rise_and_jitter_is_bounded(zone: str, cron: Sequence[str], hours: int, jitter: int) -> None:
    """Q6: times rise strictly over every turn of the clock; each fires at its time or up to the jitter later, before the next, always by as much."""
    spec = Spec(cron=tuple(cron), time_zone=zone, jitter=jitter)
    after = at("2024-01-01T00:00") + hours * HOUR
    found = []
    for moment in moments(spec, ID, after):
        found.append(moment)
        if len(found) == 12:
            break
    for one, other in itertools.pairwise(found):
        assert after < one.time < other.time
        assert one.time <= one.fires_at <= one.time + jitter
        assert one.fires_at < other.time
    assert next(moments(spec, ID, found[4].time)) == found[5]  # from wherever one looks


def test_jitter_spreads() -> None:
    """Q6: the same time of different schedules fires at different moments."""
    spec = Spec(cron=("@hourly",), jitter=10 * MINUTE)
    found = {next(moments(spec, f"{ID[:-2]}{n:02}", START)).fires_at for n in range(50)}
    assert len(found) > 40
