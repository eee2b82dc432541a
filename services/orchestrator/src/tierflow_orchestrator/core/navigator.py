"""Where a run goes next: which steps are needed, what a failure does, when it is over.

Each step counts the needs that have not ended (`evolve` counts them in); what has none left is looked at here, once. Nothing is scanned, save once when a run is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_flow.definition import StepSpec, Template
from tierflow_runtime.values import NO_USAGE, Failure, Micros, Usage

from tierflow_orchestrator.core import budget, ending, events, failures, holders, limits
from tierflow_orchestrator.core.branches import being_stopped, stopped
from tierflow_orchestrator.core.breakpoints import hold, stops_before
from tierflow_orchestrator.core.hindrances import hindrance_of
from tierflow_orchestrator.core.kinds import KINDS
from tierflow_orchestrator.core.kinds.approval import expire, resolve
from tierflow_orchestrator.core.kinds.base import (
    Again,
    Ask,
    Begin,
    Complete,
    Dispatch,
    Escalate,
    Expand,
    Fail,
    Iterate,
    Proceed,
    Reset,
    Resolve,
    Stopped,
    Undone,
    Wait,
)
from tierflow_orchestrator.core.navigators import NAVIGATORS
from tierflow_orchestrator.core.payloads import failure_code
from tierflow_orchestrator.core.scope import RunScope
from tierflow_orchestrator.core.setting import merge, set_variables
from tierflow_orchestrator.core.step import BlockState, Branches, Step
from tierflow_orchestrator.core.stopping import release_needs
from tierflow_orchestrator.core.turn import Turn


def settle(turn: Turn) -> None:
    """Looks at everything that the events so far have brought up, then ends or pauses the run where it is time."""
    look(turn)
    ending.finish(turn)


def look(turn: Turn) -> None:
    """Looks at everything that the events so far have brought up."""
    undecided = turn.run.undecided
    while undecided:
        step = turn.run.steps[undecided.popleft()]
        if step.frame is not None:
            NAVIGATORS[turn.run.definition().navigator].look(turn, step)
        elif step.state == "READY":
            _look(turn, step)
        elif step.block is not None:
            _close_block(turn, step, step.block)
        elif step.state == "RUNNING" and step.branches is not None:
            _close_map(turn, step)


def _look(turn: Turn, step: Step) -> None:
    """A step may start as far as its needs go: skips it, or lets its kind say how it goes on."""
    spec = turn.run.spec(step)
    if step.is_item:
        _begin(turn, step)
        return
    if spec.join is not None:
        release_needs(turn, step, spec.join)
    hindrance = hindrance_of(turn.run, step, spec) or _unwanted(turn, step, spec)
    if isinstance(hindrance, Failure):
        fail(turn, step, hindrance)
        return
    if hindrance is not None:
        turn.emit(hindrance)
        return
    if turn.run.gated and stops_before(turn.run, step):
        hold(turn, step)
    elif step.approval is None or not step.approval.verdict:  # Who has asked does not ask again.
        _begin(turn, step)


def _unwanted(turn: Turn, step: Step, spec: StepSpec) -> events.StepSkipped | Failure | None:
    """Why a step does not run although nothing is in its way: its condition, or an expression that cannot be evaluated."""
    try:
        if turn.run.definition().setters and not step.parent and not step.set_number:
            merge(turn, step)
        if spec.condition is None or _holds(turn, step, spec.condition):
            return None
    except ExpressionError as error:
        return failures.of_step(step, failure_code(error), str(error), "decide")
    return events.StepSkipped(step_id=step.id, reason="its condition is false")


def _begin(turn: Turn, step: Step) -> None:
    try:
        proceed(turn, step, KINDS[turn.run.spec(step).kind].begin(turn, step))
    except ExpressionError as error:
        fail(turn, step, failures.of_step(step, failure_code(error), str(error), "decide"))


def _close_block(turn: Turn, step: Step, state: BlockState) -> None:
    """The last step below one has ended."""
    if state.open or step.state not in ("RUNNING", "COMPENSATING"):
        return
    if step.stop_to == "SKIPPED" and step.state == "RUNNING" and turn.run.state != "CANCELLING":
        skipped = events.StepSkipped(step_id=step.id, reason=step.stopping, by_hand=True, output=step.output)
        turn.emit(skipped)
        return
    try:
        proceed(turn, step, holders.close(turn, step, state))
    except ExpressionError as error:
        fail(turn, step, failures.of_step(step, failure_code(error), str(error), "decide"), final=True)


def _holds(turn: Turn, step: Step, condition: Template) -> bool:
    wanted = condition.resolve(RunScope(turn.run, step))
    if not isinstance(wanted, bool):
        raise ExpressionError("the condition is neither true nor false")
    return wanted


def proceed(turn: Turn, step: Step, how: Proceed) -> None:
    """Does what a step's kind has decided."""
    if isinstance(how, Complete):
        for fact in how.facts:
            turn.emit(fact)
        failure = None if step.is_item else set_variables(turn, step, how.output)
        if failure is not None:
            fail(turn, step, failure, final=True)
            return
        turn.emit(events.StepCompleted(step_id=step.id, output=how.output, outcome=how.outcome))
    elif isinstance(how, Fail):
        fail(turn, step, how.failure, final=how.final)
    elif isinstance(how, Resolve):
        turn.emit(events.ApprovalResolved(step_id=step.id, verdict=how.verdict))
        if how.then is not None:
            proceed(turn, step, how.then)
    elif not isinstance(how, Dispatch):
        turn.emit(_FACTS[type(how)](turn, step, how))


_FACTS: Mapping[type, Callable[[Turn, Step, Any], events.RunEvent]] = {
    Expand: lambda turn, step, how: events.ItemsExpanded(step_id=step.id, count=how.count),
    Wait: lambda turn, step, how: events.StepWaiting(step_id=step.id, reason=how.reason, until=how.until),
    Ask: lambda turn, step, how: how.request,
    Escalate: lambda turn, step, how: events.ApprovalEscalated(step_id=step.id, until=how.until),
    Begin: lambda turn, step, how: events.BlockBegan(
        step_id=step.id, attempt=step.attempt + 1, until=_bound(turn, step)
    ),
    Iterate: lambda turn, step, how: events.IterationBegan(
        step_id=step.id, index=how.index, until=None if how.index else _bound(turn, step)
    ),
    Again: lambda turn, step, how: events.StepRetrying(
        step_id=step.id, attempt=step.attempt, attempt_id="", failure=how.failure, next_attempt_at=how.at
    ),
    Reset: lambda turn, step, how: events.StepReset(step_id=step.id),
    Stopped: lambda turn, step, how: events.StepCancelled(step_id=step.id, reason=how.reason),
    Undone: lambda turn, step, how: (
        events.StepCompensated(step_id=step.id)
        if how.failure is None
        else events.CompensationFailed(step_id=step.id, failure=how.failure)
    ),
}
"""What each word of a kind leads to."""


def _bound(turn: Turn, step: Step) -> Micros | None:
    """Until when a block that begins now must have ended."""
    timeout = turn.run.spec(step).timeout
    return None if timeout is None else turn.now + timeout


def fire(turn: Turn) -> None:
    """Ends the waits whose message is there or whose moment has come, and the steps whose time is up; charges what is owed too long."""
    if turn.run.ledger.owed:
        budget.charge(turn, turn.now)
    if turn.run.definition().program is not None:
        _fire_program(turn)
    else:
        _fire_waits(turn)
    settle(turn)


def _fire_waits(turn: Turn) -> None:
    run = turn.run
    how: Proceed | None
    while run.limits and run.state in ("RUNNING", "SUSPENDED") and (late := limits.over(run, turn.now)) is not None:
        _cut_off(turn, late)
    while run.state in ("RUNNING", "SUSPENDED"):
        if run.decided:
            step = run.steps[next(iter(run.decided))]
            how = resolve(turn, step)
        elif (step_id := run.answered()) is not None:
            step = run.steps[step_id]
            how = KINDS[run.spec(step).kind].received(turn, step)
        elif (moment := run.next_timer()) is not None and moment <= turn.now:
            step = run.steps[run.timers[0][1]]
            how = _due(turn, step, moment)
        else:
            break
        go_on(turn)
        if how is not None:
            proceed(turn, step, how)
        look(turn)


def _cut_off(turn: Turn, step: Step) -> None:
    """The time of a step is up: it fails, once its attempt has stopped where one is in flight."""
    if step.in_flight:
        stopping = events.StepStopping(step_id=step.id, reason="TIMEOUT", then="FAILED", attempt_id=step.attempt_id)
        turn.emit(stopping)
        return
    fail(turn, step, limits.failure_of(turn.run, step, turn.now))
    look(turn)


def _due(turn: Turn, step: Step, moment: Micros) -> Proceed | None:
    """How a step goes on of which a moment has come: the end of a wait, of a delay, or of the time that its block had."""
    if step.state == "BACKOFF":
        return Begin()
    if step.state == "AWAITING_APPROVAL":
        return expire(turn, step)
    if step.deadline != moment:
        return KINDS[turn.run.spec(step).kind].due(turn, step)
    if not step.holds:
        return Fail(holders.timed_out(step))
    turn.emit(events.StepStopping(step_id=step.id, reason="TIMEOUT", then="FAILED"))
    ending.cancel_below(turn, step, f"{step.id} was not over in time")
    return None


def _fire_program(turn: Turn) -> None:
    """The same for a definition that another navigator walks."""
    run, navigator = turn.run, NAVIGATORS[turn.run.definition().navigator]
    while run.state in ("RUNNING", "SUSPENDED"):
        if run.decided:
            step = run.steps[next(iter(run.decided))]
        elif (moment := run.next_timer()) is not None and moment <= turn.now:
            step = run.steps[run.timers[0][1]]
        else:
            break
        go_on(turn)
        if step.state == "AWAITING_APPROVAL":
            proceed(turn, step, resolve(turn, step) if step.id in run.decided else expire(turn, step))
        else:
            navigator.due(turn, step)
    if run.signals and run.state in ("RUNNING", "SUSPENDED") and navigator.told(turn):
        go_on(turn)


def go_on(turn: Turn) -> None:
    """A wait is over: a run that did nothing but wait goes on."""
    run = turn.run
    if run.state == "SUSPENDED" and not run.asked:
        turn.emit(events.RunStateChanged(from_=run.state, to="RUNNING"))


def _close_map(turn: Turn, step: Step) -> None:
    """The last item of a map has ended."""
    branches = step.branches
    if branches is None:
        return
    if step.stop_to == "SKIPPED" and turn.run.state != "CANCELLING":
        skipped = events.StepSkipped(step_id=step.id, reason=step.stopping, by_hand=True, output=step.output)
        turn.emit(skipped)
    elif step.stop_to:
        turn.emit(events.StepCancelled(step_id=step.id, reason=step.stopping or turn.run.reason))
    elif branches.sealed_by:
        item = turn.run.steps[branches.sealed_by]
        tolerated = turn.run.spec(step).tolerate
        failure = failures.of_step(
            step,
            "STEP_FAILED",
            f"{branches.failed} of {branches.count} items failed, tolerated: {tolerated}; the deciding one is {item.id}.",
            "join",
            cause=item.failure,
        )
        fail(turn, step, failure)
    elif branches.cancelled:
        turn.emit(events.StepCancelled(step_id=step.id, reason=turn.run.reason))
    else:
        turn.emit(events.StepCompleted(step_id=step.id, outcome=_outcome(branches)))


def _outcome(branches: Branches) -> str:
    if branches.failed or branches.partial:
        return "PARTIAL"
    return "DEGRADED" if branches.degraded else "SUCCESS"


def fail(
    turn: Turn,
    step: Step,
    failure: Failure,
    *,
    attempt: int = 0,
    attempt_id: str = "",
    usage: Usage = NO_USAGE,
    final: bool = False,
) -> None:
    """Ends a step by a failure, and does what the policies say about it; unless (not `final`) another step handles it first."""
    run = turn.run
    if step.frame is not None:
        navigator = NAVIGATORS[run.definition().navigator]
        navigator.failed(turn, step, failure, attempt=attempt, attempt_id=attempt_id, usage=usage)
        return
    if not final and (handler_step := _handler(turn, step)):
        turn.emit(
            events.HandlerCalled(
                step_id=step.id,
                handler_step=handler_step,
                failure=failure,
                attempt=attempt,
                attempt_id=attempt_id,
                usage=usage,
            )
        )
        return
    turn.emit(
        events.StepFailed(
            step_id=step.id,
            failure=failure,
            attempt=attempt,
            attempt_id=attempt_id,
            usage=usage,
            tolerated=_tolerated(turn, step),
        )
    )
    if step.is_item:
        parent = run.steps[step.above]
        if parent.branches is not None and parent.branches.sealed_by == step.id:
            _sealed(turn, parent)
    elif not step.tolerated:
        if step.parent:
            _untolerated_below(turn, step)
        else:
            _untolerated(turn)


def _handler(turn: Turn, step: Step) -> str:
    """The id that the step gets that handles the error of this one; empty where none does any more."""
    run = turn.run
    rescue = run.spec(step).rescue
    if rescue is None or step.is_item or step.calls >= rescue.calls or step.stop_to == "CANCELLED":
        return ""
    if run.state == "CANCELLING" or (step.above and being_stopped(run, run.steps[step.above])):
        return ""
    name = rescue.step.rpartition("/")[2]
    return f"{step.id}!{step.calls + 1 if step.calls else ''}/{name}"


def _untolerated_below(turn: Turn, step: Step) -> None:
    """A step of a block failed: the others are stopped, unless the policy lets independent work go on."""
    run = turn.run
    holder = run.steps[step.parent]
    if step.role or not holder.holds or run.failure_policy == "CONTINUE" or being_stopped(run, holder):
        return
    turn.emit(events.StepStopping(step_id=holder.id, reason="STEP_FAILED", then="FAILED"))
    ending.cancel_below(turn, holder, f"{step.id} has failed")


def _tolerated(turn: Turn, step: Step) -> bool:
    spec = turn.run.spec(step)
    if not step.is_item:
        return spec.on_error == "continue"
    branches = turn.run.steps[step.above].branches
    return branches is not None and branches.failed < spec.tolerate


def _sealed(turn: Turn, parent: Step) -> None:
    """More items failed than are tolerated: stops the others, unless the policy lets independent work go on."""
    run = turn.run
    if run.state == "CANCELLING" or not stopped(run, parent):
        return
    if run.failure_policy == "FAIL_FAST" and run.spec(parent).on_error == "stop" and not parent.parent:
        ending.stop(turn, "STEP_FAILED")
    else:
        ending.cancel_below(turn, parent, f"{parent.id} has failed")


def _untolerated(turn: Turn) -> None:
    run = turn.run
    if run.state == "CANCELLING" or (run.failure_policy == "FAIL_FAST" and not run.open_steps):
        return
    if run.failure_policy == "FAIL_FAST":
        ending.stop(turn, "STEP_FAILED")
    elif run.failure_policy == "PAUSE" and run.state in ("RUNNING", "SUSPENDED"):
        turn.emit(events.RunStateChanged(from_=run.state, to="PAUSING", reason="STEP_FAILED"))
