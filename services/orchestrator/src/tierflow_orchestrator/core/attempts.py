"""What executors report of attempts: started, ended, lost, unconfirmed.

Everything may come twice, late, or from somebody who is mistaken: what does not speak of the present attempt of its step changes nothing but the bill.
"""

from __future__ import annotations

import msgspec
from tierflow_runtime.values import Failure, Usage

from tierflow_orchestrator.core import budget, calling, commands, events, failures, growth, limits, outputs
from tierflow_orchestrator.core.branches import being_stopped, interrupted, is_cut_off, stopped_by
from tierflow_orchestrator.core.evolve import on_lost
from tierflow_orchestrator.core.navigator import fail, settle
from tierflow_orchestrator.core.navigators import NAVIGATORS
from tierflow_orchestrator.core.retry import may_retry, next_attempt_at, policy_for
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.setting import set_variables
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Reply, Turn

_LOST = Usage(attempts=1)


def started(turn: Turn, command: commands.ReportStarted) -> Reply:
    """The executor has begun."""
    step = current(turn.run, command.attempt_id)
    if step is None:
        return turn.refused(_not_in_flight(command.attempt_id))
    if step.state == "RUNNING":
        return turn.refused()
    _emit_started(turn, step, command.started_at)
    return turn.applied()


def _not_in_flight(attempt_id: str) -> Failure:
    return failures.stale(f"{attempt_id} is not in flight.")


def result(turn: Turn, command: commands.ReportResult) -> Reply:
    """An attempt ended. Stale results are booked once and refused; those that never were are refused."""
    step = current(turn.run, command.attempt_id)
    if step is None:
        _book_late(turn, command)
        return turn.refused(_not_in_flight(command.attempt_id))
    if _is_foreign(step, command):
        return turn.refused(failures.foreign(command.attempt_id, command.executor_id))
    _note(turn, step, command)
    _end(turn, step, command)
    settle(turn)
    return turn.applied()


def _note(turn: Turn, step: Step, command: commands.ReportResult) -> None:
    """That the attempt has started, where that was not told, and what it wrote."""
    if step.state == "SCHEDULED" and (command.started_at is not None or command.state == "COMPLETED"):
        _emit_started(turn, step, command.started_at if command.started_at is not None else turn.now)
    if command.logs:
        logged = events.AttemptLogged(
            step_id=step.id, attempt=step.attempt, attempt_id=step.attempt_id, lines=command.logs
        )
        turn.emit(logged)


def _end(turn: Turn, step: Step, command: commands.ReportResult) -> None:
    """What its end means for the step."""
    if step.tools is not None:
        calling.end_with(turn, step, command)
    by = stopped_by(turn.run, step)
    if by is not None and is_cut_off(step, by):
        _stopped(turn, step, by, command)
    elif command.state == "COMPLETED":
        _completed(turn, step, command)
    elif by is step and step.stop_to == "SKIPPED" and turn.run.state != "CANCELLING":
        _skipped(turn, step, usage=_booked(command.usage, 1))
    elif command.state == "CANCELLED":
        _cancelled(turn, step, command)
    else:
        _failed(turn, step, failures.reported(step, command.failure), command.usage)


def _book_late(turn: Turn, command: commands.ReportResult) -> None:
    """The cost of an attempt that was given up without a result is booked when there is one after all, once (rule R23)."""
    step, epoch = find(turn.run, command.attempt_id)
    if step is not None and epoch in step.unbooked and not (epoch == step.epoch and _is_foreign(step, command)):
        usage = msgspec.structs.replace(command.usage, attempts=0, steps=0)
        late = events.LateResult(
            step_id=step.id,
            attempt_id=command.attempt_id,
            state=command.state,
            usage=usage,
            charged=budget.charged(turn.run, command.attempt_id),
        )
        turn.emit(late)


def _is_foreign(step: Step, command: commands.ReportResult) -> bool:
    """Whether somebody speaks of an attempt that was given to another executor."""
    return command.executor_id != "" and command.executor_id != step.executor_id


def _emit_started(turn: Turn, step: Step, started_at: int) -> None:
    turn.emit(
        events.StepStarted(step_id=step.id, attempt=step.attempt, attempt_id=step.attempt_id, started_at=started_at)
    )


def _completed(turn: Turn, step: Step, command: commands.ReportResult) -> None:
    if step.frame is not None:
        NAVIGATORS[turn.run.definition().navigator].came(turn, step, command.output, _measured(step, command.usage, 1))
        return
    spec = turn.run.spec(step)
    warnings: tuple[str, ...] = ()
    if spec.output_schema is not None or spec.rules:
        found = outputs.check(turn.run, step, spec, command.output)
        if found.failure is not None:
            _failed(turn, step, found.failure, command.usage)
            return
        warnings = found.warnings
    if spec.grows is not None and _grows(turn, step, command):
        return
    failure = None if step.is_item else set_variables(turn, step, command.output)
    if failure is not None:
        _failed(turn, step, failure, command.usage)
        return
    turn.emit(
        events.StepCompleted(
            step_id=step.id,
            attempt=step.attempt,
            attempt_id=step.attempt_id,
            output=command.output,
            outcome=command.outcome or "SUCCESS",
            usage=_measured(step, command.usage, 1),
            warnings=warnings,
        )
    )


def _grows(turn: Turn, step: Step, command: commands.ReportResult) -> bool:
    """Whether what came are further steps: they begin, or the attempt has failed."""
    found = growth.definition_in(turn.run, step, command.output)
    if isinstance(found, Failure):
        _failed(turn, step, found, command.usage)
    elif found:
        usage = _measured(step, command.usage, 1)
        turn.emit(
            events.StepGrown(
                step_id=step.id, attempt=step.attempt, attempt_id=step.attempt_id, definition=found, usage=usage
            )
        )
    return bool(found)


def _cancelled(turn: Turn, step: Step, command: commands.ReportResult) -> None:
    """An attempt was stopped: as was wanted, or by its executor of its own accord, which is a failure like any other."""
    if interrupted(turn.run, step):
        turn.emit(
            events.StepInterrupted(
                step_id=step.id,
                attempt=step.attempt,
                attempt_id=step.attempt_id,
                reason=step.stopping,
                usage=_measured(step, command.usage, 0),
            )
        )
        return
    if being_stopped(turn.run, step):
        _emit_cancelled(turn, step, _reason(turn.run, step), usage=_measured(step, command.usage, 1))
        return
    failure = command.failure
    if failure is None:
        failure = Failure(code="CANCELLED", message="The executor stopped the attempt.", retryable=True)
    _failed(turn, step, failures.reported(step, failure), command.usage)


def _stopped(turn: Turn, step: Step, by: Step, command: commands.ReportResult) -> None:
    """The attempt of a step that is being stopped is over: whatever it brings is booked, and refused."""
    usage = _measured(step, command.usage, 1)
    if by.stop_to == "FAILED":
        _cut_off(turn, step, usage)
        return
    ended_as = "" if command.state == "CANCELLED" else command.state
    _emit_cancelled(turn, step, by.stopping, usage=usage, ended_as=ended_as)


def _cut_off(turn: Turn, step: Step, usage: Usage, cause: Failure | None = None) -> None:
    """The attempt of a step whose time is up is over."""
    failure = limits.failure_of(turn.run, step, turn.now, cause)
    fail(turn, step, failure, attempt=step.attempt, attempt_id=step.attempt_id, usage=usage)


def _skipped(turn: Turn, step: Step, *, usage: Usage, confirmed: bool = True) -> None:
    """The attempt of a step that somebody skips is over, or given up."""
    turn.emit(
        events.StepSkipped(
            step_id=step.id,
            reason=step.stopping,
            by_hand=True,
            output=step.output,
            attempt=step.attempt,
            attempt_id=step.attempt_id,
            usage=usage,
            confirmed=confirmed,
        )
    )


def _emit_cancelled(
    turn: Turn, step: Step, reason: str, *, usage: Usage, confirmed: bool = True, ended_as: str = ""
) -> None:
    turn.emit(
        events.StepCancelled(
            step_id=step.id,
            reason=reason,
            attempt=step.attempt,
            attempt_id=step.attempt_id,
            usage=usage,
            confirmed=confirmed,
            ended_as=ended_as,
        )
    )


def _failed(turn: Turn, step: Step, failure: Failure, usage: Usage) -> None:
    """An attempt failed: another one, or the end of the step."""
    run = turn.run
    policy = policy_for(run.spec(step), run.definition(), run.options)
    retried = _may_retry(run, step, failure)
    tried = step.attempt - step.spent
    if retried and tried < policy.max_attempts:
        due = next_attempt_at(policy, failure, tried, step.attempt_id, turn.now)
        if step.end_by is None or due < step.end_by:
            _emit_retrying(turn, step, failure, due, _measured(step, usage, 0))
            return
        failure = limits.out_of_time(run, step, failure)
    elif retried and policy.max_attempts > 1:
        failure = _exhausted(step, failure)
    fail(turn, step, failure, attempt=step.attempt, attempt_id=step.attempt_id, usage=_measured(step, usage, 1))


def _may_retry(run: Run, step: Step, failure: Failure) -> bool:
    """Whether another attempt follows such a failure, as far as the number of attempts goes."""
    spec = run.spec(step)
    policy = policy_for(spec, run.definition(), run.options)
    if being_stopped(run, step) and not interrupted(run, step):
        return False
    return may_retry(policy, failure) or (spec.on_error == "retry" and failure.code not in policy.never_retry_on)


def _emit_retrying(turn: Turn, step: Step, failure: Failure, due: int, usage: Usage) -> None:
    turn.emit(
        events.StepRetrying(
            step_id=step.id,
            attempt=step.attempt,
            attempt_id=step.attempt_id,
            failure=failure,
            next_attempt_at=due,
            usage=usage,
        )
    )


def _exhausted(step: Step, failure: Failure) -> Failure:
    message = f"All {step.attempt - step.spent} attempts of {step.id} failed; the last one: {failure.message}"
    return failures.of_step(step, "MAX_RETRIES_EXCEEDED", message, "retry", cause=failure)


def lost(turn: Turn, command: commands.ReportLost) -> Reply:
    """Nobody knows how an attempt ended (rule R26)."""
    run = turn.run
    step = current(run, command.attempt_id)
    if step is None:
        return turn.refused(_not_in_flight(command.attempt_id))
    if being_stopped(run, step) and not interrupted(run, step):
        give_up(turn, step, _reason(run, step))
    else:
        message = f"The executor of {step.id} is gone: {command.reason}"
        _lost(turn, step, failures.of_step(step, "EXECUTOR_LOST", message, "lost", retryable=True))
    settle(turn)
    return turn.applied()


def called(turn: Turn, command: commands.ReportTool) -> Reply:
    """An attempt tells of one of its tool calls."""
    step = current(turn.run, command.attempt_id)
    if step is None:
        return turn.refused(_not_in_flight(command.attempt_id))
    if step.state == "SCHEDULED" and not command.outcome:  # what calls a tool has started, whether that was told or not
        _emit_started(turn, step, turn.now)
    return calling.report(turn, step, command)


def _lost(turn: Turn, step: Step, failure: Failure) -> None:
    """Another attempt at once, a question to an operator, or the end of the step."""
    run = turn.run
    calling.lose(turn, step)
    answer = on_lost(run, step)
    if answer == "ASK":
        _emit_retrying(turn, step, failure, turn.now, _LOST)
        if run.state == "RUNNING":
            turn.emit(events.RunStateChanged(from_="RUNNING", to="SUSPENDED", reason=f"EXECUTOR_LOST: {step.id}"))
        return
    policy = policy_for(run.spec(step), run.definition(), run.options)
    if answer == "RETRY" and step.attempt - step.spent < policy.max_attempts:
        _emit_retrying(turn, step, failure, turn.now, _LOST)
        return
    if answer == "RETRY" and policy.max_attempts > 1:
        failure = _exhausted(step, failure)
    fail(turn, step, failure, attempt=step.attempt, attempt_id=step.attempt_id, usage=_booked(_LOST, 1))


def unconfirmed(turn: Turn, command: commands.ReportUnconfirmed) -> Reply:
    """An attempt that was to be stopped may still be alive."""
    step = current(turn.run, command.attempt_id)
    if step is None or not being_stopped(turn.run, step):
        return turn.refused(failures.stale(f"{command.attempt_id} is not being stopped."))
    if interrupted(turn.run, step):
        message = f"The attempt of {step.id} was to stop, and may still be alive."
        _lost(turn, step, failures.of_step(step, "EXECUTOR_LOST", message, "interrupt", retryable=True))
    else:
        give_up(turn, step, _reason(turn.run, step))
    settle(turn)
    return turn.applied()


def _reason(run: Run, step: Step) -> str:
    by = stopped_by(run, step)
    return run.reason if by is None else by.stopping


def give_up(turn: Turn, step: Step, reason: str) -> None:
    """Ends a step whose attempt is being stopped without waiting for it any longer."""
    calling.lose(turn, step)
    if step.stop_to == "FAILED" and turn.run.state != "CANCELLING":
        gone = failures.of_step(step, "EXECUTOR_LOST", f"{step.id} did not confirm that it has stopped.", "stop")
        _cut_off(turn, step, _booked(_LOST, 1), gone)
        return
    if step.stop_to == "SKIPPED" and turn.run.state != "CANCELLING":
        _skipped(turn, step, usage=_booked(_LOST, 1), confirmed=False)
        return
    _emit_cancelled(turn, step, reason, usage=_booked(_LOST, 1), confirmed=False)


def _measured(step: Step, usage: Usage, steps: int) -> Usage:
    return budget.booked(usage, steps) if step.child else _booked(usage, steps)


def _booked(usage: Usage, steps: int) -> Usage:
    """What is booked for an attempt: what was measured, and that it was one."""
    if usage.attempts == 1 and usage.steps == steps:
        return usage
    return msgspec.structs.replace(usage, attempts=1, steps=steps)


def current(run: Run, attempt_id: str) -> Step | None:
    """The step of which this is the present attempt, in flight; None where it is not."""
    step = run.steps.get(attempt_id[len(run.id) + 1 : attempt_id.rfind("/")])
    if step is None or step.attempt_id != attempt_id or step.id not in run.live:
        return None
    return step


def find(run: Run, attempt_id: str) -> tuple[Step | None, int]:
    """The step whose attempt it is, and the attempt's epoch; None where there is no such step."""
    prefix, _, epoch = attempt_id.rpartition("/")
    if not prefix.startswith(run.id + "/") or not epoch.isascii() or not epoch.isdigit():
        return None, 0
    return run.steps.get(prefix[len(run.id) + 1 :]), int(epoch)
