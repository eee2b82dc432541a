"""What must hold of each schedule by itself, and between schedules and the swarms that they made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime import wire
from tierflow_runtime.names import EnumNames

from tierflow_testing.auditing.reading import History
from tierflow_testing.auditing.report import Report
from tierflow_testing.auditing.runs import check_owner, check_row, check_sequence, state_of
from tierflow_testing.auditing.swarms import SwarmSummary

_STATES = EnumNames(pb.ScheduleState.items())
_FIRINGS = EnumNames(pb.FiringState.items())
_NEXT: Mapping[str, frozenset[str]] = {
    "": frozenset(("WAITING", "REQUESTED", "SKIPPED")),
    "WAITING": frozenset(("REQUESTED", "SKIPPED")),
    "REQUESTED": frozenset(("STARTED", "DELAYED", "REFUSED")),
    "DELAYED": frozenset(("REQUESTED", "SKIPPED", "REFUSED")),
    "STARTED": frozenset(("CANCELLING", "ENDED")),
    "CANCELLING": frozenset(("ENDED",)),
    "ENDED": frozenset(("ENDED",)),
}


@dataclass(slots=True)
class ScheduleSummary:
    """A schedule, in short."""

    id: str
    firings: dict[str, str] = field(default_factory=dict)
    """By firing: its state."""
    swarms: dict[str, str] = field(default_factory=dict)
    """By the request id of a firing's swarm: the swarm."""
    tenant: str = ""


def check_schedule(history: History, now: int, report: Report) -> ScheduleSummary:
    """Checks one schedule: its events, and its row against them. `now` in microseconds."""
    events = history.events
    report.counts["schedules"] += 1
    report.counts["events"] += len(events)
    check_sequence(history, report)
    summary = ScheduleSummary(history.id)
    for event in events:
        _apply(summary, event, report)
    first = "PAUSED" if events and events[0].schedule_created.paused else "ACTIVE"
    last = state_of(events, "schedule_state_changed", "schedule_state_changed", _STATES, first)
    over = [event for event in events if event.schedule_state_changed.to in (pb.SCHEDULE_STATE_ENDED, pb.SCHEDULE_STATE_DELETED)]  # fmt: skip
    report.expect(len(over) <= 1, "a schedule ended twice (V1)", history.id)
    check_row(history, last, wire.micros(over[-1].time) if over else None, report)
    check_owner(history, now, asleep=frozenset(("PAUSED", "ACTIVE")), report=report)
    return summary


def _apply(summary: ScheduleSummary, event: event_pb2.Event, report: Report) -> None:
    kind = event.WhichOneof("payload")
    where = f"{summary.id} at event {event.seq}"
    report.expect((kind == "schedule_created") == (event.seq == 1), "a schedule's first event (V3)", f"{where}: {kind}")
    if kind == "schedule_created":
        summary.tenant = event.schedule_created.tenant
    elif kind == "backfill_requested":
        summary.firings.update(dict.fromkeys(event.backfill_requested.firing_ids, "WAITING"))
    elif kind == "firing_changed":
        firing = event.firing_changed.firing
        before, after = summary.firings.get(firing.firing_id, ""), _FIRINGS.name(firing.state)
        wrong = "a move that the table does not have (C2)"
        report.expect(
            after in _NEXT.get(before, frozenset()), wrong, f"{where}: {firing.firing_id}, {before} to {after}"
        )
        summary.firings[firing.firing_id] = after
        if firing.swarm_id:
            request = f"schedule/{summary.id}/{firing.firing_id}"
            known = summary.swarms.setdefault(request, firing.swarm_id)
            report.expect(known == firing.swarm_id, "two swarms of one firing (R8)", f"{where}: {firing.firing_id}")


def compare_schedules(
    schedules: Mapping[str, ScheduleSummary], swarms: Mapping[str, SwarmSummary], report: Report
) -> None:
    """Each firing that made a swarm has that swarm, and each swarm of a schedule is a firing's (R8, R28)."""
    made: dict[tuple[str, str], str] = {}
    for swarm in swarms.values():
        if swarm.request_id.startswith("schedule/"):
            report.counts["swarms_of_schedules"] += 1
            other = made.setdefault((swarm.tenant, swarm.request_id), swarm.id)
            report.expect(
                other == swarm.id, "two swarms of one firing (R8)", f"{swarm.request_id}: {swarm.id}, {other}"
            )
            _known(swarm, schedules, report)
    for schedule in schedules.values():
        for request, swarm_id in schedule.swarms.items():
            found = made.get((schedule.tenant, request))
            report.expect(found == swarm_id, "a firing without its swarm (R28)", f"{request}: {swarm_id}, {found}")


def _known(swarm: SwarmSummary, schedules: Mapping[str, ScheduleSummary], report: Report) -> None:
    schedule_id, _, firing_id = swarm.request_id.removeprefix("schedule/").partition("/")
    schedule = schedules.get(schedule_id)
    if schedule is not None:  # Else a client has chosen such a request id, or the schedule is forgotten.
        report.expect(firing_id in schedule.firings, "a swarm of no firing (R8)", f"{swarm.id}: {swarm.request_id}")
