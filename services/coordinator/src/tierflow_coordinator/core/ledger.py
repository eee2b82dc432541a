"""The budget of a swarm: its run holds all that is left, until it ends (docs/budgets.md). The arithmetic is that of `tierflow_runtime.ledger`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from tierflow_runtime.ledger import DIMENSIONS, Ledger, amounts_of
from tierflow_runtime.values import NO_USAGE, Allocation, Usage

from tierflow_coordinator.core import states

if TYPE_CHECKING:
    from tierflow_coordinator.core.swarm import RunRecord, Swarm


def ledger_of(swarm: Swarm) -> Ledger:
    """What of the swarm's budget is held, spent and free."""
    ledger = Ledger(swarm.allocation, swarm.usage, swarm.usage.attempts)
    run = swarm.run
    if run is not None and not run.finished and _may_spend(swarm, run):
        # Journals of older versions do not say what the run was granted: it was all that there is.
        ledger.reserve(_key(run), amounts_of(run.grant if run.grant is not None else ledger.rest()))
    return ledger


def _may_spend(swarm: Swarm, run: RunRecord) -> bool:
    """Whether its run may still spend something: until the end of both, or for ever where the swarm was ended by force."""
    return not swarm.ended or (swarm.state == states.TERMINATED and run.taken)


def _key(run: RunRecord) -> str:
    return f"{run.run_id}/{run.generation}"


def next_grant(allocation: Allocation, usage: Usage = NO_USAGE) -> Allocation | None:
    """What the next generation of a swarm's run may spend: all that is left (rule R31); None where nothing is limited."""
    ledger = Ledger(allocation, usage, usage.attempts)
    return ledger.rest() if ledger.finite else None


def settled(swarm: Swarm, usage: Usage, run_id: str, generation: int) -> Usage:
    """What the swarm has used once its run has ended. What a run says that it has used is what it has used in all its generations."""
    before = swarm.usage if generation <= 1 else NO_USAGE
    if swarm.plan is not None:
        before = swarm.plan.used(without=run_id)
    ledger = Ledger(swarm.allocation, before, before.attempts)
    ledger.book(usage, begun=0)
    return ledger.usage


def funded(swarm: Swarm, changes: Allocation, cleared: tuple[str, ...] = ()) -> tuple[Allocation, Allocation | None]:
    """The swarm's limits with these changes, and what its run may then spend. `cleared` are no longer limited."""
    wanted: dict[str, int | None] = {name: getattr(changes, name) for name in DIMENSIONS}
    named = {name: amount for name, amount in wanted.items() if amount is not None} | dict.fromkeys(cleared)
    limits = msgspec.structs.replace(swarm.allocation, **named)
    if swarm.run is None or swarm.run.finished:
        return limits, None
    rest = next_grant(limits, swarm.usage) or limits
    before = swarm.run.grant or rest
    return limits, msgspec.structs.replace(before, **{name: getattr(rest, name) for name in named})


def returned(granted: Allocation, used: Usage) -> Allocation:
    """What is left at the end. Capacities (memory, concurrency, depth) are given back whole; nothing is ever negative."""
    rest = Ledger(granted, used, used.attempts).rest()
    if rest.wall_time is None:
        return rest
    return msgspec.structs.replace(rest, wall_time=max(0, rest.wall_time - used.wall_time))
