"""What became of a rehearsal, in plain values: for test cases, for users' tests, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from tierflow_expressions.values import loads
from tierflow_orchestrator.core import Step, events
from tierflow_orchestrator.core.scope import output_value
from tierflow_runtime.values import Failure, Micros

from tierflow_kit.rehearsal import Call, Rehearsal


@dataclass(frozen=True, slots=True)
class StepReport:
    """How a step went. Moments are microseconds after the start."""

    id: str
    of: str
    """Id of its definition in the flow: of an item, of its map."""
    state: str
    outcome: str
    reason: str
    attempts: int
    input: Any
    """Of its last attempt; None where there was none."""
    output: Any
    failure: Failure | None
    """The last one, also where a later attempt completed."""
    started_at: Micros | None
    ended_at: Micros | None


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event that the flow published."""

    step: str
    name: str
    payload: Any
    at: Micros


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went, as far as it went."""

    state: str
    outcome: str
    reason: str
    output: Any
    failure: Failure | None
    steps: Mapping[str, StepReport]
    """Items of maps included, as `search[2]`."""
    order: tuple[str, ...]
    """Ids of the steps in the order in which they ended."""
    calls: tuple[Call, ...]
    emitted: tuple[Emitted, ...]
    duration: Micros
    """From the start to the end, or to now where it has not ended."""
    credits: int

    def calls_of(self, handler: str) -> tuple[Call, ...]:
        """The attempts that a handler was asked for, in order."""
        return tuple(call for call in self.calls if call.handler == handler)


def report(rehearsal: Rehearsal) -> Report:
    """How it stands now."""
    run = rehearsal.run
    ended = run.ended_at if run.ended_at is not None else rehearsal.now
    return Report(
        state=run.state,
        outcome=run.outcome,
        reason=run.reason,
        output=loads(rehearsal.text(run.output)),
        failure=run.failure,
        steps={step.id: _step(rehearsal, step) for step in run.steps.values()},
        order=_order(rehearsal),
        calls=tuple(rehearsal.calls),
        emitted=tuple(_emitted(rehearsal)),
        duration=ended - rehearsal.setting.start,
        credits=run.usage.credits,
    )


def _step(rehearsal: Rehearsal, step: Step) -> StepReport:
    start = rehearsal.setting.start
    return StepReport(
        id=step.id,
        of=step.of,
        state=step.state,
        outcome=step.outcome,
        reason=step.reason,
        attempts=step.attempt,
        input=None if step.input is None else loads(rehearsal.text(step.input)),
        output=_output(rehearsal, step),
        failure=step.failure,
        started_at=None if step.scheduled_at is None else step.scheduled_at - start,
        ended_at=None if step.ended_at is None else step.ended_at - start,
    )


def _output(rehearsal: Rehearsal, step: Step) -> Any:
    if step.state != "COMPLETED":
        return None
    if step.branches is None:
        return loads(rehearsal.text(step.output))
    run = rehearsal.run
    for other in run.steps.values():
        if other.of == step.of and isinstance(other.output, msgspec.Struct):
            run.contents.setdefault(other.output.sha256, rehearsal.text(other.output))
    return output_value(run, step)


_ENDINGS = (events.StepCompleted, events.StepFailed, events.StepSkipped, events.StepCancelled)


def _order(rehearsal: Rehearsal) -> tuple[str, ...]:
    return tuple(dict.fromkeys(event.step_id for _, event in rehearsal.journal if isinstance(event, _ENDINGS)))


def _emitted(rehearsal: Rehearsal) -> list[Emitted]:
    return [
        Emitted(event.step_id, event.name, loads(rehearsal.text(event.payload)), at)
        for at, event in rehearsal.journal
        if isinstance(event, events.EventEmitted)
    ]
