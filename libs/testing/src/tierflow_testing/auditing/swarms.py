"""What must hold of each swarm by itself, and between swarms, their request ids and their runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime import wire
from tierflow_runtime.values import NO_USAGE, Usage

from tierflow_testing.auditing.budgets import SwarmPurse, compare_bills, compare_grants
from tierflow_testing.auditing.plans import check_plan
from tierflow_testing.auditing.reading import History
from tierflow_testing.auditing.report import Report
from tierflow_testing.auditing.runs import End, RunSummary, check_owner, check_row, check_sequence, end_of, state_of

_MOVES: Mapping[str, frozenset[str]] = {
    "STARTING": frozenset(("RUNNING", "PAUSING", "STOPPING")),
    "RUNNING": frozenset(("IDLE", "PAUSING", "STOPPING")),
    "IDLE": frozenset(("RUNNING", "PAUSED", "STOPPING")),
    "PAUSING": frozenset(("PAUSED", "STARTING", "RUNNING", "STOPPING")),
    "PAUSED": frozenset(("STARTING", "RUNNING", "IDLE", "STOPPING")),
    "STOPPING": frozenset(),
    "FAILED": frozenset(("STARTING", "RUNNING")),
}
_SHARED = frozenset(("context_updated", "blackboard_changed", "context_checkpointed", "context_restored"))
_ENDS = frozenset(("STOPPED", "COMPLETED", "FAILED", "TERMINATED"))
_END_OF_RUN = {"COMPLETED": "COMPLETED", "FAILED": "FAILED", "CANCELLED": "STOPPED"}


@dataclass(slots=True)
class SwarmSummary:
    """A swarm, in short."""

    id: str
    tenant: str = ""
    request_id: str = ""
    state: str = ""
    runs: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    finished: dict[str, End] = field(default_factory=dict)
    end_state: str = ""
    end_outcome: str = ""
    end_usage: Usage = NO_USAGE
    revision: int = 1
    """Of what it shares."""
    planned: bool = False
    """It has a plan of several runs: how it ends is not what one of them says."""
    purse: SwarmPurse = field(default_factory=SwarmPurse)


def check_swarm(history: History, now: int, report: Report) -> SwarmSummary:
    """Checks one swarm: its events, and its row against them. `now` in microseconds."""
    row, events = history.row, history.events
    report.counts["swarms"] += 1
    report.counts["events"] += len(events)
    check_sequence(history, report)
    summary = SwarmSummary(history.id)
    for event in events:
        _apply(summary, event, report)
        summary.purse.apply(event, f"{summary.id} at event {event.seq}", report)
        if event.WhichOneof("payload") in _SHARED:
            _share(summary, event, report)
    ends = [event for event in events if event.HasField("swarm_ended")]
    ended = row["ended_at"] is not None
    begun = _generations(events, planned=summary.planned)
    check_plan(history.id, events, report)
    report.expect(
        len(ends) == begun - int(not ended),
        "not exactly one end of each generation (V1, R31)",
        f"{history.id} is {row['state']}, has {begun} generations and {len(ends)} ends",
    )
    last = state_of(events, "swarm_state_changed", "swarm_ended", wire.SWARM_STATES, "STARTING")
    check_row(history, last, wire.micros(ends[-1].time) if ends and ended else None, report)
    # A swarm that rests is found by its id, by commands and by its run's end alike (R14, R28).
    check_owner(history, now, asleep=frozenset(("PAUSED", "RUNNING")), report=report)
    return summary


def _generations(events: Sequence[event_pb2.Event], *, planned: bool) -> int:
    """How many have begun: those of its run; or with several runs, its own."""
    if planned:
        return 1 + sum(_reopens(event) for event in events)
    return max([1, *(event.run_requested.generation for event in events if event.HasField("run_requested"))])


def _apply(summary: SwarmSummary, event: event_pb2.Event, report: Report) -> None:
    kind = event.WhichOneof("payload")
    where = f"{summary.id} at event {event.seq}"
    report.expect((kind == "swarm_created") == (event.seq == 1), "a swarm's first event (V3)", f"{where}: {kind}")
    if summary.end_state == "FAILED" and _reopens(event):
        summary.end_state = ""
    report.expect(not summary.end_state, "an event after the end (V1)", f"{where}: {kind}")
    if kind == "swarm_created":
        context = event.swarm_created.context
        summary.tenant, summary.request_id, summary.state = context.tenant, context.request_id, "STARTING"
        summary.planned = bool(event.swarm_created.plan)
        report.expect(context.swarm_id == summary.id, "a swarm with another's id (L2)", where)
    elif kind == "swarm_state_changed":
        _move(summary, event.swarm_state_changed, _MOVES.get(summary.state, frozenset()), where, report)
    elif kind == "run_requested":
        summary.runs.append(event.run_requested.run_id)
        summary.finished.pop(event.run_requested.run_id, None)
    elif kind == "run_taken":
        summary.taken.add(event.run_taken.run_id)
    elif kind == "run_finished":
        run_id = event.run_finished.run_id
        report.expect(run_id in summary.runs, "a run ended that was never asked for (R28)", f"{where}: {run_id}")
        report.expect(run_id not in summary.finished, "a run ended twice (R28)", f"{where}: {run_id}")
        summary.finished[run_id] = end_of(event.run_finished)
    elif kind == "swarm_ended":
        ended = event.swarm_ended
        _move(summary, ended, _ENDS, where, report)
        summary.end_state = summary.state
        summary.end_outcome = wire.OUTCOMES.name(ended.outcome)
        summary.end_usage = wire.usage_from_proto(ended.usage) if ended.HasField("usage") else NO_USAGE


def _share(summary: SwarmSummary, event: event_pb2.Event, report: Report) -> None:
    """Each change makes the next revision; a checkpoint is of the present one."""
    kind, where = event.WhichOneof("payload") or "", f"{summary.id} at event {event.seq}"
    message = getattr(event, kind)
    revision = message.context.revision if kind == "context_updated" else message.revision
    meant = summary.revision + (kind != "context_checkpointed")
    report.expect(
        revision == meant, "what a swarm shares changed out of order (U9)", f"{where}: {revision}, not {meant}"
    )
    summary.revision = revision
    for change in message.changes if kind == "blackboard_changed" else ():
        report.expect(
            change.previous_version < revision, "a key's version was there before (U9)", f"{where}: {change.key}"
        )


def _reopens(event: event_pb2.Event) -> bool:
    """Whether it begins the next generation (R31)."""
    return event.HasField("command_received") and event.command_received.command == "retry"


def _move(
    summary: SwarmSummary,
    message: event_pb2.SwarmStateChanged | event_pb2.SwarmEnded,
    allowed: frozenset[str],
    where: str,
    report: Report,
) -> None:
    before, after = wire.SWARM_STATES.name(getattr(message, "from")), wire.SWARM_STATES.name(message.to)
    known = before == summary.state and after in allowed and summary.state in _MOVES
    report.expect(known, "a move that the table does not have (C2)", f"{where}: {summary.state}, {before} to {after}")
    summary.state = after


def compare(swarms: Mapping[str, SwarmSummary], runs: Mapping[str, RunSummary], report: Report) -> None:
    """What swarms and runs say of each other (R28)."""
    asked = {run_id: swarm for swarm in swarms.values() for run_id in swarm.runs}
    children = {child: attempt for run in runs.values() for child, attempt in run.children.items()}
    for run in runs.values():
        if run.attempt_id:
            report.expect(children.get(run.id) == run.attempt_id, "a run that no step asked for (E12)", run.id)
        else:
            _compare_run(run, asked.get(run.id), report)
    for swarm in swarms.values():
        _compare_swarm(swarm, runs, report)
    compare_grants(asked, runs, report)
    compare_bills(runs, report)


def _compare_run(run: RunSummary, swarm: SwarmSummary | None, report: Report) -> None:
    if swarm is None:
        report.problem("a run that no swarm asked for (R28)", f"{run.id} of {run.swarm_id or 'nobody'}")
        return
    if run.tombstone:
        report.counts["tombstones"] += 1
        report.expect(run.id not in swarm.taken, "a tombstone that was taken (R29)", run.id)
        return
    report.expect(run.swarm_id == swarm.id, "a run of another swarm (R28)", f"{run.id}: {run.swarm_id}, {swarm.id}")
    if run.end is None:
        early = swarm.end_state not in ("", "TERMINATED")
        report.expect(not early, "a swarm ended before its run (G4)", f"{swarm.id} {swarm.end_state}, {run.id}")
        return
    told = swarm.finished.get(run.id)
    if told is not None:
        report.expect(told == run.end, "a run's end was told wrongly (F23)", f"{run.id}: {run.end}, told {told}")
    elif not run.unacknowledged:
        report.expect(swarm.end_state == "TERMINATED", "acknowledged and not stored (R28)", f"{run.id} of {swarm.id}")


def _compare_swarm(swarm: SwarmSummary, runs: Mapping[str, RunSummary], report: Report) -> None:
    for run_id in (*swarm.taken, *swarm.finished):
        report.expect(run_id in runs, "a run that was taken does not exist (R28)", f"{run_id} of {swarm.id}")
    if not swarm.end_state:
        return
    total = NO_USAGE
    for end in swarm.finished.values():
        total = total.plus(end.usage)
        expected = _END_OF_RUN[end.state]
        if swarm.end_state != "TERMINATED" and not swarm.planned:
            same = (swarm.end_state, swarm.end_outcome) == (expected, end.outcome)
            report.expect(
                same, "a swarm ended otherwise than its run (F23)", f"{swarm.id}: {swarm.end_state}, {expected}"
            )
    report.expect(
        swarm.end_usage == total,
        "a swarm's usage is not that of its runs (D4)",
        f"{swarm.id}: {swarm.end_usage}, {total}",
    )


def check_requests(rows: list[tuple[str, str, str]], swarms: Mapping[str, SwarmSummary], report: Report) -> None:
    """Every request id is one swarm's, and every swarm that came with one has it (A14, R8). Rows: tenant, request id, entity."""
    report.counts["requests"] += len(rows)
    stored = {(tenant, request_id): entity_id for tenant, request_id, entity_id in rows}
    for (tenant, request_id), entity_id in stored.items():
        report.expect(entity_id in swarms, "a request id of no swarm (R8)", f"{tenant}/{request_id}: {entity_id}")
    used = Counter((swarm.tenant, swarm.request_id) for swarm in swarms.values() if swarm.request_id)
    for (tenant, request_id), times in used.items():
        report.expect(times == 1, "a request id of several swarms (A14)", f"{tenant}/{request_id}: {times}")
    for swarm in swarms.values():
        if swarm.request_id:
            found = stored.get((swarm.tenant, swarm.request_id))
            report.expect(found == swarm.id, "a swarm without its request id (R8)", f"{swarm.id}: {swarm.request_id}")
