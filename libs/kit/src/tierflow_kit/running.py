"""Runs the cases of a test file, each on a virtual clock of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tierflow_flow import Flow
from tierflow_orchestrator.core import Reply

from tierflow_kit import spoken
from tierflow_kit.acting import command_of, kind_of
from tierflow_kit.blocks import every_step
from tierflow_kit.cases import Case, CaseFile
from tierflow_kit.expecting import differences, shown
from tierflow_kit.fakes import FakeError
from tierflow_kit.rehearsal import Rehearsal
from tierflow_kit.report import Report, report


@dataclass(frozen=True, slots=True)
class FileResults:
    """A test file with how its cases went."""

    read: CaseFile
    results: tuple[CaseResult, ...]

    @property
    def complete(self) -> bool:
        """Whether all cases of the file were run."""
        return len(self.results) == len(self.read.cases)

    def unreached(self) -> list[str]:
        """Ids of the steps that completed or failed in no case."""
        steps = [step for result in self.results if result.report for step in result.report.steps.values()]
        reached = {step.of for step in steps if step.state in ("COMPLETED", "FAILED", "COMPENSATED")}
        return [spec.id for spec in every_step(self.read.flow) if spec.id not in reached]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How a case went: it passed where there are no differences."""

    case: Case
    differences: tuple[str, ...]
    report: Report | None
    """None where it could not be run to its end."""
    seconds: float
    """Of the real clock."""

    @property
    def passed(self) -> bool:
        """Whether everything is as expected."""
        return not self.differences


def run_case(flow: Flow, case: Case) -> CaseResult:
    """Rehearses one case and compares."""
    started = time.perf_counter()
    found: list[str] = []
    outcome = None
    try:
        rehearsal = Rehearsal(flow, case.input, case.fakes(), case.setting)
        for number, action in enumerate(case.actions):
            rehearsal.at(action["at"], _action(rehearsal, action, f"do[{number}]", found))
        if case.until is None:
            rehearsal.finish()
        else:
            rehearsal.advance(case.until)
        outcome = report(rehearsal)
        found += differences(case.expect, outcome)
    except FakeError as error:
        found.append(str(error))
    return CaseResult(case, tuple(found), outcome, time.perf_counter() - started)


def run_file(read: CaseFile, words: str = "") -> FileResults:
    """Rehearses the cases whose name holds these words."""
    wanted = [case for case in read.cases if words.lower() in case.name.lower()]
    return FileResults(read, tuple(run_case(read.flow, case) for case in wanted))


def _action(rehearsal: Rehearsal, action: Mapping[str, Any], name: str, found: list[str]) -> Callable[[], None]:
    def perform() -> None:
        reply = rehearsal.tell(command_of(action, name))
        if reply.applied == action.get("refused", False):
            found.append(f"{name} ({kind_of(action)} at {spoken.duration(action['at'])}): {_told(reply)}")

    return perform


def _told(reply: Reply) -> str:
    if reply.applied:
        return "expected to be refused, but it was taken"
    why = f": {shown(reply.failure)}" if reply.failure is not None else ""
    return f"refused, the run was {reply.state}{why}"
