"""What must hold of each run by itself (docs/invariants.md), and what is kept of it for the comparison with its swarm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from types import SimpleNamespace
from typing import Any

from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime import wire
from tierflow_runtime.values import NO_USAGE, Usage

from tierflow_testing.auditing.budgets import Limits, limits_of, spent_of
from tierflow_testing.auditing.reading import History
from tierflow_testing.auditing.report import Report
from tierflow_testing.history import check_history

ENDED = frozenset(("COMPLETED", "FAILED", "CANCELLED"))
STUCK_AFTER = 30_000_000
"""Microseconds after which nobody having taken an entity is no longer a passing moment."""


@dataclass(frozen=True, slots=True)
class End:
    """How an entity ended, as far as another tier must say the same."""

    state: str
    outcome: str
    output: bytes
    failure: bytes
    usage: Usage


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run, in short."""

    id: str
    swarm_id: str
    generation: int
    end: End | None
    unacknowledged: bool
    tombstone: bool
    attempt_id: str = ""
    """Of a run that a step of another stands for: the attempt that it is."""
    children: Mapping[str, str] = field_of(default_factory=dict)
    """By id of a run that a step asked for: the attempt that it is."""
    allocation: Limits = field_of(default_factory=dict)
    grants: Mapping[str, Limits] = field_of(default_factory=dict)
    """By id of such a run: what it may spend, where that was said."""
    booked: Mapping[str, Mapping[str, int]] = field_of(default_factory=dict)
    """By id of such a run: what was booked for it once it had completed."""


def end_of(message: Any) -> End:
    """How a RunEnded, RunFinished or SwarmEnded message says that it ended; states by their number where the message is a run's."""
    state = message.state if hasattr(message, "state") else message.to
    return End(
        state=wire.RUN_STATES.name(state),
        outcome=wire.OUTCOMES.name(message.outcome),
        output=message.output.SerializeToString(deterministic=True),
        failure=_told(message.failure).SerializeToString(deterministic=True),
        usage=wire.usage_from_proto(message.usage) if message.HasField("usage") else NO_USAGE,
    )


def _told(failure: failure_pb2.Failure) -> failure_pb2.Failure:
    """A failure as other tiers are told of it: details stay in the journal of the tier that has them."""
    told = failure_pb2.Failure()
    told.CopyFrom(failure)
    within = told
    while True:
        within.ClearField("detail")
        if not within.HasField("cause"):
            return told
        within = within.cause


def _children_of(events: Sequence[event_pb2.Event]) -> dict[str, str]:
    """By id of a run that a step asked for: the attempt that it is."""
    scheduled = (event.step_scheduled for event in events if event.HasField("step_scheduled"))
    return {each.child_run_id: each.attempt_id for each in scheduled if each.child_run_id}


def _grants_of(events: Sequence[event_pb2.Event]) -> dict[str, Limits]:
    """By id of a run that a step asked for: what it was granted, where that was said."""
    scheduled = (event.step_scheduled for event in events if event.HasField("step_scheduled"))
    return {
        each.child_run_id: limits_of(each.grant) for each in scheduled if each.child_run_id and each.HasField("grant")
    }


def _booked_of(events: Sequence[event_pb2.Event], children: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """By id of a run that a step asked for: what was booked for it once it had completed."""
    runs = {attempt: child for child, attempt in children.items()}
    done = (event.step_completed for event in events if event.HasField("step_completed"))
    return {runs[each.attempt_id]: spent_of(each.usage) for each in done if each.attempt_id in runs}


def check_run(history: History, flows: Mapping[str, Mapping[str, Any]], now: int, report: Report) -> RunSummary:
    """Checks one run: its events, and its row against them. `flows` has for each flow's hash its `shape_of`; `now` in microseconds."""
    row, events = history.row, history.events
    created = _creation_of(events)
    report.counts["runs"] += 1
    count_events(events, report)
    check_sequence(history, report)
    _check_invariants(history, flows.get(created.flow.hash, {}), report)
    end = _check_ends(history, report)
    last = state_of(events, "run_state_changed", "run_ended", wire.RUN_STATES, "QUEUED")
    check_row(history, last, None if end is None else wire.micros(end.time), report)
    children = _children_of(events)
    # Who has asked for runs of other flows sleeps while they run.
    asleep = ("SUSPENDED", "PAUSED", "RUNNING") if children else ("SUSPENDED", "PAUSED")
    check_owner(history, now, asleep=frozenset(asleep), report=report)
    return RunSummary(
        id=history.id,
        swarm_id=created.context.swarm_id,
        generation=row["generation"],
        end=None if end is None else end_of(end.run_ended),
        unacknowledged=row["owed"],
        tombstone=not created.flow.hash,
        attempt_id=created.context.attempt_id,
        children=children,
        allocation=limits_of(created.allocation),
        grants=_grants_of(events),
        booked=_booked_of(events, children),
    )


def _creation_of(events: Sequence[event_pb2.Event]) -> event_pb2.RunCreated:
    """What the first event says of the run; an empty message where it says nothing."""
    return events[0].run_created if events and events[0].HasField("run_created") else event_pb2.RunCreated()


def _check_invariants(history: History, shape: Mapping[str, Any], report: Report) -> None:
    """The events of a run keep to the invariants of runs."""
    adapted = [(adapted_event(event), wire.micros(event.time)) for event in history.events]
    for breach in check_history(adapted, **shape, complete=history.row["ended_at"] is not None):
        report.problem("an invariant of runs is broken", f"{history.id}: {breach}")


def _check_ends(history: History, report: Report) -> event_pb2.Event | None:
    """Each generation has ended once, except the one under way. Returns the end of a run that has ended."""
    row, events = history.row, history.events
    ended = row["ended_at"] is not None
    ends = [event for event in events if event.HasField("run_ended")]
    begun = 1 + sum(event.HasField("run_state_changed") and event.run_state_changed.generation > 0 for event in events)
    report.expect(
        len(ends) == begun - int(not ended),
        "not exactly one end of each generation (V1, R31)",
        f"{history.id} is {row['state']}, has {begun} generations and {len(ends)} ends",
    )
    return ends[-1] if ends and ended else None


def count_events(events: Sequence[event_pb2.Event], report: Report) -> None:
    """Counts what is worth knowing of a run: attempts, losses, retries."""
    counts = report.counts
    counts["events"] += len(events)
    for event in events:
        kind = event.WhichOneof("payload")
        if kind == "step_scheduled":
            counts["attempts"] += 1
            counts["attempts_again"] += event.step_scheduled.epoch > 1
        elif kind == "step_completed":
            counts["steps_completed"] += 1
        elif kind == "step_retrying":
            counts["attempts_retried"] += 1
            counts["attempts_lost"] += wire.failure_from_proto(event.step_retrying.failure).code == "EXECUTOR_LOST"
        elif kind == "late_result":
            counts["late_results"] += 1
        elif kind == "tool_call_began":
            counts["tool_calls"] += 1
        elif kind == "tool_call_ended":
            counts["tool_calls_ended"] += 1
            counts["tool_calls_lost"] += event.tool_call_ended.outcome == state_pb2.TOOL_OUTCOME_LOST


def check_sequence(history: History, report: Report) -> None:
    """Sequence numbers are 1 to n without gaps, and times do not go back (R17)."""
    found = [event.seq for event in history.events]
    if found != list(range(1, len(found) + 1)):
        missing = sorted(set(range(1, max(found) + 1)) - set(found))
        report.problem(
            "sequence numbers have gaps or repeat (H18)", f"{history.id}: {len(found)}, missing {missing[:9]}"
        )
    times = [wire.micros(event.time) for event in history.events]
    report.expect(times == sorted(times), "time goes back (R17)", history.id)


def state_of(events: Sequence[event_pb2.Event], changed: str, ended: str, names: Any, first: str) -> str:
    """The state to which the events lead."""
    for event in reversed(events):
        for field in (changed, ended):
            if event.HasField(field):  # type: ignore[arg-type]  # names of fields that both have
                return str(names.name(getattr(event, field).to))
    return first


def check_row(history: History, state: str, ended_at: int | None, report: Report) -> None:
    """The entity's row says what its journal says (R6)."""
    row = history.row
    wrong = "a row and its journal disagree (R6)"
    quarantined = row["reason"] == "QUARANTINED"
    report.counts["quarantined"] += quarantined
    report.expect(not quarantined, "quarantined (R13)", history.id)
    report.expect(row["state"] == state or quarantined, wrong, f"{history.id}: {row['state']}, journal {state}")
    report.expect(row["ended_at"] == ended_at, wrong, f"{history.id}: ended_at {row['ended_at']}, journal {ended_at}")
    seq = history.events[-1].seq if history.events else 0
    # The row is touched only when something in it changes: it may lag behind the journal, except at the end.
    report.expect(
        row["seq"] == seq or (ended_at is None and row["seq"] < seq), wrong, f"{history.id}: seq {row['seq']}, {seq}"
    )


def check_owner(history: History, now: int, asleep: frozenset[str], report: Report) -> None:
    """Who has ended has no owner; who has none is asleep with a reason to wake, or about to be taken."""
    row = history.row
    if row["ended_at"] is not None:
        report.expect(row["owner"] is None, "ended and still owned (R15)", history.id)
        return
    report.counts["open"] += 1
    if row["owner"] is not None or row["reason"] == "QUARANTINED":
        return
    report.counts["parked"] += 1
    if row["wake_at"] is None:
        report.expect(
            row["state"] in asleep, "nobody owns it and nothing wakes it (R15)", f"{history.id}: {row['state']}"
        )
    else:
        late = now - row["wake_at"]
        report.expect(late < STUCK_AFTER, "due, and nobody takes it (R15)", f"{history.id}: for {late / 1e6:.0f} s")


# --- events as the history checker reads them ---


def _class(name: str) -> type[SimpleNamespace]:
    return type(name, (SimpleNamespace,), {})


def _failure(message: Any) -> Any:
    return wire.failure_from_proto(message.failure) if message.HasField("failure") else None


def _moved(message: Any, event: event_pb2.Event) -> dict[str, Any]:
    from_, to = wire.RUN_STATES.name(getattr(message, "from")), wire.RUN_STATES.name(message.to)
    return {
        "from_": from_,
        "to": to,
        "generation": getattr(message, "generation", 0),
        "reset_steps": tuple(getattr(message, "reset_steps", ())),
    }


def _ended(message: Any, event: event_pb2.Event) -> dict[str, Any]:
    return {
        **_moved(message, event),
        "outcome": wire.OUTCOMES.name(message.outcome),
        "failure": _failure(message),
        "usage": wire.usage_from_proto(message.usage),
    }


def _created(message: Any, event: event_pb2.Event) -> dict[str, Any]:
    return {
        "context": wire.context_from_proto(message.context),
        "allocation": wire.allocation_from_proto(message.allocation),
    }


def _budgeted(message: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """What was granted or charged; None where nothing was."""
    readers: dict[str, Callable[[Any], Any]] = {
        "grant": wire.allocation_from_proto,
        "charged": wire.usage_from_proto,
    }
    return {
        name: read(getattr(message, name)) if message.HasField(name) else None
        for name, read in readers.items()
        if name in found
    }


def _of_step(message: Any, event: event_pb2.Event) -> dict[str, Any]:
    found: dict[str, Any] = {"step_id": event.step_id, "attempt": event.attempt}
    for field in message.DESCRIPTOR.fields:
        found[field.name] = getattr(message, field.name)
    if "usage" in found:
        found["usage"] = wire.usage_from_proto(message.usage)
    found |= _budgeted(message, found)
    if "failure" in found:
        found["failure"] = _failure(message)
    if "next_attempt_at" in found:
        found["next_attempt_at"] = wire.micros(message.next_attempt_at)
    if "until" in found:
        found["until"] = wire.micros(message.until) if message.HasField("until") else None
    return found


_SPECIAL: Mapping[str, Callable[[Any, event_pb2.Event], dict[str, Any]]] = {
    "run_created": _created,
    "run_state_changed": _moved,
    "run_ended": _ended,
    "run_updated": lambda message, event: {"allocation": wire.allocation_from_proto(message.allocation)},
}
_CLASSES = {
    field.name: _class("".join(part.title() for part in field.name.split("_")))
    for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
}


def adapted_event(event: event_pb2.Event) -> Any:
    """A stored event with the class name and the attributes that `check_history` looks for."""
    kind = event.WhichOneof("payload")
    if kind is None:
        return _class("Nothing")()
    return _CLASSES[kind](**_SPECIAL.get(kind, _of_step)(getattr(event, kind), event))
