"""How the events of steering change a run. Part of `evolve`, the only place that changes one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from tierflow_flow.definition import Flow
from tierflow_runtime.values import Micros, Usage

from tierflow_orchestrator.core import events, generations, growth, limits
from tierflow_orchestrator.core.moves import book, lose, move, queue
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.steer import REMEMBERED_ANSWERS, Receipt, Stop
from tierflow_orchestrator.core.step import Step

# Attempts that are stopped while the run goes on.


def _interrupted(run: Run, event: events.StepInterrupted, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "READY")
    book(run, step, event.usage)
    step.attempt -= 1
    step.stopping = step.stop_to = ""
    step.started_at = None
    run.live.pop(step.id, None)
    run.ready.setdefault(step.handler, deque()).append(step.id)
    if run.spec(step).limited:
        limits.await_slot(run, step, run.spec(step), time)
        limits.restore(run, step)


def skipped(run: Run, step: Step, event: events.StepSkipped) -> None:
    """Somebody has skipped a step: what needs it goes on, and the run is PARTIAL."""
    step.output, step.tolerated, step.outcome = event.output, True, "PARTIAL"
    run.partial = True
    if not event.confirmed:
        lose(run, step, run.moment)
        run.unconfirmed[event.attempt_id] = None
    book(run, step, event.usage)
    if step.is_item:
        branches = run.steps[step.above].branches
        if branches is not None and step.index >= branches.released:
            branches.kept += 1


# Receipts.


def note_stop(run: Run, event: events.RunStateChanged, time: Micros) -> None:
    """The run is being stopped: what is in flight owes a receipt."""
    attempts = {run.steps[step_id].attempt_id: Receipt(step_id=step_id) for step_id in run.live}
    if attempts or run.cancel_asked:
        stop = Stop(asked_at=time, reason=event.reason, actor=event.actor, before=run.usage, attempts=attempts)
        run.steered().stop = stop


def note_receipt(run: Run, attempt_id: str, state: str, usage: Usage) -> None:
    """What is known by now of an attempt that was told to stop, and what it has used."""
    stop = run.steer.stop if run.steer is not None else None
    receipt = stop.attempts.get(attempt_id) if stop is not None else None
    if receipt is not None:
        receipt.state = state
        receipt.usage = receipt.usage.plus(usage)


# Breakpoints.


def _held(run: Run, event: events.StepHeld, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.held, step.released = True, False
    step.start_by = step.end_by = None
    run.steered().held.append(step.id)
    run.lookups.pop(step.id, None)
    waiting = run.ready.get(step.handler)
    while waiting and step.id in waiting:
        waiting.remove(step.id)


def _released(run: Run, event: events.StepReleased, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.released = True
    if step.held:
        step.held = False
        run.steered().held.remove(step.id)
        if step.handler:
            queue(run, step, run.spec(step))
    run.undecided.append(step.id)


def _breakpoints(run: Run, event: events.BreakpointsSet, time: Micros) -> None:
    run.steered().breakpoints = event.breakpoints


# Limits, policies, the flow.


def _updated(run: Run, event: events.RunUpdated, time: Micros) -> None:
    steer = run.steered()
    steer.version, steer.concurrency = event.version, event.concurrency
    run.allocation, run.options = event.allocation, event.options
    run.ledger.grant(event.allocation)
    if "deadline" in event.changed:
        steer.deadline = run.deadline = event.deadline


def _migrated(run: Run, event: events.RunMigrated, time: Micros) -> None:
    flow: Flow = event.flow
    run.flow = growth.whole(run, flow)
    run.flow_hash, run.flow_name, run.flow_version = event.flow_hash, event.flow_name, event.flow_version
    run.looked_into = run.unloaded = None
    _make_anew(run, flow)
    if run.steer is not None:  # What waits within blocks goes on waiting; the flow's own steps are looked at anew.
        run.steer.held = [name for name in run.steer.held if name in run.steps and run.steps[name].held]
    for spec in flow.steps:
        if spec.id not in run.steps:
            handler = spec.handler if spec.dispatched else ""
            run.steps[spec.id] = Step(id=spec.id, of=spec.id, handler=handler)
    generations.recount(run)
    generations.ready_all(run)


def _make_anew(run: Run, flow: Flow) -> None:
    """The flow's own steps that are not being executed: those not begun go, the others go on as the new version says."""
    for step in [step for step in run.steps.values() if step.state in ("PENDING", "READY") and not step.above]:
        if generations.not_begun(step):
            del run.steps[step.id]
        else:  # Between two attempts: the next one is made as the new version says.
            spec = flow.by_id[step.id]
            handler = spec.handler if spec.kind == "call" else ""
            again = run.steps[step.id] = generations.anew(step, handler=handler)
            # What is counted of it goes on: the ids of what it calls for are made of these.
            again.attempt, again.spent, again.calls = step.attempt, step.spent, step.calls


# Results of other runs, and answers.


def _reused(run: Run, event: events.StepReused, time: Micros) -> None:
    run.steered().reused[event.step_id] = (event.output, event.outcome)


def take_over(run: Run) -> None:
    """The steps are known: those whose results were taken over are COMPLETED, and what needs nothing else may start."""
    steer = run.steered()
    source = steer.reuse.run_id if steer.reuse is not None else ""
    for step_id, (output, outcome) in steer.reused.items():
        step = run.steps[step_id]
        move(run, step, "COMPLETED")
        step.output, step.outcome, step.reused_from, step.ended_at = output, outcome, source, run.created_at
    steer.reused = {}
    generations.recount(run)
    generations.ready_all(run)


def _answered(run: Run, event: events.SignalAnswered, time: Micros) -> None:
    answers = run.steered().answers
    answers[event.signal_id] = (event.step_id, event.payload)
    if len(answers) > REMEMBERED_ANSWERS:
        del answers[next(iter(answers))]


EVENTS: Final[Mapping[type, Callable[[Run, Any, Micros], None]]] = {
    events.StepReused: _reused,
    events.StepInterrupted: _interrupted,
    events.StepHeld: _held,
    events.StepReleased: _released,
    events.BreakpointsSet: _breakpoints,
    events.RunUpdated: _updated,
    events.RunMigrated: _migrated,
    events.SignalAnswered: _answered,
}
