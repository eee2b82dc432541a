"""What is wrong with a plan of several runs, all of it at once, before anything is stored; and what each run waits for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
from tierflow_expressions.expressions import Expression, Reference
from tierflow_expressions.hints import nearest
from tierflow_expressions.lexer import STEP_ID
from tierflow_expressions.needs import cycles
from tierflow_expressions.scope import names_available, show_path
from tierflow_expressions.templates import CompiledTemplate
from tierflow_expressions.values import loads

from tierflow_coordinator.core.plan import PlannedRun
from tierflow_coordinator.core.plan_scope import RUN_FIELDS, SWARM_FIELDS
from tierflow_coordinator.core.plan_texts import expression, value_template

MOST_RUNS: Final = 100
MOST_CASES: Final = 100
LONGEST_ID: Final = 128
_ID: Final = re.compile(STEP_ID, re.ASCII)

Problem: TypeAlias = tuple[str, str]
"""Where, below the plan (`runs[2].if`), and what."""


class Checked:
    """A plan under examination."""

    def __init__(self, runs: Sequence[PlannedRun], output: str = "") -> None:
        self.problems: list[Problem] = []
        self._given = runs
        self._ids = [run.id for run in runs]
        self._read: dict[int, list[str]] = {}
        """By place in the plan: the runs that expressions read."""
        self._choosers: dict[str, str] = {}
        if not 1 <= len(runs) <= MOST_RUNS:
            self.problems.append(("runs", f"has {len(runs)} runs; 1 to {MOST_RUNS} are allowed"))
        for place, run in enumerate(runs[:MOST_RUNS]):
            self._check_id(place, run.id)
        for place, run in enumerate(runs[:MOST_RUNS]):
            self._check_run(place, run)
        if output:
            self._check_value("output", output, -1)
        self.runs = tuple(self._complete(place, run) for place, run in enumerate(runs[:MOST_RUNS]))
        """With all that each waits for."""
        if not self.problems:
            self._check_order()

    def _add(self, where: str, what: str) -> None:
        self.problems.append((where, what if len(what) <= 600 else what[:597] + "..."))

    def _check_id(self, place: int, planned_id: str) -> None:
        if not planned_id:
            self._add(f"runs[{place}].id", "required")
        elif _ID.fullmatch(planned_id) is None or len(planned_id) > LONGEST_ID:
            self._add(
                f"runs[{place}].id", f"{planned_id[:100]!r}: letters, digits, _ and - are allowed, no digit first"
            )
        elif self._ids.index(planned_id) != place:
            self._add(f"runs[{place}].id", f"{planned_id!r} is there twice")

    def _check_run(self, place: int, run: PlannedRun) -> None:
        at = f"runs[{place}]"
        if run.condition:
            self._check_expression(f"{at}.if", run.condition, place, status=True)
        self._check_choice(at, place, run)
        if run.flows and (run.cases or run.default):
            self._add(at, "has a flow and a switch; it is one of the two")
        elif not run.flows and not run.cases:
            self._add(at, "expected a flow, or a switch with cases")
        if run.naming:
            self._check_expression(f"{at}.flow.name", run.naming, place)
        if isinstance(run.input, str):
            self._check_value(f"{at}.input", run.input, place)
        for number, need in enumerate(run.needs):
            self._check_known(f"{at}.needs[{number}]", need, run.id)

    def _check_choice(self, at: str, place: int, run: PlannedRun) -> None:
        if len(run.cases) > MOST_CASES:
            self._add(f"{at}.switch", f"has {len(run.cases)} cases; at most {MOST_CASES} are allowed")
        for number, case in enumerate(run.cases[:MOST_CASES]):
            where = f"{at}.switch[{number}]"
            if case.condition:
                self._check_expression(f"{where}.if", case.condition, place)
            else:
                self._add(f"{where}.if", "required")
            if not case.then:
                self._add(f"{where}.then", "required: the runs that go on")
            self._check_chosen(f"{where}.then", case.then, run.id)
        self._check_chosen(f"{at}.default", run.default, run.id)
        if run.cases and run.input is not None:
            self._add(f"{at}.input", "a choice has no input")

    def _check_chosen(self, at: str, chosen: Sequence[str], choice: str) -> None:
        for number, planned_id in enumerate(chosen):
            where = f"{at}[{number}]"
            self._check_known(where, planned_id, choice)
            other = self._choosers.setdefault(planned_id, choice)
            if other != choice:
                self._add(where, f"{planned_id} is named by {other} already; at most one switch names a run")

    def _check_known(self, where: str, planned_id: str, own: str) -> None:
        if planned_id == own:
            self._add(where, f"{planned_id} cannot wait for itself")
        elif planned_id not in self._ids:
            self._add(where, self._unknown(planned_id))

    def _unknown(self, planned_id: str) -> str:
        known = names_available(self._ids)
        return f"there is no run {planned_id[:100]!r}{nearest(planned_id, self._ids)}; the plan has: {known}"

    def _check_expression(self, where: str, text: str, place: int, *, status: bool = False) -> None:
        found: list[str] = []

        def visit(_path: object, each: Expression) -> None:
            self._check_references(where, each, place, status=status)

        template = expression(text, lambda _, problem: found.append(problem), visit)
        if not found and not template.expressions:
            found.append("expected an expression")
        for problem in found:
            self._add(where, problem)

    def _check_value(self, where: str, text: str, place: int) -> None:
        try:
            source = loads(text)
        except ValueError as error:
            self._add(where, f"is not JSON: {error}")
            return

        def report(path: tuple[str | int, ...], problem: str) -> None:
            self._add(_below(where, path), problem)

        def visit(path: tuple[str | int, ...], each: Expression) -> None:
            self._check_references(_below(where, path), each, place)

        template = value_template(source, report, visit)
        if place >= 0 and not isinstance(source, dict) and not _may_be_object(template):
            self._add(where, "expected a JSON object, or one expression that yields one")

    def _check_references(self, where: str, each: Expression, place: int, *, status: bool = False) -> None:
        for reference in each.references:
            if problem := self._wrong(reference, place):
                self._add(where, f"{problem}, in ${{{{ {each.text} }}}}")
        if each.status and not status:
            self._add(where, f"{min(each.status)}() is for the if of a run only, in ${{{{ {each.text} }}}}")
        if "cancelled" in each.status:
            self._add(
                where, f"cancelled() is for flows: what is cancelled goes on with nothing, in ${{{{ {each.text} }}}}"
            )

    def _wrong(self, reference: Reference, place: int) -> str:
        path = reference.path
        if reference.name == "runs":
            return self._wrong_run(path, place)
        if reference.name == "board" and (not path or not isinstance(path[0], str)):
            return "board takes a key, written out: board.key"
        if reference.name == "swarm" and path and path[0] not in SWARM_FIELDS:
            return f"{show_path('swarm', path[:1])} is not there; swarm has: {', '.join(SWARM_FIELDS)}"
        return ""

    def _wrong_run(self, path: tuple[str | int, ...], place: int) -> str:
        if not path or not isinstance(path[0], str):
            return "runs takes the id of a run, written out: runs.id.output"
        planned_id = path[0]
        if planned_id not in self._ids:
            return self._unknown(planned_id)
        if len(path) < 2 or path[1] not in RUN_FIELDS:
            return f"{show_path('runs', path[:2])} is not there; a run has: {', '.join(RUN_FIELDS)}"
        if place >= 0 and planned_id == self._ids[place]:
            return f"{planned_id} cannot read itself"
        self._read.setdefault(place, []).append(planned_id)
        return ""

    def _complete(self, place: int, run: PlannedRun) -> PlannedRun:
        """With what its expressions read, and the choice that names it."""
        wanted = {*run.needs, *self._read.get(place, ())}
        if run.id in self._choosers:
            wanted.add(self._choosers[run.id])
        return msgspec.structs.replace(run, needs=tuple(known for known in self._ids if known in wanted))

    def _check_order(self) -> None:
        places = {planned_id: place for place, planned_id in enumerate(self._ids)}
        for cycle in cycles({run.id: run.needs for run in self.runs}):
            self._add(f"runs[{places[cycle[0]]}]", f"waits for itself: {' -> '.join(cycle)}")


def _below(where: str, path: tuple[str | int, ...]) -> str:
    shown = where
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part[:100]}"
    return shown


def _may_be_object(template: CompiledTemplate) -> bool:
    return template.whole
