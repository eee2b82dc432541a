"""Steps that return further steps: these are checked as a flow is, and begin as a block below them."""

from __future__ import annotations

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.definition import Flow, FlowError
from tierflow_flow.growing import grown
from tierflow_runtime.values import Failure, Payload, Violation

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.payloads import INLINE_BYTES
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import parse, text_of, write
from tierflow_orchestrator.core.step import Step


def definition_in(run: Run, step: Step, output: Payload | None) -> str | Failure:
    """The steps in what a step returned, as JSON text; empty where there are none. A failure where they are not good."""
    try:
        value = parse(text_of(run, output))
        if not isinstance(value, dict) or "steps" not in value:
            return ""
        definition = write({key: value[key] for key in ("steps", "output") if key in value})
        if len(definition.encode()) > INLINE_BYTES:
            raise ExpressionError(f"further steps have at most {INLINE_BYTES} bytes")
        grown(run.definition(), step.id, definition)
    except FlowError as error:
        found = tuple(Violation(field=problem.path, description=problem.description) for problem in error.problems[:20])
        message = (
            f"The steps that {step.id} returned are not good: {error.problems[0].path}: {error.problems[0].description}"
        )
        return failures.of_step(step, "OUTPUT_INVALID", message, "grow", retryable=True, violations=found)
    except ExpressionError as error:
        return failures.of_step(step, "OUTPUT_INVALID", f"The output of {step.id}: {error}", "grow", retryable=True)
    return definition


def take(run: Run, step_id: str) -> None:
    """The run's flow has grown below a step."""
    run.flow = grown(run.definition(), step_id, run.grown[step_id])
    run.looked_into = run.unloaded = None


def whole(run: Run, flow: Flow) -> Flow:
    """The run's flow with all that has grown in this run."""
    for step_id, definition in run.grown.items():
        flow = grown(flow, step_id, definition)
    return flow
