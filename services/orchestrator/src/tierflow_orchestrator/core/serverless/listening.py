"""`listen`: a task takes events that were sent to its run, in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.values import dumps, loads
from tierflow_flow.serverless.program import Task
from tierflow_flow.serverless.values import Surroundings
from tierflow_runtime.values import Micros

from tierflow_orchestrator.core import commands, events
from tierflow_orchestrator.core.evolve_serverless import INBOX
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import parse, write
from tierflow_orchestrator.core.serverless.errors import Raised
from tierflow_orchestrator.core.serverless.scope import around, frame_of, inside, iso, task_of, truth
from tierflow_orchestrator.core.serverless.walking import complete, deadline, fail, first, give_up, walk_on
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def envelope(command: commands.Signal, run: Run, now: Micros) -> str:
    """A signal as a CloudEvent, JSON text: as it is where it is one, else with the signal's name as type. Raises `ExpressionError`."""
    value = parse(command.payload)
    if not (
        isinstance(value, dict) and isinstance(value.get("specversion"), str) and isinstance(value.get("type"), str)
    ):
        value = {"specversion": "1.0", "type": command.name, "data": value}
    full = {"id": command.command_id, "source": f"/runs/{run.id}", "time": iso(now), **value}
    return write(full)


def listen(turn: Turn, step: Step, task: Task) -> None:
    """Takes what is there already, then waits."""
    turn.emit(events.StepWaiting(step_id=step.id, reason="EVENTS", until=deadline(turn, step)))
    take(turn, step)


def offer(turn: Turn) -> bool:
    """Offers events that wait to the tasks that listen; whether one was taken."""
    run = turn.run
    before = len(turn.events)
    for step_id in tuple(run.waits):
        step = run.steps[step_id]
        if step.reason == "EVENTS" and not step.ended:
            try:
                take(turn, step)
            except (ExpressionError, Raised) as error:
                fail(turn, step, error)
    return len(turn.events) > before


def take(turn: Turn, step: Step) -> None:
    """Takes events as long as there are some for this task, and ends it when it has what it listens for."""
    task, frame = task_of(turn.run, step), frame_of(step)
    place = 0
    while not step.ended and frame.open == 0:
        if _satisfied(turn, step, task):
            complete(turn, step, _read(task, frame.consumed, frame.places))
            return
        waiting = turn.run.signals.get(INBOX, ())
        if place >= len(waiting):
            return
        found = _wanted(turn, step, task, loads(waiting[place]))
        if found is None:
            place += 1
            continue
        turn.emit(events.EventConsumed(step_id=step.id, place=place, for_filter=found[0], keys=found[1]))
        if found[0] >= 0 and "foreach" in task.settings:
            _each(turn, step, task)


def _each(turn: Turn, step: Step, task: Task) -> None:
    """Begins the tasks for the event that was taken last; others wait meanwhile."""
    frame = frame_of(step)
    number = sum(place >= 0 for place in frame.places) - 1
    item, at = task.settings["foreach"]
    read = _read(task, frame.consumed[-1:], frame.places[-1:])
    first(turn, step, "do", frame.input, number, {item: read[0], at: number})


def listen_next(turn: Turn, step: Step, task: Task, child: Step) -> None:
    """The next task for an event, or the next event."""
    if give_up(turn, step, child):
        return
    frame = frame_of(step)
    bound = {name: loads(text) for name, text in frame.variables.items()}
    said = walk_on(turn, step, child, bound)
    if said == "over":
        take(turn, step)
    elif said:
        complete(turn, step, _read(task, frame.consumed, frame.places), "end" if said == "end" else "")


def _read(task: Task, consumed: list[str], places: list[int]) -> list[Any]:
    """The events that were listened for, as the task wants to read them."""
    found = [loads(text) for text, place in zip(consumed, places, strict=True) if place >= 0]
    return [event.get("data") for event in found] if task.settings["read"] == "data" else found


def _satisfied(turn: Turn, step: Step, task: Task) -> bool:
    """Whether it has what it listens for."""
    frame, settings = frame_of(step), task.settings
    taken = [place for place in frame.places if place >= 0]
    if settings["mode"] == "all":
        return len(set(taken)) == len(settings["filters"])
    if settings["until_events"] is not None:
        ending = [-1 - place for place in frame.places if place < 0]
        return _ended(settings["until_events"], ending)
    if settings["until"] is not None:
        return bool(taken) and truth(
            settings["until"], inside(turn, step, _read(task, frame.consumed, frame.places)), default=False
        )
    return bool(taken) and not settings["forever"]


def _ended(strategy: Mapping[str, Any], ending: list[int]) -> bool:
    return len(set(ending)) == len(strategy["filters"]) if strategy["mode"] == "all" else bool(ending)


def _wanted(turn: Turn, step: Step, task: Task, event: dict[str, Any]) -> tuple[int, dict[str, str]] | None:
    """For which filter an event is (below 0: for one that ends the listening), and the correlations that it binds; None: for none."""
    settings, frame = task.settings, frame_of(step)
    if (until := settings["until_events"]) is not None:
        for index, wanted in enumerate(until["filters"]):
            if (keys := _fits(turn, step, wanted, event)) is not None:
                return -1 - index, keys
        if not until["filters"]:
            return -1, {}
    if not settings["filters"]:
        return 0, {}
    for index, wanted in enumerate(settings["filters"]):
        if settings["mode"] == "all" and index in frame.places:
            continue
        if (keys := _fits(turn, step, wanted, event)) is not None:
            return index, keys
    return None


def _fits(turn: Turn, step: Step, wanted: Mapping[str, Any], event: dict[str, Any]) -> dict[str, str] | None:
    """The correlations that an event binds where it is as a filter wants it; None where it is not."""
    task = task_of(turn.run, step)
    for name, value in wanted["with"].items():
        if not _attribute_fits(value, event.get(name), around(turn, step, task, event.get(name), {})):
            return None
    return _correlated(turn, step, wanted["correlate"], event)


def _attribute_fits(value: Any, found: Any, seen: Surroundings) -> bool:
    try:
        expected = value.resolve(seen)
    except ExpressionError:
        # The filter asks for something that this event does not have.
        return False
    return expected if isinstance(expected, bool) and not value.constant else bool(expected == found)


def _correlated(turn: Turn, step: Step, keys: Mapping[str, Any], event: dict[str, Any]) -> dict[str, str] | None:
    frame, bound = frame_of(step), {}
    seen = inside(turn, step, event)
    for name, (from_, expect) in sorted(keys.items()):
        found = dumps(from_.resolve(seen))
        wanted = frame.keys.get(name) if expect is None else dumps(expect.resolve(seen))
        if wanted is None:
            bound[name] = found
        elif wanted != found:
            return None
    return bound
