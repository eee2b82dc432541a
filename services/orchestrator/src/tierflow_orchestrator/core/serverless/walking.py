"""How a document goes on: tasks begin, complete, fail, and the task around them takes the next step.

The position of a run is its steps that have not ended, each with its frame. Nothing else is kept between decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.serverless.durations import micros_of
from tierflow_flow.serverless.program import Task, named_in, next_in
from tierflow_runtime.values import NO_USAGE, Failure, Micros, Payload, Usage

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import write
from tierflow_orchestrator.core.serverless.errors import Raised, error_of, failure_of, standard
from tierflow_orchestrator.core.serverless.scope import (
    around,
    check,
    frame_of,
    inside,
    program_of,
    store,
    task_of,
    truth,
    value_of,
)
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.stopping import stop_step
from tierflow_orchestrator.core.turn import Turn

NOTHING: Final[Mapping[str, Any]] = {}
MOST_STEPS: Final = 100_000
"""Tasks that a run may begin."""
MOST_AT_ONCE: Final = 1_000
"""Events of one decision after which the next task waits for the next decision."""


def enter(
    turn: Turn,
    parent: Step | None,
    pointer: str,
    given: Payload | None,
    walking: str = "",
    number: int = 0,
    bound: Mapping[str, Any] = NOTHING,
) -> None:
    """Begins a task.

    Args:
        turn: The decision.
        parent: The step around it.
        pointer: The task.
        given: What it is given, before it transforms it.
        walking: The list of the step around it that it is in.
        number: The iteration or the try of that list.
        bound: What the step around it binds for it.
    """
    run = turn.run
    task = program_of(run).tasks[pointer]
    variables = {name: write(value) for name, value in sorted(bound.items())}
    entered = events.StepEntered(
        step_id=_fresh_id(run, parent, pointer, walking, number),
        definition=pointer,
        parent="" if parent is None else parent.id,
        list_=walking,
        round=number,
        input=None if parent is not None and given == frame_of(parent).data else given,
        variables=variables,
    )
    try:
        _check_count(run)
        raw = value_of(run, given)
        own = around(turn, parent, task, raw, {"input": raw, **bound})
        if not truth(task.condition, own, default=True):
            turn.emit(entered)
            turn.emit(events.StepSkipped(step_id=entered.step_id, reason="its condition is false"))
            return
        turn.emit(_transformed(turn, entered, (parent, task, raw), bound))
    except (ExpressionError, Raised) as error:
        turn.emit(entered)
        fail(turn, run.steps[entered.step_id], error)


def _transformed(
    turn: Turn, entered: events.StepEntered, what: tuple[Step | None, Task, Any], bound: Mapping[str, Any]
) -> events.StepEntered:
    """The event with the input as the task wants it, and with what it goes through where it is a loop."""
    parent, task, raw = what
    check(task.input_schema, raw, "input")
    value, changed = raw, entered.input
    if task.input_from is not None:
        value = task.input_from.resolve(around(turn, parent, task, raw, {"input": raw, **bound}))
        changed = store(turn, value)
    items = None
    if task.kind == "for":
        found = task.settings["in"].resolve(around(turn, parent, task, value, {"input": value, **bound}))
        if not isinstance(found, list):
            raise ExpressionError("in of a for is an array")
        items = store(turn, found)
    return events.StepEntered(
        step_id=entered.step_id,
        definition=entered.definition,
        parent=entered.parent,
        list_=entered.list_,
        round=entered.round,
        input=changed,
        variables=entered.variables,
        items=items,
    )


def _check_count(run: Run) -> None:
    if len(run.steps) >= MOST_STEPS:
        raise standard("runtime", 500, "Runtime Error", f"the run has begun {MOST_STEPS} tasks, the most that it may")


def _fresh_id(run: Run, parent: Step | None, pointer: str, walking: str, number: int) -> str:
    """The id of a step: the pointer of its task, with the iterations around it; what comes again gets a number of its own."""
    if parent is None:
        return pointer
    relative = pointer[len(parent.of) :]
    if number:
        relative = relative.replace(f"/{walking}/", f"/{walking}[{number}]/", 1)
    wanted = parent.id + relative
    return wanted if wanted not in run.steps else f"{wanted}~{frame_of(parent).entered}"


# Ends.


def complete(turn: Turn, step: Step, output: Any, directive: str = "", **more: Any) -> None:
    """A task is done: its output is transformed and checked, the context set, the step ended.

    Args:
        turn: The decision.
        step: The step.
        output: Its output before it is transformed.
        directive: Where it says to go on, where that is not what its definition says.
        more: Further fields of its last event.
    """
    task = task_of(turn.run, step)
    try:
        if task.output_as is not None:
            output = task.output_as.resolve(inside(turn, step, output, {"output": output}))
        check(task.output_schema, output, "output")
        payload = store(turn, output)
        _export(turn, step, output)
    except (ExpressionError, Raised) as error:
        fail(turn, step, error, **more)
        return
    turn.emit(events.StepCompleted(step_id=step.id, output=payload, directive=directive, **more))


def recalled(turn: Turn, step: Step) -> bool:
    """Whether a task was done in an earlier generation, when it was given the same: it is done again at once, with what it gave. Raises `ExpressionError`, `Raised`."""
    steer = turn.run.steer
    kept = steer.kept.get(step.id) if steer is not None else None
    if kept is None or kept.input != frame_of(step).input:
        return False
    if kept.skipped:
        reason = "skipped by hand in an earlier generation"
        turn.emit(events.StepSkipped(step_id=step.id, reason=reason, by_hand=True, output=kept.output))
        return True
    _export(turn, step, value_of(turn.run, kept.output) if task_of(turn.run, step).export_as is not None else None)
    turn.emit(events.StepCompleted(step_id=step.id, output=kept.output, directive=kept.directive))
    return True


def _export(turn: Turn, step: Step, output: Any) -> None:
    """Sets the context, where the task says so. Raises `ExpressionError`, `Raised`."""
    task = task_of(turn.run, step)
    if task.export_as is not None:
        context = task.export_as.resolve(inside(turn, step, output, {"output": output}))
        check(task.export_schema, context, "context")
        turn.emit(events.ContextExported(step_id=step.id, context=store(turn, context)))


def fail(turn: Turn, step: Step, error: Raised | ExpressionError, **more: Any) -> None:
    """A task failed by an error of its own."""
    fail_with(turn, step, failure_of(step, error), **more)


def fail_with(
    turn: Turn, step: Step, failure: Failure, *, attempt: int = 0, attempt_id: str = "", usage: Usage = NO_USAGE
) -> None:
    """A task failed: the one around it hears of it."""
    found = error_of(failure, step.of)
    if failure.operation != "serverless":
        failure = failure_of(step, Raised(found), failure.code)
    turn.emit(events.StepFailed(step_id=step.id, failure=failure, attempt=attempt, attempt_id=attempt_id, usage=usage))


def stop_below(turn: Turn, step: Step, reason: str) -> None:
    """Stops everything inside a task; what is in flight ends when there is a receipt, and nobody waits for it."""
    run = turn.run
    if not frame_of(step).open:
        return
    for other in tuple(run.steps.values()):
        if other is not step and not other.ended and other.frame is not None and _is_below(run, other, step):
            stop_step(turn, other, reason)


def _is_below(run: Run, step: Step, other: Step) -> bool:
    while step.frame is not None and step.frame.parent:
        step = run.steps[step.frame.parent]
        if step is other:
            return True
    return False


# Tasks with tasks in them.


def open_(turn: Turn, step: Step) -> None:
    """A task begins that lasts as long as those in it."""
    turn.emit(events.StepWaiting(step_id=step.id, reason="STEPS", until=deadline(turn, step)))


def deadline(turn: Turn, step: Step) -> Micros | None:
    """Until when a task that begins now must be done. Raises `ExpressionError`."""
    timeout = task_of(turn.run, step).timeout
    if timeout is None:
        return None
    return turn.now + duration(timeout.resolve(inside(turn, step, value_of(turn.run, frame_of(step).input))))


def duration(value: Any) -> Micros:
    """A duration that was evaluated. Raises `ExpressionError`."""
    try:
        return micros_of(value)
    except ValueError as error:
        raise ExpressionError(f"the duration {error}") from None


def first(
    turn: Turn,
    step: Step,
    walking: str,
    given: Payload | None,
    number: int = 0,
    bound: Mapping[str, Any] = NOTHING,
) -> bool:
    """Begins the first task of a list; whether there is one."""
    siblings = task_of(turn.run, step).lists.get(walking, ())
    if siblings:
        enter(turn, step, siblings[0], given, walking, number, bound)
    return bool(siblings)


def walk_on(turn: Turn, step: Step, child: Step, bound: Mapping[str, Any] = NOTHING) -> str:
    """Begins the task after one that has ended; else `over`, `exit` or `end`: the list has no more, or is left, or the whole document ends."""
    program, frame = program_of(turn.run), frame_of(step)
    siblings = task_of(turn.run, step).lists[frame.walking]
    said = "continue" if child.state == "SKIPPED" else frame_of(child).directive or task_of(turn.run, child).then
    if said in ("exit", "end"):
        return said
    found = next_in(program, siblings, child.of) if said == "continue" else named_in(program, siblings, said)
    if found is None:
        return "over"
    enter(turn, step, found, frame.data, frame.walking, frame.round, bound)
    return ""


def give_up(turn: Turn, step: Step, child: Step) -> bool:
    """Ends a task of which one in it failed or was cancelled; whether it did."""
    if child.state == "FAILED" and child.failure is not None:
        stop_below(turn, step, f"{child.id} has failed")
        fail_with(turn, step, child.failure)
        return True
    if child.state == "CANCELLED":
        stop_step(turn, step, child.reason)
        return True
    return False
