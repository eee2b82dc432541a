"""Giving a step a slot: its input is resolved now, from the state as it is, and the attempt gets its identity."""

from __future__ import annotations

from functools import lru_cache

from tierflow_expressions.errors import ExpressionError
from tierflow_runtime.schema import compile_schema
from tierflow_runtime.values import Allocation, BlobRef, Failure, Payload, Violation

from tierflow_orchestrator.core import budget, calling, commands, events, failures, gate
from tierflow_orchestrator.core.ending import stop
from tierflow_orchestrator.core.handing import payload_for, stored
from tierflow_orchestrator.core.navigator import fail, settle
from tierflow_orchestrator.core.navigators import NAVIGATORS
from tierflow_orchestrator.core.payloads import failure_code
from tierflow_orchestrator.core.run import STARTING, Run
from tierflow_orchestrator.core.scope import ItemScope, MissingContent, RunScope, items_of, parse
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Reply, Turn


def assign(turn: Turn, command: commands.AssignSlot) -> Reply:
    """Starts an attempt, where its step still waits for one; else nothing is scheduled and the slot is free again."""
    run, now = turn.run, turn.now
    step = run.steps.get(command.step_id)
    if run.state not in STARTING or step is None or not run.has_room or not run.may_start(step):
        return turn.refused(failures.stale(f"{command.step_id} does not wait for a slot; the run is {run.state}."))
    if run.deadline is not None and now >= run.deadline and run.state == "RUNNING":
        stop(turn, "DEADLINE_EXCEEDED")
        settle(turn)
        return turn.refused(failures.stale("The run's deadline has passed."))
    if run.ledger.finite and budget.waits(run, step):
        return turn.refused(failures.stale(f"{step.id} waits for what others hold of the run's budget."))
    return _begin(turn, step, command)


def _begin(turn: Turn, step: Step, command: commands.AssignSlot) -> Reply:
    """The attempt begins, unless its input, the norms or the budget are against it."""
    run = turn.run
    failure, payload = _checked_input(turn, step, command)
    if failure is not None or payload is None:
        return _refuse(turn, step, failure or failures.reported(step, None))
    if (run.policy is not None or run.definition().norms) and not gate.passes(turn, step, payload, command):
        settle(turn)
        return turn.refused()
    grant = budget.grant(run, step, child=bool(command.child_run_id))
    if isinstance(grant, Failure):
        return _refuse(turn, step, grant)
    _schedule(turn, step, payload, command, grant)
    return turn.applied()


def _checked_input(turn: Turn, step: Step, command: commands.AssignSlot) -> tuple[Failure | None, Payload | None]:
    """The input, and what the handler's schema has against it."""
    failure = budget.refusal(turn.run, step) if turn.run.ledger.finite else None
    if failure is not None:
        return failure, None
    failure, payload = _input(turn, step)
    if payload is not None and command.input_schema and not turn.run.spec(step).secrets:
        failure = _mismatch(step, payload, command.input_schema)
    return failure, payload


def _refuse(turn: Turn, step: Step, failure: Failure) -> Reply:
    """There is no attempt: the step has failed."""
    fail(turn, step, failure)
    settle(turn)
    return turn.refused(failure)


def _schedule(turn: Turn, step: Step, payload: Payload, command: commands.AssignSlot, grant: Allocation | None) -> None:
    """The attempt gets its identity."""
    run = turn.run
    # Steps that a new generation made anew begin above all epochs of the earlier ones: an executor performs an attempt id once.
    epoch = (step.epoch or (0 if run.steer is None else run.steer.floor)) + 1
    turn.emit(
        events.StepScheduled(
            step_id=step.id,
            attempt=step.attempt + 1,
            attempt_id=f"{run.id}/{step.id}/{epoch}",
            epoch=epoch,
            executor_id=command.executor_id,
            handler=step.handler,
            input=payload,
            child_run_id=command.child_run_id,
            grant=grant,
        )
    )
    if command.tool:
        calling.begin_attempt(turn, step)


def _input(turn: Turn, step: Step) -> tuple[Failure | None, Payload | None]:
    """The input of the next attempt, or why there cannot be one."""
    if step.granted and step.approval is not None and step.approval.input is not None:
        return None, step.approval.input  # what was approved, and nothing else
    try:
        return None, resolve_input(turn, step)
    except ExpressionError as error:
        return failures.of_step(step, failure_code(error), str(error), "schedule"), None


def _mismatch(step: Step, payload: Payload, schema: str) -> Failure | None:
    """Why the handler would refuse the input; None where it would not. A stored value is for the executor to look at."""
    found = () if isinstance(payload, BlobRef) else _input_violations(schema, payload)
    if not found:
        return None
    message = (
        f"The input of {step.id} does not match the schema of {step.handler}: {found[0].field}: {found[0].description}"
    )
    return failures.of_step(step, "INPUT_INVALID", message, "schedule", violations=found)


@lru_cache(maxsize=256)
def _input_violations(schema: str, text: str) -> tuple[Violation, ...]:
    """A pure function; inputs that do not depend on anything are looked at once."""
    return tuple(compile_schema(schema).violations(parse(text), at="input"))


def resolve_input(turn: Turn, step: Step) -> Payload:
    """The input of a step as a payload: a stored value that is handed on whole stays one. Raises `ExpressionError`."""
    run = turn.run
    if step.frame is not None:
        return NAVIGATORS[run.definition().navigator].input(turn, step)
    scope = RunScope(run, step)
    if step.is_item:
        items = items_of(run, run.steps[step.above])
        if step.index >= len(items):
            raise ExpressionError(f"{step.above} now has {len(items)} items, fewer than when it was expanded")
        scope = ItemScope(run, step, items[step.index])
    spec = run.spec(step)
    return payload_for(turn, spec.with_, step, scope, handles=len(spec.secrets))


def embedded(run: Run, step_id: str) -> list[str]:
    """SHA-256 names of stored values that are part of a step's input without being all of it, and so must be at hand."""
    step = run.steps.get(step_id)
    if step is None or not step.handler:
        return []
    refs = stored(run, run.spec(step).with_, step)
    missing = [ref.sha256 for ref in refs if ref.sha256 not in run.contents]
    if not missing:
        return []
    try:
        resolve_input(Turn(run, 0), step)
    except MissingContent:
        return missing
    except ExpressionError:
        return []
    return []
