"""How the events of blocks, of steps that help others, and of compensation change a run. Part of `evolve`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import blocks, events, growth
from tierflow_orchestrator.core.failures import is_loss
from tierflow_orchestrator.core.moves import begin, book, lose, make_ready, move
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import item_id


def _block_began(run: Run, event: events.BlockBegan, time: Micros) -> None:
    step = run.steps[event.step_id]
    begin(run, step, time)
    step.attempt, step.next_attempt_at, step.stopping, step.stop_to = event.attempt, None, "", ""
    step.deadline = event.until
    run.set_timer(step, event.until)
    for child in blocks.begin(run, step):
        make_ready(run, child)


def _grown(run: Run, event: events.StepGrown, time: Micros) -> None:
    step = run.steps[event.step_id]
    book(run, step, event.usage)
    run.live.pop(step.id, None)
    step.start_by = step.end_by = None
    run.grown[step.id] = event.definition
    growth.take(run, step.id)
    for child in blocks.begin(run, step):
        make_ready(run, child)


def _iteration_began(run: Run, event: events.IterationBegan, time: Micros) -> None:
    loop = run.steps[event.step_id]
    if loop.block is None:
        begin(run, loop, time)
        loop.deadline = event.until
        run.set_timer(loop, event.until)
    run.waits.pop(loop.id, None)
    loop.reason, loop.wakes_at = "", None
    roots = blocks.iterate(run, loop, event.index)
    iteration = run.steps[item_id(loop.id, event.index)]
    iteration.scheduled_at = iteration.started_at = time
    for child in roots:
        make_ready(run, child)


def _handler_called(run: Run, event: events.HandlerCalled, time: Micros) -> None:
    step = run.steps[event.step_id]
    if step.state != "RUNNING":
        begin(run, step, time)
    step.failure, step.stopping, step.stop_to = event.failure, "", ""
    step.deadline, step.next_attempt_at, step.start_by, step.end_by = None, None, None, None
    if event.attempt_id and is_loss(event.failure):
        lose(run, step, time)
    book(run, step, event.usage)
    run.live.pop(step.id, None)
    run.waits.pop(step.id, None)
    run.due.discard(step.id)
    step.calls += 1
    rescue = run.spec(step).rescue
    if rescue is None:
        raise ValueError(f"nothing handles the errors of {step.id}")
    spec = run.definition().by_id[rescue.step]
    make_ready(run, blocks.help_with(run, step, "handler", spec, event.handler_step))


def _reset(run: Run, event: events.StepReset, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.block, step.reason, step.spent = None, "", step.attempt
    make_ready(run, step)


def _compensation_began(run: Run, event: events.CompensationBegan, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "COMPENSATING")
    run.undo.pop()
    undo = run.spec(step).undo
    if undo is None:
        raise ValueError(f"{step.id} does not say how it is compensated")
    make_ready(run, blocks.help_with(run, step, "compensation", undo, f"{step.id}!compensate"))


def _compensated(run: Run, event: events.StepCompensated, time: Micros) -> None:
    move(run, run.steps[event.step_id], "COMPENSATED")


def _compensation_failed(run: Run, event: events.CompensationFailed, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "FAILED")
    step.failure = event.failure
    run.undone.append(step.id)


BY_TYPE: Final[Mapping[type, Callable[[Run, Any, Micros], None]]] = {
    events.BlockBegan: _block_began,
    events.StepGrown: _grown,
    events.IterationBegan: _iteration_began,
    events.HandlerCalled: _handler_called,
    events.StepReset: _reset,
    events.CompensationBegan: _compensation_began,
    events.StepCompensated: _compensated,
    events.CompensationFailed: _compensation_failed,
}
