"""The effects that events demand, and those that a state demands after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tierflow_orchestrator.core import children, commands, events
from tierflow_orchestrator.core.branches import being_stopped, live_below, stopped, stopped_by
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step


def react(run: Run, event: events.RunEvent) -> Iterable[commands.Effect]:
    """What a committed event demands. The run may be ahead of the event by now; effects may be repeated."""
    if isinstance(event, events.StepScheduled):
        return (
            commands.DispatchAttempt(
                step_id=event.step_id,
                attempt=event.attempt,
                attempt_id=event.attempt_id,
                epoch=event.epoch,
                executor_id=event.executor_id,
                handler=event.handler,
                input=event.input,
            ),
        )
    demanded = _DEMANDS.get(type(event))
    return () if demanded is None else demanded(run, event)


def _changed(run: Run, event: events.RunStateChanged) -> Iterable[commands.Effect]:
    if event.to != "CANCELLING":
        return list(children.untold(run, run.live))
    # The run may be ahead: what undoes is in flight in the same commit, and is not to be stopped.
    steps = (run.steps[step_id] for step_id in run.live)
    return [_stop(run, step) for step in steps if being_stopped(run, step)]


def _of_child(run: Run, event: events.StepStarted | events.ChildTold) -> Iterable[commands.Effect]:
    return children.untold(run, (event.step_id,)) if run.steps[event.step_id].child else ()


def _failed(run: Run, event: events.StepFailed) -> Iterable[commands.Effect]:
    return () if event.tolerated else list(_stop_siblings(run, run.steps[event.step_id]))


def _stopping(run: Run, event: events.StepStopping) -> Iterable[commands.Effect]:
    return list(_stop_one(run, run.steps[event.step_id]))


def _ended(run: Run, event: events.RunEnded) -> Iterable[commands.Effect]:
    return () if run.buried else (commands.ReportEnd(),)


def _completed(run: Run, event: events.StepCompleted) -> Iterable[commands.Effect]:
    return _store(run, event) if run.definition().cached else ()


_DEMANDS: dict[type, Callable[[Run, Any], Iterable[commands.Effect]]] = {
    events.RunStateChanged: _changed,
    events.StepStarted: _of_child,
    events.ChildTold: _of_child,
    events.StepFailed: _failed,
    events.StepStopping: _stopping,
    events.RunEnded: _ended,
    events.StepCompleted: _completed,
}


def open_effects(run: Run) -> Iterator[commands.Effect]:
    """Everything that may not have been done, from the state alone (rule R16). An attempt that is being stopped is not dispatched again."""
    for step_id in run.live:
        step = run.steps[step_id]
        if being_stopped(run, step):
            yield _stop(run, step)
        elif step.input is not None:
            yield commands.DispatchAttempt(
                step_id=step.id,
                attempt=step.attempt,
                attempt_id=step.attempt_id,
                epoch=step.epoch,
                executor_id=step.executor_id,
                handler=step.handler,
                input=step.input,
            )
    yield from children.untold(run, run.live)
    if run.ended and not run.buried:
        yield commands.ReportEnd()


def _store(run: Run, event: events.StepCompleted) -> Iterable[commands.Effect]:
    """A result that others may take over: one that is whole."""
    step = run.steps[event.step_id]
    cache = run.spec(step).cache
    if cache is None or not step.cache_key or not event.attempt_id or event.outcome != "SUCCESS":
        return ()
    return (commands.StoreResult(step_id=step.id, key_hash=step.cache_key, output=event.output, ttl=cache.ttl),)


def _stop_one(run: Run, step: Step) -> Iterator[commands.StopAttempt]:
    """What is in flight of a step that is being stopped."""
    for other in (step,) if step.id in run.live else live_below(run, step):
        yield _stop(run, other)


def _stop_siblings(run: Run, step: Step) -> Iterator[commands.Effect]:
    """Where an item's failure was the one too many: its siblings in flight."""
    if not step.is_item or run.state == "CANCELLING":
        return
    parent = run.steps[step.above]
    if parent.branches is not None and parent.branches.sealed_by == step.id and stopped(run, parent):
        for other in live_below(run, parent):
            yield _stop(run, other)


def _stop(run: Run, step: Step) -> commands.StopAttempt:
    by = stopped_by(run, step)
    reason = run.stopping or ("STEP_FAILED" if by is None else by.stopping)
    return commands.StopAttempt(attempt_id=step.attempt_id, executor_id=step.executor_id, reason=reason)
