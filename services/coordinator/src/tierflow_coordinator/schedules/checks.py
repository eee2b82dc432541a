"""What is wrong with what somebody asks of schedules: everything at once, each with the path of its field (A5)."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_runtime.contract import check_swarm_request
from tierflow_runtime.contract_basics import check_not_negative, check_text, sound_duration, sound_timestamp
from tierflow_runtime.values import Failure, Micros, Violation
from tierflow_runtime.wire import micros

from tierflow_coordinator.core.schedules import states
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.schedules.spec import DAY, SECOND
from tierflow_coordinator.core.schedules.times import knows_zone, next_time, wrong_with_cron
from tierflow_coordinator.schedules.requests import check_holes, template_request, values_of
from tierflow_coordinator.schedules.wire import OVERLAPS, spec_from_proto

MOST_CRON: Final = 8
MOST_WAITING: Final = 1000
LONGEST_DESCRIPTION: Final = 2000
LONGEST_JITTER: Final[Micros] = DAY
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PATHS: Final = (
    ("input.flow.flow", "spec.swarm.flow"),
    ("input.flow.input", "spec.swarm.input"),
    ("context.", "spec.swarm."),
    ("allocation", "spec.swarm.allocation"),
    ("options", "spec.swarm.options"),
)
"""Where a template has what a request for a swarm has elsewhere."""


def check_name(name: str, found: list[Violation]) -> None:
    """A schedule's name."""
    if not name:
        found.append(Violation(field="name", description="required"))
    elif not _NAME.fullmatch(name):
        wrong = f"{name[:60]!r} is no name: up to 100 letters, digits, `-`, `_`, `.`, the first a letter or digit"
        found.append(Violation(field="name", description=wrong))


def check_spec(message: pb.ScheduleSpec, now: Micros, found: list[Violation]) -> None:
    """What a schedule is to do: when, how, and what."""
    before = len(found)
    _check_times(message, found)
    _check_numbers(message, found)
    check_text("spec.description", message.description, found, longest=LONGEST_DESCRIPTION)
    if message.overlap and not OVERLAPS.knows(message.overlap):
        found.append(
            Violation(field="spec.overlap", description=f"{message.overlap} is not one of {', '.join(OVERLAPS.names)}")
        )
    if len(found) == before:
        _check_future(message, now, found)
    _check_swarm(message, found)


def moved(failure: Failure) -> Failure:
    """A failure of admission, in the terms of a schedule."""
    return msgspec.structs.replace(
        failure,
        violations=tuple(_moved(violation) for violation in failure.violations),
        message=_moved_path(failure.message),
    )


def _check_times(message: pb.ScheduleSpec, found: list[Violation]) -> None:
    if not message.cron and not message.HasField("every"):
        found.append(Violation(field="spec", description="has no times: give cron, every, or both"))
    _check_cron(message, found)
    if message.time_zone and not knows_zone(message.time_zone):
        wrong = f"{message.time_zone[:60]!r} is no time zone; they are named such as Europe/Berlin or America/New_York"
        found.append(Violation(field="spec.time_zone", description=wrong))
    if message.HasField("every"):
        _check_every(message, found)
    elif message.HasField("offset"):
        found.append(Violation(field="spec.offset", description="moves the times of every, which is not set"))
    if message.HasField("start_at"):
        sound_timestamp("spec.start_at", message.start_at, found)
    if message.HasField("end_at"):
        sound_timestamp("spec.end_at", message.end_at, found)


def _check_cron(message: pb.ScheduleSpec, found: list[Violation]) -> None:
    if len(message.cron) > MOST_CRON:
        wrong = f"has {len(message.cron)}; at most {MOST_CRON} are allowed"
        found.append(Violation(field="spec.cron", description=wrong))
    for index, text in enumerate(message.cron[:MOST_CRON]):
        if wrong := wrong_with_cron(text[:200]):
            found.append(Violation(field=f"spec.cron[{index}]", description=f"{text[:60]!r} {wrong}"))


def _check_every(message: pb.ScheduleSpec, found: list[Violation]) -> None:
    if not sound_duration("spec.every", message.every, found):
        return
    every = micros(message.every)
    if every < SECOND:
        found.append(Violation(field="spec.every", description="is shorter than 1 s"))
    if sound_duration("spec.offset", message.offset, found) and not 0 <= micros(message.offset) < max(every, 1):
        found.append(Violation(field="spec.offset", description="is not between nothing and every"))


def _check_numbers(message: pb.ScheduleSpec, found: list[Violation]) -> None:
    for name in ("jitter", "catch_up"):
        length = getattr(message, name)
        if sound_duration(f"spec.{name}", length, found):
            check_not_negative(f"spec.{name}", micros(length), found)
    if micros(message.jitter) > LONGEST_JITTER:
        found.append(Violation(field="spec.jitter", description="is longer than one day"))
    if not 0 <= message.max_waiting <= MOST_WAITING:
        wrong = f"is {message.max_waiting}; 1 to {MOST_WAITING} are allowed, 0 is 100"
        found.append(Violation(field="spec.max_waiting", description=wrong))
    for name in ("pause_after_failures", "max_firings"):
        check_not_negative(f"spec.{name}", getattr(message, name), found)


def _check_future(message: pb.ScheduleSpec, now: Micros, found: list[Violation]) -> None:
    spec = spec_from_proto(message)
    if spec.start_at is not None and spec.end_at is not None and spec.end_at <= spec.start_at:
        found.append(Violation(field="spec.end_at", description="is not after start_at"))
    elif next_time(spec, now) is None:
        found.append(Violation(field="spec.end_at", description="leaves no time from now on: it would never fire"))


def _check_swarm(message: pb.ScheduleSpec, found: list[Violation]) -> None:
    """What each firing makes, as the request that it gives."""
    if not message.HasField("swarm"):
        found.append(Violation(field="spec.swarm", description="required: what each firing makes"))
        return
    template = message.swarm
    wrong: list[Violation] = []
    check_holes(template, "spec.swarm.input", wrong)
    unfit = {"validate_only": template.options.validate_only, "not_before": template.options.HasField("not_before")}
    wrong.extend(
        Violation(field=f"spec.swarm.options.{name}", description="is not for schedules; leave it out")
        for name, given in unfit.items()
        if given
    )
    try:
        request = template_request(template, sample_values(spec_zone(message)))
    except ValueError:
        wrong.append(Violation(field="spec.swarm.input", description="is not JSON"))
    else:
        wrong.extend(_moved(violation) for violation in check_swarm_request(request))
    found.extend(wrong)


def spec_zone(message: pb.ScheduleSpec) -> str:
    """Its time zone, where that is one."""
    return message.time_zone if message.time_zone and knows_zone(message.time_zone) else "UTC"


def sample_values(zone: str, name: str = "name") -> dict[str, str | None]:
    """What a firing stands for, of no particular time: to see whether what a schedule makes could be made."""
    schedule = Schedule(schedule_id="sample", name=name)
    schedule.spec = msgspec.structs.replace(schedule.spec, time_zone=zone)
    return values_of(schedule, Firing(firing_id="sample", kind=states.SCHEDULED, time=0, previous=0))


def _moved(violation: Violation) -> Violation:
    return msgspec.structs.replace(violation, field=_moved_path(violation.field))


def _moved_path(path: str) -> str:
    for there, here in _PATHS:
        if path.startswith(there):
            return here + path[len(there) :]
    return path


def check_range(first: Micros, last: Micros, now: Micros, found: list[Violation]) -> None:
    """The range of a backfill."""
    if last <= first:
        found.append(Violation(field="to", description="is not after from"))
    elif last > now:
        found.append(Violation(field="to", description="is in the future; a schedule fires those times by itself"))
