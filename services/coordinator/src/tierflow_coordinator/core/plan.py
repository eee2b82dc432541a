"""A plan of several runs: as it was given, and what became of each run. Values only; `planning` decides."""

from __future__ import annotations

from typing import Final

import msgspec
from tierflow_runtime.values import NO_USAGE, Failure, Payload, Usage

PENDING, RUNNING = "PENDING", "RUNNING"
COMPLETED, FAILED, SKIPPED, CANCELLED = "COMPLETED", "FAILED", "SKIPPED", "CANCELLED"
DECIDED: Final = frozenset((COMPLETED, FAILED, SKIPPED, CANCELLED))


class FlowChoice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A flow that was found at submission."""

    name: str
    version: str = ""
    hash: str = ""


class Case(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A case of a choice."""

    condition: str
    then: tuple[str, ...]


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a plan, or a choice (`cases`). Conditions and `naming` are texts of expressions."""

    id: str
    flows: tuple[FlowChoice, ...] = ()
    """One; or those of which `naming` names one."""
    naming: str = ""
    input: Payload | None = None
    """A JSON object with expressions; None is the plan's input."""
    needs: tuple[str, ...] = ()
    """Everything that it waits for, in the plan's order."""
    condition: str = ""
    cases: tuple[Case, ...] = ()
    default: tuple[str, ...] = ()
    tolerate: bool = False

    @property
    def is_choice(self) -> bool:
        """Whether it chooses among runs and is none itself."""
        return bool(self.cases)

    @property
    def named(self) -> frozenset[str]:
        """Of a choice: all that it may choose."""
        return frozenset((*self.default, *(run for case in self.cases for run in case.then)))


class Standing(msgspec.Struct, kw_only=True):
    """What became of one run of a plan."""

    state: str = PENDING
    reason: str = ""
    run_id: str = ""
    generation: int = 0
    made: int = 0
    """Runs that were asked for on its behalf."""
    flow: FlowChoice | None = None
    input: Payload | None = None
    outcome: str = ""
    output: Payload | None = None
    failure: Failure | None = None
    usage: Usage = NO_USAGE
    """Of its present run, all generations together."""
    chosen: tuple[str, ...] = ()
    unchosen_by: str = ""
    failing: bool = False
    """It failed and that is not tolerated, or it was skipped because of such a failure."""


class Plan(msgspec.Struct, kw_only=True):
    """A plan under way."""

    runs: tuple[PlannedRun, ...]
    output: str = ""
    """JSON text with expressions; empty: the outputs of the runs that no other needs."""
    standings: dict[str, Standing]
    generation: int = 1
    """Of the swarm."""
    spent: Usage = NO_USAGE
    """By runs that were made anew since."""

    def run(self, planned_id: str) -> PlannedRun:
        """The run of an id. Raises KeyError."""
        for each in self.runs:
            if each.id == planned_id:
                return each
        raise KeyError(planned_id)

    def standing_of(self, run_id: str) -> Standing | None:
        """What became of the planned run that a run is, by the id that Tier 2 knows."""
        return next((each for each in self.standings.values() if each.run_id == run_id), None)

    @property
    def run_ids(self) -> list[str]:
        """The runs that there are, in the plan's order."""
        return [each.run_id for each in self.standings.values() if each.run_id]

    def used(self, *, without: str = "") -> Usage:
        """What all runs have used; or all but the one of an id."""
        usage = self.spent
        for each in self.standings.values():
            if each.run_id != without or not without:
                usage = usage if each.usage == NO_USAGE else usage.plus(each.usage)
        return usage
