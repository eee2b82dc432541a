"""What handlers themselves have noted of their executions, against what the journal says was started (S7, R24).

A handler appends one line of JSON to a file each time it is called: `{"attempt_id", "run_id", "step_id", "idempotency_key"}`, and what else it likes.
"""

from __future__ import annotations

import json
import pathlib
from collections import Counter
from dataclasses import dataclass, field

from tierflow_contracts.events.v1 import event_pb2
from tierflow_runtime import wire

from tierflow_testing.auditing.report import Report


@dataclass(slots=True)
class Attempts:
    """What the journals say of attempts: which were started, which steps completed by which, which were lost."""

    started: dict[str, str] = field(default_factory=dict)
    """By attempt id: run and step."""
    completed: dict[str, str] = field(default_factory=dict)
    """By run and step: the attempt that completed it."""
    failed: Counter[str] = field(default_factory=Counter)
    """By run and step: attempts that failed by themselves or were interrupted by a pause, so that another was needed."""

    def take(self, run_id: str, events: list[event_pb2.Event]) -> None:
        """Takes a run's events."""
        for event in events:
            step = f"{run_id}/{event.step_id}"
            kind = event.WhichOneof("payload")
            if kind == "step_scheduled":
                self.started[event.step_scheduled.attempt_id] = step
            elif kind == "step_completed" and event.step_completed.attempt_id:
                self.completed[step] = event.step_completed.attempt_id
            elif kind == "step_grown":
                self.completed[step] = event.step_grown.attempt_id
            elif kind == "handler_called" and event.handler_called.attempt_id:
                self.failed[step] += wire.failure_from_proto(event.handler_called.failure).code != "EXECUTOR_LOST"
            elif kind == "step_interrupted":
                self.failed[step] += 1
            elif kind == "step_retrying":
                self.failed[step] += wire.failure_from_proto(event.step_retrying.failure).code != "EXECUTOR_LOST"


def check_executions(file: pathlib.Path, attempts: Attempts, report: Report, *, executors_lived: bool) -> None:
    """Compares the file with the journals. `executors_lived`: no executor died, so that nothing may have been executed twice."""
    executed: Counter[str] = Counter()
    keys: dict[str, set[str]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        fact = json.loads(line)
        executed[fact["attempt_id"]] += 1
        keys.setdefault(f"{fact['run_id']}/{fact['step_id']}", set()).add(fact["idempotency_key"])
    by_step: Counter[str] = Counter()
    for attempt_id, times in executed.items():
        report.expect(times == 1, "an attempt was executed more than once (R24)", f"{attempt_id}: {times}")
        report.expect(attempt_id in attempts.started, "executed, and not in the journal (R24)", attempt_id)
        by_step[attempts.started.get(attempt_id, "")] += times
    for step, found in keys.items():
        report.expect(len(found) == 1, "an idempotency key changed (K10)", f"{step}: {sorted(found)}")
    again = 0
    for step, times in by_step.items():
        needed = 1 + attempts.failed[step]
        again += max(0, times - needed)
        if executors_lived:
            report.expect(times <= needed, "executed again although executors lived (S7)", f"{step}: {times}, {needed}")
    for step, attempt_id in attempts.completed.items():
        if by_step and step in by_step:
            report.expect(attempt_id in executed, "completed without execution (S7)", f"{step} by {attempt_id}")
    report.counts["executions"] = sum(executed.values())
    report.counts["executions_again"] = again
