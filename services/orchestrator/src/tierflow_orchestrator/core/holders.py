"""Steps that have begun others: how they go on when all of those have ended."""

from __future__ import annotations

from collections.abc import Iterator

from tierflow_expressions.errors import ExpressionError
from tierflow_runtime.values import Failure, Payload, RetryPolicy

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.blocks import below, find
from tierflow_orchestrator.core.branches import being_stopped, stopped_by
from tierflow_orchestrator.core.handing import payload_for
from tierflow_orchestrator.core.kinds import KINDS
from tierflow_orchestrator.core.kinds.base import Again, Complete, Fail, Proceed, Reset, Stopped, Undone
from tierflow_orchestrator.core.payloads import payload_of
from tierflow_orchestrator.core.retry import delay
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import RunScope, output_text
from tierflow_orchestrator.core.step import BlockState, Step
from tierflow_orchestrator.core.turn import Turn

_NEVER_ANEW = ("map", "map_block", "loop")
"""Kinds of steps that do not begin anew: their items and iterations are what they were."""


def close(turn: Turn, step: Step, state: BlockState) -> Proceed:
    """How a step goes on of which everything below has ended. Raises `ExpressionError`: it fails."""
    run = turn.run
    if state.what == "compensation":
        return _undone(run, step)
    reason = _stopped_with(run, step)
    if reason is not None:
        return Stopped(reason)
    if state.what == "handler":
        return _handled(run, step)
    if step.stop_to and step.stopping == "TIMEOUT":
        return failed(turn, step, timed_out(step))
    if state.failed_by:
        return failed(turn, step, _of_child(step, run.steps[state.failed_by]))
    if state.what == "loop":
        return _iterated(turn, step)
    outcome = "PARTIAL" if state.partial else "DEGRADED" if state.degraded else "SUCCESS"
    return Complete(output=_output(turn, step), outcome=outcome)


def _stopped_with(run: Run, step: Step) -> str | None:
    """Why the step was stopped with its run or with one that it belongs to, or by itself; None where it was not."""
    if run.state == "CANCELLING":
        return run.reason
    by = stopped_by(run, step)
    if by is not None and (by is not step or by.stop_to == "CANCELLED"):
        return by.stopping
    around = run.steps[step.above] if step.above else None
    return f"{step.above} has failed" if around is not None and being_stopped(run, around) else None


def timed_out(step: Step) -> Failure:
    """The failure of a block whose time is over."""
    return failures.of_step(step, "TIMEOUT", f"{step.id} was not over in time.", "block", retryable=True)


def _of_child(step: Step, child: Step) -> Failure:
    cause = child.failure
    message = f"Step {child.id} failed: {cause.message if cause else 'no reason was given'}"
    return failures.of_step(step, "STEP_FAILED", message, "block", cause=cause)


def failed(turn: Turn, step: Step, failure: Failure) -> Proceed:
    """A block failed: it is run again as a whole where its own `retry` says so."""
    run = turn.run
    spec = run.spec(step)
    policy = spec.retry or (run.definition().retry if spec.on_error == "retry" else None)
    if policy is None or spec.kind == "loop" or spec.grows is not None:
        return Fail(failure)
    if not _is_retried(policy, failure):
        return Fail(failure)
    tried = step.attempt - step.spent
    if tried < policy.max_attempts:
        return Again(failure, turn.now + delay(policy, tried, f"{run.id}/{step.id}/{step.attempt}"))
    if policy.max_attempts > 1:
        message = f"All {tried} attempts of {step.id} failed; the last one: {failure.message}"
        failure = failures.of_step(step, "MAX_RETRIES_EXCEEDED", message, "retry", cause=failure)
    return Fail(failure)


def _is_retried(policy: RetryPolicy, failure: Failure) -> bool:
    """Whether the policy is for this failure, by its code and those of its causes."""
    codes = {each.code for each in _chain(failure)}
    if codes & set(policy.never_retry_on):
        return False
    return not policy.retry_on or bool(codes & set(policy.retry_on))


def _chain(failure: Failure | None) -> Iterator[Failure]:
    while failure is not None:
        yield failure
        failure = failure.cause


def _handled(run: Run, step: Step) -> Proceed:
    """The step that handles an error has ended: its output stands, or the step begins anew, or its failure stands."""
    aide, rescue, failure = next(below(run, step)), run.spec(step).rescue, step.failure
    if rescue is None or failure is None:
        raise ValueError(f"nothing handles the errors of {step.id}")
    if aide.state != "COMPLETED":
        return Fail(_with_aide(step, failure, aide), final=True)
    then = rescue.then.resolve(RunScope(run, step))
    if then == "continue":
        return Complete(output=aide.output, outcome="DEGRADED")
    if then == "retry" and run.spec(step).kind not in _NEVER_ANEW:
        return Reset()
    if then not in ("stop", "retry"):
        raise ExpressionError(f"then is {str(then)[:60]!r}; it is one of continue, retry, stop")
    return Fail(failure, final=True)


def _with_aide(step: Step, failure: Failure, aide: Step) -> Failure:
    """The failure of a step whose handler did not complete."""
    if aide.failure is None:
        return failure
    message = f"{failure.message}; {aide.id}, which handles it, failed too: {aide.failure.message}"
    return failures.of_step(step, failure.code, message, failure.operation or "handle", cause=failure)


def _undone(run: Run, step: Step) -> Proceed:
    aide = next(below(run, step))
    if aide.state == "COMPLETED":
        return Undone()
    message = f"{step.id} could not be compensated: {aide.failure.message if aide.failure else aide.reason}"
    return Undone(failures.of_step(step, "COMPENSATION_FAILED", message, "compensate", cause=aide.failure))


def _iterated(turn: Turn, step: Step) -> Proceed:
    last = next(below(turn.run, step))
    if last.state != "COMPLETED":
        return Stopped(last.reason)
    return KINDS["loop"].go_on(turn, step)


def _output(turn: Turn, step: Step) -> Payload | None:
    """The output of a block: what it says, else an object of its leaves' outputs by their own ids."""
    run = turn.run
    block = run.spec(step).block
    if block is None:
        return None
    if block.output is not None:
        return payload_for(turn, block.output, step, RunScope(run, step, inside=True), inside=True)
    parts = []
    for leaf in block.leaves:
        name = leaf.rpartition("/")[2]
        child = find(run, step, name, inside=True)
        parts.append(f'"{name}":{output_text(run, child) if child is not None else "null"}')
    return payload_of("{" + ",".join(parts) + "}", turn.blobs)
