"""What must hold of budgets across tiers (docs/budgets.md): swarms and their runs, runs and the runs of their steps. Shares no code with the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tierflow_contracts.common.v1 import execution_pb2
from tierflow_contracts.events.v1 import event_pb2

from tierflow_testing.auditing.report import Report

_SPENT: Final = ("credits", "tokens", "tool_calls", "steps")
Limits = Mapping[str, int | None]


def limits_of(allocation: execution_pb2.ResourceAllocation) -> dict[str, int | None]:
    """What is limited, by dimension; None where it is not."""
    return {name: getattr(allocation, name) if allocation.HasField(name) else None for name in _SPENT}


def spent_of(usage: Any) -> dict[str, int]:
    """What of a usage is spent out of a budget."""
    return {
        "credits": usage.credits,
        "tokens": usage.input_tokens + usage.output_tokens,
        "tool_calls": usage.tool_calls,
        "steps": usage.attempts,
    }


@dataclass(slots=True)
class SwarmPurse:
    """What a swarm was granted and has spent, and what it has granted to its run."""

    limits: Limits | None = None
    spent: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """By run, in all its generations."""
    first: dict[str, Limits] = field(default_factory=dict)
    """By run: what it was granted at first."""

    def apply(self, event: event_pb2.Event, where: str, report: Report) -> None:
        """Looks at one event of the swarm."""
        kind = event.WhichOneof("payload")
        if kind == "swarm_created":
            self.limits = limits_of(event.swarm_created.allocation)
        elif kind == "context_updated":
            self.limits = limits_of(event.context_updated.context.limits)
        elif kind == "run_finished":
            self.spent[event.run_finished.run_id] = spent_of(event.run_finished.usage)
        if event.run_requested.HasField("grant"):
            self.first.setdefault(event.run_requested.run_id, limits_of(event.run_requested.grant))
        for message in (event.run_requested, event.context_updated):
            if message.HasField("grant"):
                self._granted(limits_of(message.grant), where, report)

    def _granted(self, grant: Limits, where: str, report: Report) -> None:
        report.counts["grants"] += 1
        for name in _SPENT:
            limit, given = (self.limits or {}).get(name), grant[name]
            if limit is None:
                continue
            left = max(0, limit - sum(each[name] for each in self.spent.values()))
            within = given is not None and given <= left
            report.expect(within, "granted more than is left (V53)", f"{where}: {given} {name}, {left} are left")


def compare_grants(asked: Mapping[str, Any], runs: Mapping[str, Any], report: Report) -> None:
    """Runs may spend what those above them have granted: swarms by `asked` (by run), runs by the steps that are runs.

    Args:
        asked: By id of a run: its swarm.
        runs: The runs by id.
        report: Gets what is wrong.
    """
    grants = {child: grant for run in runs.values() for child, grant in run.grants.items()}
    for run in runs.values():
        if run.tombstone:
            continue
        granted = grants.get(run.id) if run.attempt_id else _of_swarm(asked.get(run.id), run.id)
        if granted is not None:
            report.expect(
                dict(granted) == dict(run.allocation),
                "a run may spend other than it was granted (V53)",
                f"{run.id}: {run.allocation}, granted {granted}",
            )


def _of_swarm(swarm: Any, run_id: str) -> Limits | None:
    return None if swarm is None else swarm.purse.first.get(run_id)


def compare_bills(runs: Mapping[str, Any], report: Report) -> None:
    """What a run of a step has used is on the bill of the step, with the attempt that it is (D4)."""
    for run in runs.values():
        for child_id, booked in run.booked.items():
            child = runs.get(child_id)
            if child is None or child.end is None or child.generation > 1:
                continue
            wanted = spent_of(child.end.usage)
            wanted["steps"] += 1
            report.expect(
                booked == wanted, "a step's bill is not that of its run (V56)", f"{child_id}: {booked}, {wanted}"
            )
