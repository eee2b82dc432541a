"""Events of variables: what steps set, and what is decided where branches meet."""

from __future__ import annotations

from tierflow_expressions.errors import ExpressionError
from tierflow_runtime.values import Failure, Payload

from tierflow_orchestrator.core import events, failures, outputs, variables
from tierflow_orchestrator.core.payloads import failure_code
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def merge(turn: Turn, step: Step) -> None:
    """Decides about the variables of branches that meet in a step."""
    if found := variables.merged(turn.run, step):
        turn.emit(events.VariablesSet(step_id=step.id, variables=found))


def set_variables(turn: Turn, step: Step, output: Payload | None) -> Failure | None:
    """Sets the variables of a step that is about to complete; why it cannot complete, where they cannot be made."""
    try:
        found = outputs.assigned(turn.run, step, output)
    except ExpressionError as error:
        return failures.of_step(step, failure_code(error), str(error), "set")
    if found:
        turn.emit(events.VariablesSet(step_id=step.id, variables=found))
    return None
