"""Steps that publish an event of the flow's own."""

from __future__ import annotations

from tierflow_expressions.errors import ExpressionError

from tierflow_orchestrator.core.blocks import find
from tierflow_orchestrator.core.events import EventEmitted, SignalAnswered
from tierflow_orchestrator.core.kinds.base import Complete, Kind, Proceed
from tierflow_orchestrator.core.payloads import payload_of
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import RunScope, has_mark
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class Emit(Kind):
    """The event is in the run's journal, so that it is published exactly as reliably as the run's other events."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """The event, and the step's end, at once."""
        spec = turn.run.spec(step)
        text = spec.with_.resolve_json(RunScope(turn.run, step))
        if turn.run.large and has_mark(text):
            raise ExpressionError("the payload of an event holds a stored value that is too large to be copied into it")
        payload = payload_of(text, turn.blobs)
        emitted = EventEmitted(step_id=step.id, name=spec.settings["emit"], payload=payload)
        asked = spec.settings.get("answer")
        if asked is None:
            return Complete(facts=(emitted,))
        signal_id = _signal_of(turn.run, step, asked)
        return Complete(facts=(emitted, SignalAnswered(step_id=step.id, signal_id=signal_id, payload=payload)))


def _signal_of(run: Run, step: Step, name: str) -> str:
    """The signal that a step has taken, which is answered now. Raises `ExpressionError`."""
    asked = find(run, step, name)
    if asked is None or not asked.signal_id:
        raise ExpressionError(f"{name} has taken no signal that could be answered")
    return asked.signal_id
