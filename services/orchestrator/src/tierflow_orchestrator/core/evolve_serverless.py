"""How the events of documents change a run: tasks that begin, what they hand on, events that they take. Part of `evolve`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from tierflow_runtime.values import BlobRef, Micros, Payload

from tierflow_orchestrator.core import events
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.steer import Kept
from tierflow_orchestrator.core.step import Frame, Step

INBOX: Final = "events"
"""Under which a document's events wait among a run's signals."""


def _entered(run: Run, event: events.StepEntered, time: Micros) -> None:
    spec = run.definition().by_id[event.definition]
    parent = run.steps.get(event.parent)
    given = event.input
    if given is None and parent is not None and parent.frame is not None:
        given = parent.frame.data
    frame = Frame(parent=event.parent, input=given, data=given, items=event.items)
    step = Step(id=event.step_id, of=event.definition, handler=spec.handler, state="READY", frame=frame)
    run.steps[step.id] = step
    run.counts_by_state["READY"] += 1
    _note(run, step.of, event.input)
    _note(run, step.of, event.items)
    note_kept(run, step)
    if step.handler:
        run.ready.setdefault(step.handler, deque()).append(step.id)
    run.undecided.append(step.id)
    if parent is None or parent.frame is None:
        run.open_steps += 1
        return
    around = parent.frame
    around.walking, around.round, around.variables = event.list_, event.round, event.variables
    around.entered += 1
    around.open += 1
    around.last = ""


def _note(run: Run, definition_id: str, payload: Payload | None) -> None:
    """A value that is stored apart is at hand when it is looked into."""
    if isinstance(payload, BlobRef):
        run.note_large(definition_id, payload)
        if run.unloaded is not None:
            run.unloaded[payload.sha256] = None


def count_in(run: Run, step: Step, frame: Frame) -> None:
    """A task has ended: the one around it is looked at, and has what it gave."""
    frame.data, frame.items, frame.consumed, frame.places = None, None, [], []
    run.items.pop(step.id, None)
    parent = run.steps.get(frame.parent)
    if parent is None or parent.frame is None:
        run.open_steps -= 1
        run.top_ended += 1
        return
    around = parent.frame
    around.open -= 1
    around.last = step.id
    if parent.ended:
        return
    if step.state == "COMPLETED" or (step.state == "SKIPPED" and step.output is not None):
        around.data = step.output
    run.undecided.appendleft(parent.id)


def forget(run: Run) -> None:
    """The document is going to be walked again from its beginning; what its tasks gave is remembered by the steps that they were.

    Kept are tasks that completed and hold no others, and whatever somebody has skipped.
    """
    tasks, steer = run.definition().program, run.steered()
    if tasks is None:
        return
    for step in run.steps.values():
        frame = step.frame
        if frame is None or not (_is_done(step, holds=bool(tasks.tasks[step.of].lists))):
            continue
        steer.kept[step.id] = Kept(
            input=frame.input, output=step.output, directive=frame.directive, skipped=step.state == "SKIPPED"
        )
    run.steps, run.exported = {}, None


def _is_done(step: Step, *, holds: bool) -> bool:
    return (step.state == "COMPLETED" and not holds) or (step.state == "SKIPPED" and step.tolerated)


def note_kept(run: Run, step: Step) -> None:
    """Of a task that begins: what it gave before is at hand when it is looked into."""
    if run.steer is not None and (kept := run.steer.kept.get(step.id)) is not None:
        _note(run, step.of, kept.output)


def note_wait(frame: Frame, event: events.StepWaiting) -> None:
    """A task begins to wait: for those in it, or to try them again."""
    if event.reason == "STEPS":
        frame.deadline = event.until
    elif event.reason == "RETRY":
        frame.round += 1


def _exported(run: Run, event: events.ContextExported, time: Micros) -> None:
    run.exported = event.context
    _note(run, run.steps[event.step_id].of, event.context)


def _consumed(run: Run, event: events.EventConsumed, time: Micros) -> None:
    frame = run.steps[event.step_id].frame
    waiting = run.signals.get(INBOX)
    if frame is None or not waiting:
        raise ValueError(f"{event.step_id} took an event that was not there")
    frame.consumed.append(waiting.pop(event.place))
    frame.places.append(event.for_filter)
    frame.keys |= event.keys
    if not waiting:
        del run.signals[INBOX]


def restore(run: Run, step: Step) -> None:
    """What the step of a snapshot stands for where it is a task: values that are stored apart."""
    if step.frame is not None:
        for payload in (step.frame.input, step.frame.items, run.exported):
            _note(run, step.of, payload)
        note_kept(run, step)


BY_TYPE: Final[Mapping[type, Callable[[Run, Any, Micros], None]]] = {
    events.StepEntered: _entered,
    events.ContextExported: _exported,
    events.EventConsumed: _consumed,
}
