"""Tasks that extensions of the document are about: what comes before, the task itself, what comes after."""

from __future__ import annotations

from tierflow_flow.serverless.program import Task

from tierflow_orchestrator.core.serverless.scope import around, frame_of, program_of, truth, value_of
from tierflow_orchestrator.core.serverless.walking import complete, first, give_up, open_, walk_on
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def extended(turn: Turn, step: Step, task: Task) -> None:
    """What comes before, where the extension applies; else the task alone."""
    open_(turn, step)
    given = frame_of(step).input
    data, inner = value_of(turn.run, given), program_of(turn.run).tasks[task.lists["do"][0]]
    if not truth(task.settings["when"], around(turn, step, inner, data, {"input": data}), default=True):
        first(turn, step, "alone", given)
    elif not first(turn, step, "before", given):
        first(turn, step, "do", given)


def extended_next(turn: Turn, step: Step, task: Task, child: Step) -> None:
    """The next one; what is handed on is what the task itself gave."""
    if give_up(turn, step, child):
        return
    frame = frame_of(step)
    if frame.walking == "alone" or (frame.walking == "do" and not first(turn, step, "after", frame.data)):
        _complete(turn, step, child)
    elif frame.walking in ("before", "after") and child.of not in task.lists["do"]:
        said = walk_on(turn, step, child)
        if said:
            _over(turn, step, task, said)


def _over(turn: Turn, step: Step, task: Task, said: str) -> None:
    """The tasks before or after are done, or leave."""
    frame = frame_of(step)
    if said == "end" or (said == "exit" and frame.walking == "before"):
        complete(turn, step, value_of(turn.run, frame.data), "end" if said == "end" else "")
    elif frame.walking == "before":
        first(turn, step, "do", frame.input)
    else:
        _complete(turn, step, turn.run.steps[step.id + task.lists["do"][0][len(step.of) :]])


def _complete(turn: Turn, step: Step, inner: Step) -> None:
    """The task itself is done: its output is the output, where it said to go on it goes on."""
    given = frame_of(step).input if inner.state == "SKIPPED" and inner.output is None else inner.output
    complete(turn, step, value_of(turn.run, given), frame_of(inner).directive)
