"""How a run comes to its end: stopping what is under way, pausing when nothing is, the one terminal event."""

from __future__ import annotations

from tierflow_expressions.errors import ExpressionError
from tierflow_runtime.values import Failure, Payload

from tierflow_orchestrator.core import budget, children, compensation, events, failures
from tierflow_orchestrator.core.blocks import below
from tierflow_orchestrator.core.payloads import failure_code, payload_of, violations
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import RunScope, output_text, parse
from tierflow_orchestrator.core.steer import Steer
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def stop(turn: Turn, reason: str, actor: str = "") -> None:
    """Stops the run: nothing starts any more, what has not started is cancelled. What is in flight is told by `react`."""
    run = turn.run
    turn.emit(events.RunStateChanged(from_=run.state, to="CANCELLING", reason=reason, actor=actor))
    for step in tuple(run.steps.values()):
        if not step.ended and not step.in_flight and not step.holds:
            turn.emit(events.StepCancelled(step_id=step.id, reason=reason))


def cancel_below(turn: Turn, holder: Step, reason: str) -> None:
    """Cancels what has not started of the steps below one: of the items of a map, of a block and the blocks within it."""
    for step in tuple(below(turn.run, holder)):
        if step.ended or step.in_flight:
            continue
        if step.holds:
            cancel_below(turn, step, reason)
        else:
            turn.emit(events.StepCancelled(step_id=step.id, reason=reason))


def finish(turn: Turn) -> None:
    """Ends or pauses the run where nothing is left to wait for."""
    run = turn.run
    _wake(turn)
    if run.live and (run.state != "PAUSING" or children.attempts_in_flight(run)):
        return
    if run.state == "CANCELLING":
        _stopped(turn)
    elif run.state == "COMPENSATING":
        _next_compensation(turn)
    elif run.state == "RUNNING":
        _rest(turn)
    elif run.state == "PAUSING":
        _paused(turn)


def _wake(turn: Turn) -> None:
    """What a suspended run waited for is not needed any more."""
    run = turn.run
    if run.state == "SUSPENDED" and not (run.asked or run.only_waits):
        turn.emit(events.RunStateChanged(from_=run.state, to="RUNNING"))


def _stopped(turn: Turn) -> None:
    """Nothing is in flight of a run that is being stopped."""
    run = turn.run
    what = "cancel" if run.stopping == "CANCELLED" else "failure"
    if compensation.after(run, what, "") and run.stopping != "INTERNAL":
        _compensate(turn)
    else:
        _end_stopped(turn)


def _paused(turn: Turn) -> None:
    """Nothing is in flight of a run that is being paused."""
    run = turn.run
    if run.open_steps or (run.failed_step and run.failure_policy == "PAUSE"):
        turn.emit(events.RunStateChanged(from_=run.state, to="PAUSED", reason=run.reason))
    else:
        _end_finished(turn)


def _rest(turn: Turn) -> None:
    """Nothing is in flight of a run that may go on."""
    run = turn.run
    if not run.open_steps:
        _end_finished(turn)
    elif run.steer is not None and run.steer.held and not run.startable and _waits_for_those_within(run):
        _pause_held(turn, run.steer)
    elif run.only_waits:
        turn.emit(events.RunStateChanged(from_=run.state, to="SUSPENDED", reason=run.why_waiting()))


def _waits_for_those_within(run: Run) -> bool:
    """Whether no step waits for a time or a message: tasks of a document wait for those in them."""
    return all(run.steps[step_id].reason == "STEPS" for step_id in run.waits)


def _pause_held(turn: Turn, steer: Steer) -> None:
    """Step by step: what was let through is done, and what comes after it is held."""
    reason = f"STEP: {steer.held[0]}"
    turn.emit(events.RunStateChanged(from_=turn.run.state, to="PAUSING", reason=reason))
    turn.emit(events.RunStateChanged(from_="PAUSING", to="PAUSED", reason=reason))


def _end_stopped(turn: Turn) -> None:
    run = turn.run
    if run.stopping == "CANCELLED":
        end(turn, "CANCELLED", "CANCELLED", reason=run.reason)
    elif run.stopping == "DEADLINE_EXCEEDED":
        message = "The run's deadline passed before it was finished."
        end(turn, "FAILED", "FAILURE", failure=failures.made("DEADLINE_EXCEEDED", message, "deadline"))
    else:
        end(turn, "FAILED", "FAILURE", failure=_step_failure(run))


def _compensate(turn: Turn) -> None:
    """Nothing is in flight any more, and something is to be undone first."""
    run = turn.run
    turn.emit(events.RunStateChanged(from_=run.state, to="COMPENSATING", reason=run.reason))
    _next_compensation(turn)


def _next_compensation(turn: Turn) -> None:
    """One after another, the last that completed first; then the run ends as it would have."""
    run = turn.run
    if run.counts_by_state["COMPENSATING"]:
        return
    if run.undo:
        turn.emit(events.CompensationBegan(step_id=run.undo[-1]))
    elif run.undone:
        _end_not_compensated(turn)
    elif run.stopping:
        _end_stopped(turn)
    else:
        _end_finished(turn)


def _end_not_compensated(turn: Turn) -> None:
    run = turn.run
    names = ", ".join(run.undone[:10]) + (f" and {len(run.undone) - 10} more" if len(run.undone) > 10 else "")
    message = f"{len(run.undone)} steps could not be compensated: {names}"
    cause = _step_failure(run) if run.failed_step else run.steps[run.undone[0]].failure
    end(turn, "FAILED", "FAILURE", failure=failures.made("COMPENSATION_FAILED", message, "compensate", cause=cause))


def _end_finished(turn: Turn) -> None:
    run = turn.run
    if run.failed_step:
        _end_failed(turn, _step_failure(run))
        return
    try:
        output = _checked_output(turn)
    except ExpressionError as error:
        _end_failed(turn, failures.made(failure_code(error), f"The run's output: {error}", "output"))
        return
    if isinstance(output, Failure):
        _end_failed(turn, output)
        return
    outcome = "PARTIAL" if run.partial else "DEGRADED" if run.degraded else "SUCCESS"
    end(turn, "COMPLETED", outcome, output=output)


def _end_failed(turn: Turn, failure: Failure) -> None:
    """The end of a run that failed although nothing had to be stopped; what it did is undone first, where there is anything."""
    run = turn.run
    if run.state != "COMPENSATING" and compensation.after(run, "failure", ""):
        _compensate(turn)
    else:
        end(turn, "FAILED", "FAILURE", failure=failure)


def _checked_output(turn: Turn) -> Payload | Failure:
    """The run's output, or the failure that it does not match the flow's schema. Raises `ExpressionError`."""
    text = _output(turn.run)
    schema = turn.run.definition().output_schema
    found = violations(schema, parse(text), "output") if schema is not None else ()
    if not found:
        return payload_of(text, turn.blobs)
    message = "The run's output does not match the flow's output schema."
    return failures.made("OUTPUT_INVALID", message, "output", violations=found)


def _output(run: Run) -> str:
    """The flow's output; where it defines none, an object of the outputs of its leaves, null where one has none."""
    flow = run.definition()
    if flow.program is not None:
        return output_text(run, run.steps[flow.roots[0]])
    if flow.output is not None:
        return flow.output.resolve_json(RunScope(run))
    parts = (f'"{step_id}":{output_text(run, run.steps[step_id])}' for step_id in flow.leaves)
    return "{" + ",".join(parts) + "}"


def _step_failure(run: Run) -> Failure:
    """The failure of a run in which a step failed: the step's own is the cause (F23)."""
    step = run.steps[run.failed_step]
    cause = step.failure
    message = f"Step {step.id} failed: {cause.message if cause else 'no reason was given'}"
    return failures.of_step(step, "STEP_FAILED", message, "navigate", cause=cause)


def end(
    turn: Turn,
    state: str,
    outcome: str,
    *,
    output: Payload | None = None,
    failure: Failure | None = None,
    reason: str = "",
) -> None:
    """The one terminal event of this generation."""
    run = turn.run
    if failure is not None and (
        failure.code == "COMPENSATION_FAILED" or (run.flow is not None and run.flow.dead_letter)
    ):
        reason = "DEAD_LETTER"
    if run.ledger.owed:
        budget.charge(turn, None)
    turn.emit(
        events.RunEnded(
            from_=run.state,
            to=state,
            outcome=outcome,
            output=output,
            failure=failure,
            usage=run.usage,
            reason=reason,
            unconfirmed_attempts=tuple(run.unconfirmed),
        )
    )
