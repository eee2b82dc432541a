"""Checks the history of a run: its events alone, in order, against the invariants of docs/invariants.md.

It shares no code with the core of Tier 2, so that a defect there is not a defect here. Events are told apart by the names of their classes; tests give it the
core's events, the auditor those that it has read from journals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tierflow_testing.history_approvals import ApprovalRules, Asked
from tierflow_testing.history_blocks import BlockRules, beside, blocks_of, helps, path_of
from tierflow_testing.history_budgets import BudgetRules, Purse
from tierflow_testing.history_steering import SteeringRules, StepSeen
from tierflow_testing.history_steps import StepRules
from tierflow_testing.history_tools import ToolRules

_RUN_MOVES: Mapping[str, frozenset[str]] = {
    "QUEUED": frozenset(("PREPARING", "CANCELLING", "FAILED")),
    "PREPARING": frozenset(("RUNNING", "CANCELLING", "FAILED")),
    "RUNNING": frozenset(("SUSPENDED", "PAUSING", "CANCELLING", "COMPENSATING", "COMPLETED", "FAILED")),
    "SUSPENDED": frozenset(("RUNNING", "PAUSING", "CANCELLING")),
    "PAUSING": frozenset(("PAUSED", "RUNNING", "SUSPENDED", "CANCELLING", "COMPENSATING", "COMPLETED", "FAILED")),
    "PAUSED": frozenset(("RUNNING", "SUSPENDED", "CANCELLING")),
    "CANCELLING": frozenset(("COMPENSATING", "CANCELLED", "FAILED")),
    "COMPENSATING": frozenset(("CANCELLED", "FAILED")),
}
_FINAL = frozenset(("COMPLETED", "FAILED", "CANCELLED"))
_SUMMED = ("credits", "wall_time", "cpu_time", "steps", "attempts", "tool_calls", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that does not hold: which, at which event (from 0; -1 at the end), and how."""

    invariant: str
    position: int
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} at event {self.position}: {self.text}"


@dataclass(slots=True)
class _Checker(ApprovalRules, BlockRules, BudgetRules, StepRules, SteeringRules, ToolRules):
    needs: Mapping[str, Sequence[str]] | None
    joins: Mapping[str, tuple[int, Sequence[str]]]
    blocks: Mapping[str, Sequence[str]] | None = None
    grown: dict[str, dict[str, Any]] = field(default_factory=lambda: {"needs": {}, "blocks": {}})
    state: str = ""
    opened: bool = False
    run_id: str = ""
    steps: dict[str, StepSeen] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMMED, 0))
    closed: dict[str, bool] = field(default_factory=dict)
    """By attempt id: whether its usage may still come late."""
    signals: set[str] = field(default_factory=set)
    generation: int = 1
    reopened: bool = False
    """Whether the move that follows begins a generation."""
    floor: int = 0
    """The highest epoch of earlier generations."""
    asked: dict[str, Asked] = field(default_factory=dict)
    untolerated: bool = False
    tolerated: bool = False
    cancel: bool = False
    attempts: int = 0
    most_attempts: int | None = None
    position: int = -1
    breaches: list[Breach] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    purse: Purse = field(default_factory=Purse)

    def breach(self, invariant: str, text: str) -> None:
        self.breaches.append(Breach(invariant, self.position, text))

    def expect(self, holds: bool, invariant: str, text: str) -> None:
        if not holds:
            self.breach(invariant, text)

    def event(self, event: Any, time: int) -> None:
        self.position += 1
        name = type(event).__name__
        self.expect((name == "RunCreated") == (self.position == 0), "V3", f"{name} is not in its place")
        if self.state in _FINAL and name != "LateResult" and not self.reopening(event, name):
            self.breach("V1", f"{name} after the end")
        self.look_at_budget(event)
        getattr(self, f"on_{name}", self._unknown)(event, time)

    def _unknown(self, event: Any, time: int) -> None:
        self.breach("V3", f"{type(event).__name__} is not an event of a run")

    def on_RunCreated(self, event: Any, time: int) -> None:  # noqa: N802 - named after the event
        self.state = "QUEUED"
        self.run_id = event.context.run_id
        self.generation = event.context.generation
        self.most_attempts = event.allocation.steps

    def _move(self, from_: str, to: str) -> None:
        self.expect(from_ == self.state, "V2", f"the run was {self.state}, not {from_}")
        if self.reopened:
            self.expect((from_, to) == ("FAILED", "QUEUED"), "V2", f"a generation does not begin from {from_} to {to}")
            self.state, self.reopened = to, False
            return
        self.expect(to in _RUN_MOVES.get(self.state, ()), "V2", f"a run does not go from {self.state} to {to}")
        self.state = to
        self.opened = self.opened or to == "RUNNING"

    def on_RunStateChanged(self, event: Any, time: int) -> None:  # noqa: N802
        if event.generation:
            self.reopen(event)
        self._move(event.from_, event.to)

    def on_CommandReceived(self, event: Any, time: int) -> None:  # noqa: N802
        self.cancel = self.cancel or event.command == "cancel"

    def on_SignalReceived(self, event: Any, time: int) -> None:  # noqa: N802
        self.expect(event.signal_id not in self.signals, "V16", f"signal {event.signal_id} came twice")
        self.signals.add(event.signal_id)

    def on_RunEnded(self, event: Any, time: int) -> None:  # noqa: N802
        self._move(event.from_, event.to)
        live = sorted(name for name, step in self.steps.items() if step.live)
        self.expect(not live, "V11", f"the run ended with attempts in flight: {live[:5]}")
        if self.opened and event.to != "":
            top = (self.needs or ()) if self.blocks is None else self.blocks.get("", ())
            known = set(self.steps) | set(top)
            left = sorted(name for name in known if not self._step(name).ended)
            self.expect(not left, "V11", f"the run ended before its steps {left[:5]}")
        self._check_usage(event.usage)
        self._check_verdict(event)

    def _check_usage(self, usage: Any) -> None:
        for name, total in self.used.items():
            stated = getattr(usage, name)
            self.expect(stated == total, "V10", f"the run's {name} are {stated}, the sum over its events is {total}")

    def _check_verdict(self, event: Any) -> None:
        if event.to == "COMPLETED":
            self.expect(not self.untolerated, "V19", "COMPLETED although a failure was not tolerated")
            self.expect(event.failure is None, "V19", "COMPLETED with a failure")
            wanted = ("PARTIAL",) if self.tolerated else ("SUCCESS", "DEGRADED", "PARTIAL")
            self.expect(event.outcome in wanted, "V19", f"COMPLETED with outcome {event.outcome}")
        elif event.to == "FAILED":
            self.expect(event.failure is not None, "V19", "FAILED without a failure")
            self.expect(event.outcome == "FAILURE", "V19", f"FAILED with outcome {event.outcome}")
        else:
            self.expect(self.cancel, "V19", "CANCELLED although nobody said so")
            self.expect(event.outcome == "CANCELLED", "V19", f"CANCELLED with outcome {event.outcome}")
        self._check_failure(event.failure)

    # Steps.

    def _step(self, name: str) -> StepSeen:
        return self.steps.setdefault(name, StepSeen())

    def _touch(self, name: str) -> StepSeen:
        """A step moves: it must be known, its needs ended, itself not ended."""
        self.expect(self.opened, "V3", f"{name} moved before the run was RUNNING")
        known = name in self.steps
        step = self._step(name)
        self.expect(not step.ended, "V2", f"{name} moved after its end")
        if name.endswith("]"):
            parent, _, index = name[:-1].rpartition("[")
            count = max(self._step(parent).expanded, self._step(parent).iterations)
            self.expect(int(index) < count, "V4", f"{name} moved, but {parent} has {count} items")
        elif self.needs is not None:
            self.expect(path_of(name) in self.needs, "V4", f"{name} is not a step of the flow")
            if "/" in name or "!" in name:
                self.expect(name in self.steps and known, "V48", f"{name} moved before the step around it began")
        return step

    def _needs_ended(self, name: str) -> None:
        if helps(name) or name.endswith("]"):
            return
        path = path_of(name)
        least, of = self.joins.get(path, (0, ()))
        counted = [beside(name, other) for other in of]
        for other in (self.needs or {}).get(path, ()):
            need = beside(name, other)
            ended = need in counted or self._step(need).ended
            self.expect(ended, "V4", f"{name} moved before {need} had ended")
        arrived = sum(self._step(need).completed for need in counted)
        missed = sum(self._step(need).ended for need in counted) - arrived
        decided = arrived >= least or missed > len(counted) - least
        self.expect(decided, "V4", f"{name} moved before its join was decided: {arrived} of {least} arrived")

    def on_ItemsExpanded(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._touch(event.step_id)
        self._needs_ended(event.step_id)
        self.expect(
            step.expanded < 0 and step.epoch == step.before, "V2", f"{event.step_id} expanded twice or after an attempt"
        )
        step.expanded = event.count
        for index in range(event.count):
            self._step(f"{event.step_id}[{index}]")

    def on_StepScheduled(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._touch(event.step_id)
        self._needs_ended(event.step_id)
        self.allowed(event.step_id)
        undoes = event.step_id.endswith("!compensate")
        wanted_state = "COMPENSATING" if undoes else "RUNNING"
        self.expect(self.state == wanted_state, "V9", f"{event.step_id} scheduled while the run was {self.state}")
        self.expect(not step.held, "V9", f"{event.step_id} scheduled while it waits at a breakpoint")
        self.expect(not step.live and step.expanded < 0, "V5", f"{event.step_id} scheduled while {step.live} was live")
        self.expect(step.epoch == 0 or step.due is not None, "V5", f"{event.step_id} scheduled without waiting")
        self.expect(step.due is None or time >= step.due, "V7", f"{event.step_id} scheduled before {step.due}")
        before = step.epoch or self.floor
        self.expect(event.epoch == before + 1, "V6", f"{event.step_id}: epoch {event.epoch} after {before}")
        self.expect(event.attempt == step.attempt + 1, "V6", f"{event.step_id}: attempt {event.attempt}")
        wanted = f"{self.run_id}/{event.step_id}/{event.epoch}"
        self.expect(event.attempt_id == wanted, "V6", f"attempt id {event.attempt_id} is not {wanted}")
        step.live, step.started, step.due = event.attempt_id, False, None
        step.epoch, step.attempt = event.epoch, event.attempt
        step.child = bool(event.child_run_id)
        self.attempts += 1
        if self.most_attempts is not None and not undoes:
            self.expect(self.attempts <= self.most_attempts, "V14", f"{self.attempts} attempts were started")

    def on_StepStarted(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._touch(event.step_id)
        self.expect(bool(step.live) and step.live == event.attempt_id, "V15", f"{event.attempt_id} is not in flight")
        self.expect(not step.started, "V2", f"{event.attempt_id} started twice")
        step.started = True

    def on_ChildTold(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._touch(event.step_id)
        self.expect(step.child and step.live == event.attempt_id, "V15", f"{event.attempt_id} is no run in flight")

    def on_AttemptLogged(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._touch(event.step_id)
        self.expect(bool(step.live) and step.live == event.attempt_id, "V15", f"{event.attempt_id} is not in flight")

    def _close(self, event: Any, *, known: bool = True) -> StepSeen:
        """An attempt ends, or a step that has none. `known`: its usage came with the event."""
        step = self._touch(event.step_id)
        self.expect(step.live == event.attempt_id, "V11", f"{event.step_id}: {step.live or 'none'} in flight")
        if event.attempt_id:
            self.no_call_open(event.attempt_id)
            self.expect(event.attempt_id not in self.closed, "V10", f"{event.attempt_id} was closed before")
            self.expect(event.attempt == step.attempt, "V6", f"{event.attempt_id} is attempt {step.attempt}")
            one = event.usage.attempts == 1 or (step.child and event.usage.attempts > 0)
            self.expect(one, "V10", f"{event.attempt_id} is booked as {event.usage.attempts}")
            self.closed[event.attempt_id] = not known
        self._book(event.usage)
        step.live, step.stopping = "", False
        return step

    def _book(self, usage: Any) -> None:
        for name in _SUMMED:
            self.used[name] += getattr(usage, name)

    def on_StepCompleted(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._close(event)
        step.done = True
        self.allowed(event.step_id)
        self._inner_ended(event.step_id)
        step.completed_at = self.position
        if step.expanded >= 0:
            self._items_ended(event.step_id, step)
        elif step.inner:
            pass
        elif event.attempt_id or step.epoch > step.before:
            self.expect(bool(event.attempt_id) and step.started, "V2", f"{event.step_id} completed without starting")
        else:
            self._needs_ended(event.step_id)
            self.expect(step.due is None or time >= step.due, "V7", f"{event.step_id} completed before {step.due}")
        step.ended = step.completed = True

    def on_StepWaiting(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._touch(event.step_id)
        self._needs_ended(event.step_id)
        self._inner_ended(event.step_id)
        idle = step.epoch == step.before and step.expanded < 0 and not step.waits
        self.expect(idle, "V2", f"{event.step_id} began to wait twice, or after an attempt")
        step.waits = True
        step.due = event.until if event.reason in ("TIMER", "DELAY") else None

    def on_EventEmitted(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._touch(event.step_id)
        self._needs_ended(event.step_id)
        self.expect(step.epoch == step.before and step.expanded < 0, "V2", f"{event.step_id} emits after an attempt")

    def _items_ended(self, name: str, step: StepSeen) -> None:
        left = [i for i in range(step.expanded) if not self._step(f"{name}[{i}]").ended]
        self.expect(not left, "V4", f"{name} ended before its items {left[:5]}")

    def on_StepRetrying(self, event: Any, time: int) -> None:  # noqa: N802
        self._inner_ended(event.step_id)
        whole = bool(event.attempt_id or self._step(event.step_id).inner)
        self.expect(whole, "V11", f"{event.step_id} retries without an attempt")
        step = self._close(event, known=not lost(event.failure))
        step.due = event.next_attempt_at
        self._check_failure(event.failure, in_attempt=bool(event.attempt_id))

    def on_StepFailed(self, event: Any, time: int) -> None:  # noqa: N802
        if not event.attempt_id and self._step(event.step_id).expanded < 0:
            self._needs_ended(event.step_id)
        step = self._close(event, known=not lost(event.failure))
        if step.expanded >= 0:
            self._items_ended(event.step_id, step)
        self._inner_ended(event.step_id)
        step.ended = True
        below = any(mark in event.step_id for mark in "[/!")
        step.tolerated = event.tolerated
        self.tolerated = self.tolerated or event.tolerated
        self.untolerated = self.untolerated or (not event.tolerated and not below)
        self._check_failure(event.failure, in_attempt=bool(event.attempt_id))

    def on_StepSkipped(self, event: Any, time: int) -> None:  # noqa: N802
        if event.by_hand:
            self.skipped_by_hand(event)
            return
        step = self._touch(event.step_id)
        self._needs_ended(event.step_id)
        self.expect(step.epoch == step.before and step.expanded < 0, "V2", f"{event.step_id} skipped after it began")
        step.ended = True

    def on_StepCancelled(self, event: Any, time: int) -> None:  # noqa: N802
        step = self._close(event, known=event.confirmed)
        self._inner_ended(event.step_id)
        if step.expanded >= 0:
            self._items_ended(event.step_id, step)
        step.ended = True

    def on_LateResult(self, event: Any, time: int) -> None:  # noqa: N802
        expected = self.closed.get(event.attempt_id)
        self.expect(expected is not None, "V15", f"a result of {event.attempt_id}, which never ended")
        self.expect(expected is not False, "V10", f"{event.attempt_id} is booked twice")
        self.expect(not event.usage.attempts, "V10", f"{event.attempt_id} is counted twice")
        self.closed[event.attempt_id] = False
        self._book(event.usage)

    def _check_failure(self, failure: Any, *, in_attempt: bool = False) -> None:
        while failure is not None:
            parts = (failure.code, failure.tier, failure.component, failure.operation)
            self.expect(all(parts), "V20", f"a failure says too little: {parts}")
            if in_attempt:
                self.expect(failure.attempt > 0 and bool(failure.step_id), "V20", f"{failure.code} names no attempt")
            failure, in_attempt = failure.cause, False


def lost(failure: Any) -> bool:
    """Whether the attempt was given up without a result."""
    cause = failure.cause
    retried = failure.code == "MAX_RETRIES_EXCEEDED"
    if cause is not None and (retried or (failure.code == "TIMEOUT" and cause.operation == "stop")):
        failure = cause
    return bool(failure.code == "EXECUTOR_LOST" and failure.tier == 2)


def shape_of(flow: Any) -> dict[str, Any]:
    """What `check_history` wants to know of a compiled flow."""
    return {
        "needs": {step.id: step.needs for step in flow.by_id.values()},
        "blocks": blocks_of(flow),
        "joins": {name: (join.at_least, join.of) for name, join in flow.joins.items()},
    }


def _checker_of(events: list[tuple[Any, int]]) -> type[_Checker]:
    """Documents that are walked task by task have rules of their own."""
    from tierflow_testing.history_documents import DocumentChecker

    return DocumentChecker if any(type(event).__name__ == "StepEntered" for event, _ in events) else _Checker


def check_history(
    events: Iterable[tuple[Any, int]],
    needs: Mapping[str, Sequence[str]] | None = None,
    *,
    joins: Mapping[str, tuple[int, Sequence[str]]] | None = None,
    blocks: Mapping[str, Sequence[str]] | None = None,
    complete: bool = False,
) -> list[Breach]:
    """All breaches of the invariants in the events of a run, over all its generations; empty where there are none.

    Args:
        events: The events in order, each with its time in microseconds.
        needs: The flow's steps and what each needs. Without it, what depends on it is not checked.
        joins: Of steps that have a join: how many must complete, and of which.
        blocks: By the path of a step: the paths of those that begin with it; empty for the run.
        complete: Whether the run must have ended.
    """
    listed = list(events)
    kind = _checker_of(listed)
    known = (None if needs is None else dict(needs), joins or {}, None if blocks is None else dict(blocks))
    checker = kind(*known) if kind is _Checker else kind(None, {}, None)
    for event, time in listed:
        checker.event(event, time)
    if complete and checker.state not in _FINAL:
        checker.position = -1
        checker.breach("V11", f"the run has not ended: it is {checker.state or 'not there'}")
    return checker.breaches
