"""Steps that end by a failure that the flow words itself."""

from __future__ import annotations

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.kinds.base import Fail, Kind, Proceed
from tierflow_orchestrator.core.scope import RunScope
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


class FailKind(Kind):
    """What it means for the run is said by `on_error` and the failure policy, as for every failed step."""

    def begin(self, turn: Turn, step: Step) -> Proceed:
        """The failure, at once."""
        said = turn.run.spec(step).templates["fail"].resolve(RunScope(turn.run, step))
        message = str(said.get("message") or f"{step.id} says so.")
        retryable = bool(said.get("retryable", False))
        return Fail(failures.of_step(step, said["code"], message, "fail", retryable=retryable))
