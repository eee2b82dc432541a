"""What steps may spend out of what their run has left, decided by the run's ledger (docs/budgets.md).

A run without limits asks nothing here: `finite` of its ledger is all that is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from tierflow_runtime.ledger import DIMENSIONS, Amounts, Ledger, Short, amounts_of, spoken, violations
from tierflow_runtime.values import Allocation, Failure, Micros, Usage

from tierflow_orchestrator.core import events, failures
from tierflow_orchestrator.core.step import Step

if TYPE_CHECKING:
    from tierflow_orchestrator.core.run import Run
    from tierflow_orchestrator.core.turn import Turn

GRACE: Final[Micros] = 30_000_000
"""So long after the deadline of an attempt that was given up its end may still become known before it is charged in full."""
_DEFAULT_TIMEOUT: Final[Micros] = 30_000_000
_OWN: Final = ("credits", "tokens", "tool_calls")
"""What an attempt may be held to; that it is one step is known."""


class Budgeted:
    """The part of a run that its ledger answers for; the run has the field. Only `evolve` grants, reserves and books."""

    __slots__ = ()

    ledger: Ledger

    @property
    def usage(self) -> Usage:
        """What is spent."""
        return self.ledger.usage

    @property
    def attempts(self) -> int:
        """Attempts started in all, those of the runs of its steps included."""
        return self.ledger.started


def declared(run: Run, step: Step) -> Mapping[str, Any]:
    """What the flow says that the step may spend: an attempt of it, or the run that it is."""
    spec = run.spec(step)
    found: Mapping[str, Any] = spec.settings.get("allocation", {}) if spec.kind == "flow" else spec.allocation
    return found


def asked(run: Run, step: Step) -> Amounts:
    """The least that the step must have to begin: what it declares, else anything at all of what is limited."""
    ledger, wanted = run.ledger, declared(run, step)
    least = {}
    for name in _OWN:
        # With nothing to spend from the start, what costs nothing may run.
        some = int(ledger.limit(name) is not None and bool(ledger.limit(name) or ledger.consumed(name)))
        least[name] = wanted.get(name, some)
    inner = wanted.get("steps", 1) if run.spec(step).kind == "flow" else 0
    return Amounts(**least, steps=1 + inner)


def waits(run: Run, step: Step) -> bool:
    """Whether the step must wait for what others hold. Where that would not be enough it need not: it fails when it is to begin."""
    if step.role == "compensation":
        return False
    wanted = asked(run, step)
    return bool(run.ledger.short(wanted)) and not run.ledger.never(wanted)


def lacking(run: Run, step: Step) -> tuple[Short, ...]:
    """In which dimensions the step asks for more than there is now."""
    return () if step.role == "compensation" else run.ledger.short(asked(run, step))


def refusal(run: Run, step: Step) -> Failure | None:
    """Why the step cannot begin at all, in a run with a budget. What was done is undone whether there is anything left to spend or not."""
    if step.role == "compensation":
        return None
    wanted = asked(run, step)
    if not run.ledger.never(wanted):
        return None
    short = run.ledger.short(wanted)
    message = f"{step.id} asks for more than its run has left: {spoken(short)}."
    return failures.of_step(
        step, "BUDGET_EXHAUSTED", message, "schedule", cause=step.failure, violations=violations(short)
    )


def grant(run: Run, step: Step, *, child: bool) -> Allocation | Failure | None:
    """What the attempt, or the run that the step is, may spend: what it declares, else all that is left; None where nothing is limited."""
    if child:
        return _nested(run, step)
    if not (run.ledger.finite or run.spec(step).allocation) or step.role == "compensation":
        return None
    wanted = declared(run, step)
    found = {name: wanted.get(name, run.ledger.left(name)) for name in _OWN}
    return Allocation(**found) if any(share is not None for share in found.values()) else None


def _nested(run: Run, step: Step) -> Allocation | Failure:
    """The share of the run that a step is; the attempt that it is itself is paid before. Capacities are handed down, one level deeper."""
    own, depth, wanted = run.allocation, run.allocation.depth, declared(run, step)
    if depth is not None and depth < 1:
        return failures.of_step(step, "BUDGET_EXHAUSTED", f"{step.id} would be nested too deeply.", "schedule")
    left = {name: run.ledger.left(name) for name in DIMENSIONS}
    if left["steps"] is not None:
        left["steps"] -= 1
    return Allocation(
        **{name: wanted.get(name, most) for name, most in left.items()},
        memory_bytes=own.memory_bytes,
        concurrent_steps=own.concurrent_steps,
        depth=None if depth is None else depth - 1,
    )


def until(run: Run, step: Step, time: Micros) -> Micros:
    """When the hold of an attempt that is given up now is charged in full: after its deadline and grace (rule R30)."""
    timeout = run.spec(step).timeout or run.definition().timeout or _DEFAULT_TIMEOUT
    return max(time, (step.started_at or time) + timeout) + GRACE


def charge(turn: Turn, now: Micros | None) -> None:
    """What is owed since its time was over is taken as spent; all that is owed where there is no `now`."""
    ledger = turn.run.ledger
    for attempt_id in ledger.due(now):
        one = ledger.owed[attempt_id]
        turn.emit(events.HoldCharged(step_id=one.step_id, attempt_id=attempt_id, usage=one.amounts.whole))


def charged(run: Run, attempt_id: str) -> Usage | None:
    """What was taken as spent for an attempt that was given up; None where nothing was."""
    one = run.ledger.owed.get(attempt_id)
    return one.amounts.whole if one is not None and one.charged else None


def restore(run: Run) -> None:
    """What attempts in flight hold, of a run that was stored: what they were granted."""
    holds = {}
    for step_id in run.live:
        step = run.steps[step_id]
        if step.grant is not None:
            holds[step.attempt_id] = amounts_of(step.grant)
    run.ledger.restore(holds, run.ledger.owed)


def booked(usage: Usage, steps: int) -> Usage:
    """What is booked for the run of a step: all that it used, and the attempt that it was itself."""
    return msgspec.structs.replace(usage, attempts=usage.attempts + 1, steps=usage.steps + steps)
