"""Why a run or a step of it waits, from the state alone (S5). What only the shell knows, executors and their slots, is left to be filled in there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from tierflow_runtime.ledger import spoken
from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import budget
from tierflow_orchestrator.core.blocks import below, sibling
from tierflow_orchestrator.core.branches import being_stopped
from tierflow_orchestrator.core.run import STARTING, Run
from tierflow_orchestrator.core.step import Step

MOST_STEPS: Final = 50
MOST_NAMED: Final = 10


class Blocker(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a step, or the run, waits for. `kind` is a name of BlockerKind without prefix."""

    kind: str
    description: str
    step_id: str = ""
    held_by: tuple[str, ...] = ()
    until: Micros | None = None
    position: int = 0


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Why something waits. `handler` and `labels` of blockers of kind SLOT are looked up by their step."""

    state: str
    blockers: tuple[Blocker, ...]
    deadline: Micros | None


def explain(run: Run, step_id: str = "") -> Explained | None:
    """Why a run waits, or a step of it; None where there is no such step."""
    deadline = None if run.ended else run.deadline
    if not step_id:
        return Explained(state=run.state, blockers=(*_of_run(run), *_of_steps(run)), deadline=deadline)
    step = run.steps.get(step_id)
    if step is None:
        return None
    found = () if step.ended or run.ended else (*_of_run(run), *_of_step(run, step))
    return Explained(state=step.state, blockers=found, deadline=deadline)


def _of_run(run: Run) -> Iterator[Blocker]:
    """What holds all of it up."""
    if run.state == "QUEUED":
        yield Blocker(kind="START_TIME", description="it is not to start before", until=run.options.not_before)
    elif run.state in ("PAUSED", "PAUSING"):
        yield Blocker(kind="PAUSE", description=f"it is {run.state}: {run.reason or 'no reason was given'}")
    elif run.state == "CANCELLING":
        named = tuple(run.steps[step_id].attempt_id for step_id in list(run.live)[:MOST_NAMED])
        yield Blocker(kind="STOPPING", description=f"{len(run.live)} attempts are being stopped", held_by=named)


def _of_steps(run: Run) -> Iterator[Blocker]:
    """What the steps at the front wait for; those that need them are not named."""
    if run.ended:
        return
    seen = 0
    for step in run.steps.values():
        if step.ended or step.state == "PENDING" or step.holds:
            continue
        seen += 1
        if seen > MOST_STEPS:
            return
        yield from _of_step(run, step)


def _of_step(run: Run, step: Step) -> Iterator[Blocker]:
    if step.state == "PENDING":
        yield from _pending(run, step)
    elif step.state == "AWAITING_APPROVAL":
        yield from _approval(step)
    elif step.state in ("READY", "BACKOFF"):
        yield from _startable(run, step)
    elif step.holds:
        for inner in below(run, step):
            if not inner.ended:
                yield from _of_step(run, inner)
                break
    elif step.in_flight:
        yield _in_flight(run, step)
    elif step.is_waiting:
        yield _waiting(run, step)


def _pending(run: Run, step: Step) -> Iterator[Blocker]:
    if step.is_item:
        parent = run.steps[step.above]
        most = run.spec(parent).concurrency
        held = tuple(item.id for item in below(run, parent) if item.state not in ("PENDING",) and not item.ended)
        text = f"{parent.id} works on at most {most} items at once"
        yield Blocker(kind="MAP_CONCURRENCY", step_id=step.id, description=text, held_by=held[:MOST_NAMED])
        return
    needs = [other for name in run.spec(step).needs if not (other := sibling(run, step, name)).ended]
    if needs:
        text = "; ".join(f"{other.id} is {other.state}" for other in needs[:MOST_NAMED])
        named = tuple(other.id for other in needs[:MOST_NAMED])
        yield Blocker(kind="NEEDS", step_id=step.id, description=f"it needs what has not ended: {text}", held_by=named)


def _approval(step: Step) -> Iterator[Blocker]:
    approval = step.approval
    if approval is not None:
        asked = (*approval.users, *(f"role {role}" for role in approval.roles))
        text = f"{approval.approved} of {approval.needed} have approved: {approval.message}"
        yield Blocker(kind="APPROVAL", step_id=step.id, description=text, held_by=asked, until=step.wakes_at)


def _startable(run: Run, step: Step) -> Iterator[Blocker]:
    if step.asked:
        text = (
            "its executor was lost, and nobody knows how the attempt ended: resume the run to try again, or cancel it"
        )
        yield Blocker(kind="OPERATOR", step_id=step.id, description=text, held_by=(step.executor_id,))
        return
    if step.held:
        yield Blocker(
            kind="BREAKPOINT", step_id=step.id, description="it waits at a breakpoint; step or resume the run"
        )
    if step.state == "BACKOFF" and step.id not in run.due:
        text = f"attempt {step.attempt} failed; the next is due"
        yield Blocker(kind="BACKOFF", step_id=step.id, description=text, until=step.next_attempt_at)
        return
    if run.state in STARTING and step.handler:
        yield from _wanting(run, step)


def _wanting(run: Run, step: Step) -> Iterator[Blocker]:
    """What a step lacks that could start now: leave, room, a slot."""
    if run.ledger.finite and (short := budget.lacking(run, step)):
        holders = (*run.ledger.holds, *(key for key, one in run.ledger.owed.items() if not one.charged))
        text = f"its run has too little left of what it asks for: {spoken(short)}; it waits for what others hold"
        named = tuple(holders[:MOST_NAMED])
        yield Blocker(kind="QUOTA", step_id=step.id, description=text, held_by=named)
    if not run.has_room:
        named = tuple(list(run.live)[:MOST_NAMED])
        text = f"{len(run.live)} steps of the run are under way, and no more may be"
        yield Blocker(kind="CONCURRENCY", step_id=step.id, description=text, held_by=named)
    elif not step.held:
        yield Blocker(kind="SLOT", step_id=step.id, description=f"it waits for a slot for {step.handler}")


def _in_flight(run: Run, step: Step) -> Blocker:
    if being_stopped(run, step):
        text = f"attempt {step.attempt} is being stopped"
        return Blocker(kind="STOPPING", step_id=step.id, description=text, held_by=(step.executor_id,))
    if step.child:
        text = f"run {step.child} of {run.spec(step).settings['flow']} has not ended"
        return Blocker(kind="CHILD", step_id=step.id, description=text, held_by=(step.child,))
    text = f"attempt {step.attempt} is {step.state} at {step.executor_id}"
    return Blocker(kind="ATTEMPT", step_id=step.id, description=text, held_by=(step.executor_id,))


def _waiting(run: Run, step: Step) -> Blocker:
    name = run.spec(step).settings.get("signal")
    if name is not None:
        text = f"nobody has sent the signal {name}"
        return Blocker(kind="SIGNAL", step_id=step.id, description=text, held_by=(name,), until=step.wakes_at)
    return Blocker(kind="TIMER", step_id=step.id, description="its moment has not come", until=step.wakes_at)


def earliest(blockers: tuple[Blocker, ...]) -> Micros | None:
    """When it goes on at the earliest: of what holds all up, and of steps each of which could go on alone; None where nobody can say."""
    moments = [blocker.until for blocker in blockers if not blocker.step_id]
    steps = [_last(untils) for untils in _by_step(blockers).values()]
    if steps:
        known = [step for step in steps if step is not None]
        moments.append(min(known) if len(known) == len(steps) else None)
    return _last(moments) if moments else None


def _by_step(blockers: tuple[Blocker, ...]) -> dict[str, list[Micros | None]]:
    """By step: until when it waits. Who waits for people or a message until a moment may go on before it."""
    found: dict[str, list[Micros | None]] = {}
    for blocker in blockers:
        if blocker.step_id:
            certain = blocker.kind in ("BACKOFF", "TIMER")
            found.setdefault(blocker.step_id, []).append(blocker.until if certain else None)
    return found


def _last(moments: list[Micros | None]) -> Micros | None:
    """The last of these; None where one of them is not known."""
    known = [moment for moment in moments if moment is not None]
    return max(known) if len(known) == len(moments) else None
