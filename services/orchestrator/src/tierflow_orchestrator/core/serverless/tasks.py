"""What the tasks of each kind do: when they begin, when one in them has ended, when a moment has come."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.serverless.program import Task, same_type
from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.payloads import payload_of
from tierflow_orchestrator.core.scope import write
from tierflow_orchestrator.core.serverless import extending, listening
from tierflow_orchestrator.core.serverless.errors import Raised, error_of, standard
from tierflow_orchestrator.core.serverless.scope import frame_of, inside, iso, task_of, truth, value_of
from tierflow_orchestrator.core.serverless.walking import (
    MOST_AT_ONCE,
    complete,
    deadline,
    duration,
    enter,
    fail,
    fail_with,
    first,
    give_up,
    open_,
    recalled,
    stop_below,
    walk_on,
)
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def _data(turn: Turn, step: Step) -> Any:
    return value_of(turn.run, frame_of(step).data)


# One after another.


def do(turn: Turn, step: Step, task: Task) -> None:
    """`do`: the first task."""
    open_(turn, step)
    given = frame_of(step).input
    if not first(turn, step, "do", given):
        complete(turn, step, _data(turn, step))


def function(turn: Turn, step: Step, task: Task) -> None:
    """A function of the document: its task, with the call's arguments."""
    open_(turn, step)
    data = _data(turn, step)
    arguments = task.settings["with"]
    given = data if arguments is None else arguments.resolve(inside(turn, step, data))
    first(turn, step, "do", payload_of(write(given), turn.blobs))


def do_next(turn: Turn, step: Step, task: Task, child: Step) -> None:
    """The next task of a list, or the end."""
    if give_up(turn, step, child):
        return
    said = walk_on(turn, step, child)
    if said:
        complete(turn, step, _data(turn, step), "end" if said == "end" else "")


def for_(turn: Turn, step: Step, task: Task) -> None:
    """`for`: the first iteration."""
    open_(turn, step)
    _iterate(turn, step, task, 0)


def for_next(turn: Turn, step: Step, task: Task, child: Step) -> None:
    """The next task of an iteration, the next iteration, or the end."""
    if give_up(turn, step, child):
        return
    number = frame_of(step).round
    said = walk_on(turn, step, child, _bound(turn, step, task, number))
    if said == "over":
        _iterate(turn, step, task, number + 1)
    elif said:
        complete(turn, step, _data(turn, step), "end" if said == "end" else "")


def _items(turn: Turn, step: Step) -> list[Any]:
    """What a loop goes through: read once and kept, so that an iteration costs the same however many there are."""
    items = turn.run.items.get(step.id)
    if items is None:
        items = turn.run.items[step.id] = value_of(turn.run, frame_of(step).items)
    return items


def _bound(turn: Turn, step: Step, task: Task, number: int) -> dict[str, Any]:
    items = _items(turn, step)
    return {task.settings["each"]: items[number], task.settings["at"]: number}


def _iterate(turn: Turn, step: Step, task: Task, number: int) -> None:
    items, data = _items(turn, step), _data(turn, step)
    if number < len(items):
        bound = _bound(turn, step, task, number)
        wanted = truth(task.settings["while"], inside(turn, step, data, bound), default=True)
        if wanted and first(turn, step, "do", frame_of(step).data, number, bound):
            return
    complete(turn, step, data)


# Side by side.


def fork(turn: Turn, step: Step, task: Task) -> None:
    """`fork`: all branches."""
    open_(turn, step)
    given = frame_of(step).input
    for pointer in task.lists["branches"]:
        if step.ended:
            return
        enter(turn, step, pointer, given, "branches")


def fork_next(turn: Turn, step: Step, task: Task, child: Step) -> None:
    """A branch has ended: the first one is enough where they compete."""
    if task.settings["compete"]:
        _compete(turn, step, child)
        return
    if give_up(turn, step, child):
        return
    if child.state == "COMPLETED" and _end_of(turn, child):
        stop_below(turn, step, f"{child.id} ended the document")
        complete(turn, step, value_of(turn.run, child.output), "end")
    elif not frame_of(step).open:
        ended = [turn.run.steps[f"{step.id}{pointer[len(step.of) :]}"] for pointer in task.lists["branches"]]
        complete(turn, step, [value_of(turn.run, each.output) for each in ended])


def _compete(turn: Turn, step: Step, child: Step) -> None:
    """The first branch that completes has won; a branch that fails loses, the last one for all of them."""
    if child.state == "COMPLETED":
        stop_below(turn, step, f"{child.id} was first")
        complete(turn, step, value_of(turn.run, child.output), _end_of(turn, child))
    elif not frame_of(step).open and not give_up(turn, step, child):
        complete(turn, step, value_of(turn.run, frame_of(step).input))


def _end_of(turn: Turn, branch: Step) -> str:
    said = frame_of(branch).directive or task_of(turn.run, branch).then
    return "end" if said == "end" else ""


# At once.


def set_(turn: Turn, step: Step, task: Task) -> None:
    """`set`: the output, said outright."""
    complete(turn, step, task.settings["set"].resolve(inside(turn, step, _data(turn, step))))


def switch(turn: Turn, step: Step, task: Task) -> None:
    """`switch`: where the first case that holds says."""
    data = _data(turn, step)
    surroundings = inside(turn, step, data)
    for _, condition, then in task.settings["cases"]:
        if truth(condition, surroundings, default=True):
            complete(turn, step, data, then)
            return
    complete(turn, step, data)


def raise_(turn: Turn, step: Step, task: Task) -> None:
    """`raise`: the error, said outright."""
    surroundings = inside(turn, step, _data(turn, step))
    error = {key: value.resolve(surroundings) for key, value in task.settings["error"].items()}
    status = error.get("status")
    if isinstance(status, bool) or not isinstance(status, int) or not isinstance(error.get("type"), str):
        raise ExpressionError("an error has a type and a whole number as status")
    fail(turn, step, Raised(error))


def emit(turn: Turn, step: Step, task: Task) -> None:
    """`emit`: a CloudEvent, in the run's journal and so published as reliably as its other events."""
    said = task.settings["event"].resolve(inside(turn, step, _data(turn, step)))
    event = {"specversion": "1.0", "id": f"{turn.run.id}{step.id}", "time": iso(turn.now), **said}
    if "data" in event:
        event.setdefault("datacontenttype", "application/json")
    payload = payload_of(write(event), turn.blobs)
    turn.emit(events.EventEmitted(step_id=step.id, name=str(event["type"])[:200], payload=payload))
    complete(turn, step, event)


# Waiting.


def wait(turn: Turn, step: Step, task: Task) -> None:
    """`wait`: until its time is over, or the time that it has."""
    end = turn.now + duration(task.settings["wait"].resolve(inside(turn, step, _data(turn, step))))
    bound = deadline(turn, step)
    if bound is not None and bound < end:
        turn.emit(events.StepWaiting(step_id=step.id, reason="DEADLINE", until=bound))
    elif end > turn.now:
        turn.emit(events.StepWaiting(step_id=step.id, reason="TIMER", until=end))
    else:
        complete(turn, step, _data(turn, step))


def call(turn: Turn, step: Step, task: Task) -> None:
    """`call` and `run`: READY until an executor has a slot."""


# Errors.


def try_(turn: Turn, step: Step, task: Task) -> None:
    """`try`: the first task."""
    open_(turn, step)
    if not first(turn, step, "try", frame_of(step).input):
        complete(turn, step, _data(turn, step))


def try_next(turn: Turn, step: Step, task: Task, child: Step) -> None:
    """The next task, or what is to be done about an error."""
    frame = frame_of(step)
    if child.state == "FAILED" and frame.walking == "try":
        _caught(turn, step, task, child)
        return
    if give_up(turn, step, child):
        return
    bound = {name: value_of(turn.run, text) for name, text in frame.variables.items()}
    said = walk_on(turn, step, child, bound)
    if said:
        complete(turn, step, _data(turn, step), "end" if said == "end" else "")


def _caught(turn: Turn, step: Step, task: Task, child: Step) -> None:
    """An error arose: it is caught where the filter takes it, tried again where there is a policy and it allows for it, then handled."""
    failure = child.failure
    if failure is None:
        raise ValueError(f"{child.id} failed without a failure")
    error = error_of(failure, child.of)
    name, settings = task.settings["as"], task.settings
    seen = inside(turn, step, value_of(turn.run, frame_of(step).input), {name: error})
    stop_below(turn, step, f"{child.id} has failed")
    if not (_matches(settings["errors"], error, seen) and _allowed(settings, seen)):
        fail_with(turn, step, failure)
        return
    policy = settings["retry"]
    if policy is not None:
        if _allowed(policy, seen) and _try_again(turn, step, policy, error):
            return
        if not settings["handles"]:
            fail_with(turn, step, failure)
            return
    if not first(turn, step, "catch", frame_of(step).input, bound={name: error}):
        complete(turn, step, value_of(turn.run, frame_of(step).input))


def _matches(wanted: Mapping[str, Any], error: Mapping[str, Any], seen: Any) -> bool:
    for key, value in wanted.items():
        expected, found = value.resolve(seen), error.get(key)
        same = same_type(str(expected), str(found)) if key == "type" else expected == found
        if not same:
            return False
    return True


def _allowed(said: Mapping[str, Any], seen: Any) -> bool:
    return truth(said["when"], seen, default=True) and not truth(said["exceptWhen"], seen, default=False)


def _try_again(turn: Turn, step: Step, policy: Mapping[str, Any], error: Any) -> bool:
    """Tries once more, after the delay; whether the limits allow for it."""
    frame, seen = frame_of(step), inside(turn, step, error)
    tried = frame.round + 1
    if policy["count"] is not None and tried > policy["count"]:
        return False
    due = turn.now + _delay(policy, tried, seen, f"{turn.run.id}{step.id}/{tried}")
    if policy["duration"] is not None:
        most = duration(policy["duration"].resolve(seen))
        if due > (step.started_at or turn.now) + most:
            return False
    if frame.deadline is not None:
        due = min(due, frame.deadline)
    turn.emit(events.StepWaiting(step_id=step.id, reason="RETRY", until=due))
    return True


def _delay(policy: Mapping[str, Any], tried: int, seen: Any, seed: str) -> Micros:
    base = 0 if policy["delay"] is None else duration(policy["delay"].resolve(seen))
    if policy["backoff"] == "exponential":
        base *= 2 ** min(tried - 1, 40)
    elif policy["backoff"] == "linear":
        base *= tried
    if policy["jitter"] is not None:
        low, high = (duration(edge.resolve(seen)) for edge in policy["jitter"])
        share = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest(), "big") / 2**64
        base += low + round((high - low) * share)
    return min(base, 86_400_000_000)


def due(turn: Turn, step: Step) -> None:
    """The moment has come until when a task waits at the latest."""
    frame, task = frame_of(step), task_of(turn.run, step)
    late = frame.deadline is not None and turn.now >= frame.deadline
    if step.reason == "TIMER":
        complete(turn, step, _data(turn, step))
    elif step.reason == "YIELD":
        begin(turn, step)
    elif step.reason == "RETRY" and not late:
        turn.emit(events.StepWaiting(step_id=step.id, reason="STEPS", until=frame.deadline))
        first(turn, step, "try", frame.input, frame.round)
    else:
        stop_below(turn, step, f"{step.id} was not done in time")
        fail(turn, step, standard("timeout", 408, "Timeout", f"{task.name} was not done in time"))


def begin(turn: Turn, step: Step) -> None:
    """A task begins; where much was decided already, with the next decision."""
    task = task_of(turn.run, step)
    if len(turn.events) > MOST_AT_ONCE and not task.handler and step.reason != "YIELD":
        turn.emit(events.StepWaiting(step_id=step.id, reason="YIELD", until=turn.now))
        return
    try:
        if not recalled(turn, step):
            BEGIN[task.kind](turn, step, task)
    except (ExpressionError, Raised) as error:
        stop_below(turn, step, f"{step.id} has failed")
        fail(turn, step, error)


def go_on(turn: Turn, step: Step) -> None:
    """A task in this one has ended."""
    frame, task = frame_of(step), task_of(turn.run, step)
    child = turn.run.steps.get(frame.last)
    if child is None or step.ended:
        return
    try:
        NEXT[task.kind](turn, step, task, child)
    except (ExpressionError, Raised) as error:
        stop_below(turn, step, f"{step.id} has failed")
        fail(turn, step, error)


BEGIN: Final[Mapping[str, Callable[[Turn, Step, Task], None]]] = {
    "call": call,
    "do": do,
    "emit": emit,
    "extended": extending.extended,
    "for": for_,
    "fork": fork,
    "function": function,
    "listen": listening.listen,
    "raise": raise_,
    "run": call,
    "set": set_,
    "switch": switch,
    "try": try_,
    "wait": wait,
}
NEXT: Final[Mapping[str, Callable[[Turn, Step, Task, Step], None]]] = {
    "do": do_next,
    "extended": extending.extended_next,
    "for": for_next,
    "fork": fork_next,
    "function": do_next,
    "listen": listening.listen_next,
    "try": try_next,
}
"""What follows where a task inside has ended."""
