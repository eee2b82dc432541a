"""Where a run goes next: which steps are needed, what a failure does, when it is over.

Each step counts the needs that have not ended (`evolve` counts them in); what has none left is looked at here, once. Nothing is scanned, save once when a run is stopped.
"""

from __future__ import annotations

from tierflow_flow.definition import ExpressionError, StepSpec
from tierflow_runtime.values import NO_USAGE, Failure, Usage

from tierflow_orchestrator.core import ending, events, failures, joins, limits
from tierflow_orchestrator.core.branches import stopped
from tierflow_orchestrator.core.kinds import KINDS
from tierflow_orchestrator.core.kinds.approval import expire, resolve
from tierflow_orchestrator.core.kinds.base import Ask, Complete, Escalate, Expand, Fail, Proceed, Resolve, Wait
from tierflow_orchestrator.core.kinds.switch import chosen
from tierflow_orchestrator.core.payloads import failure_code
from tierflow_orchestrator.core.scope import RunScope
from tierflow_orchestrator.core.step import Step
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
        if step.state == "READY":
            _look(turn, step)
        elif step.state == "RUNNING" and step.branches is not None:
            _close_map(turn, step)


def _look(turn: Turn, step: Step) -> None:
    """A step may start as far as its needs go: skips it, or lets its kind say how it goes on."""
    spec = turn.run.spec(step)
    if spec.join is not None:
        release_needs(turn, step, spec.join)
    if spec.chosen_by and _not_chosen(turn, step, spec):
        return
    if not spec.always and _held_up(turn, step, spec):
        return
    try:
        if spec.condition is not None:
            wanted = spec.condition.resolve(RunScope(turn.run, step))
            if not isinstance(wanted, bool):
                raise ExpressionError("the condition is neither true nor false")
            if not wanted:
                turn.emit(events.StepSkipped(step_id=step.id, reason="its condition is false"))
                return
        proceed(turn, step, KINDS[spec.kind].begin(turn, step))
    except ExpressionError as error:
        fail(turn, step, failures.of_step(step, failure_code(error), str(error), "decide"))


def _not_chosen(turn: Turn, step: Step, spec: StepSpec) -> bool:
    """Skips a step that its switch has not chosen, or could not choose."""
    switch = turn.run.steps[spec.chosen_by]
    if step.id in chosen(turn.run, switch.id):
        return False
    if switch.state == "COMPLETED" or spec.always:
        unchosen_by = switch.id if switch.state == "COMPLETED" else switch.unchosen_by
        reason = f"{switch.id} has not chosen it"
        turn.emit(events.StepSkipped(step_id=step.id, reason=reason, unchosen_by=unchosen_by))
        return True
    return False


def _held_up(turn: Turn, step: Step, spec: StepSpec) -> bool:
    """Skips a step, or fails it, where what it needs did not end as it must."""
    run = turn.run
    if step.blocked_by:
        failed = joins.failed(run, step, spec)
        if failed is not None and spec.join is not None:
            message = f"{step.id} cannot be reached: {joins.told(run, step, spec.join)}."
            fail(turn, step, failures.of_step(step, "STEP_FAILED", message, "join", cause=failed.failure))
            return True
        blocker = run.steps[step.blocked_by]
        turn.emit(events.StepSkipped(step_id=step.id, reason=f"needs {blocker.id}, which is {blocker.state}"))
        return True
    other = joins.unchosen(run, step, spec) if step.passed else None
    if other is not None:
        reason = f"needs {other.id}, which {other.unchosen_by} has not chosen"
        turn.emit(events.StepSkipped(step_id=step.id, reason=reason, unchosen_by=other.unchosen_by))
    return other is not None


def proceed(turn: Turn, step: Step, how: Proceed) -> None:
    """Does what a step's kind has decided."""
    if isinstance(how, Expand):
        turn.emit(events.ItemsExpanded(step_id=step.id, count=how.count))
    elif isinstance(how, Wait):
        turn.emit(events.StepWaiting(step_id=step.id, reason=how.reason, until=how.until))
    elif isinstance(how, Complete):
        for fact in how.facts:
            turn.emit(fact)
        turn.emit(events.StepCompleted(step_id=step.id, output=how.output))
    elif isinstance(how, Fail):
        fail(turn, step, how.failure)
    else:
        _ask(turn, step, how)


def _ask(turn: Turn, step: Step, how: Proceed) -> None:
    """What concerns the approval of a step."""
    if isinstance(how, Ask):
        turn.emit(how.request)
    elif isinstance(how, Escalate):
        turn.emit(events.ApprovalEscalated(step_id=step.id, until=how.until))
    elif isinstance(how, Resolve):
        turn.emit(events.ApprovalResolved(step_id=step.id, verdict=how.verdict))
        if how.then is not None:
            proceed(turn, step, how.then)


def fire(turn: Turn) -> None:
    """Ends the waits whose message is there or whose moment has come, and the steps whose time is up."""
    run = turn.run
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
            due = expire if step.state == "AWAITING_APPROVAL" else KINDS[run.spec(step).kind].due
            how = due(turn, step)
        else:
            break
        go_on(turn)
        proceed(turn, step, how)
    settle(turn)


def _cut_off(turn: Turn, step: Step) -> None:
    """The time of a step is up: it fails, once its attempt has stopped where one is in flight."""
    if step.in_flight:
        stopping = events.StepStopping(step_id=step.id, reason="TIMEOUT", then="FAILED", attempt_id=step.attempt_id)
        turn.emit(stopping)
        return
    fail(turn, step, limits.failure_of(turn.run, step, turn.now))
    look(turn)
    if not turn.run.only_waits:
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
    if step.stop_to:
        turn.emit(events.StepCancelled(step_id=step.id, reason=step.stopping))
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
        outcome = "PARTIAL" if branches.failed else "DEGRADED" if branches.degraded else "SUCCESS"
        turn.emit(events.StepCompleted(step_id=step.id, outcome=outcome))


def fail(
    turn: Turn, step: Step, failure: Failure, *, attempt: int = 0, attempt_id: str = "", usage: Usage = NO_USAGE
) -> None:
    """Ends a step by a failure, and does what the policies say about it."""
    run = turn.run
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
        parent = run.steps[step.of]
        if parent.branches is not None and parent.branches.sealed_by == step.id:
            _sealed(turn, parent)
    elif not step.tolerated:
        _untolerated(turn)


def _tolerated(turn: Turn, step: Step) -> bool:
    spec = turn.run.spec(step)
    if not step.is_item:
        return spec.on_error == "continue"
    branches = turn.run.steps[step.of].branches
    return branches is not None and branches.failed < spec.tolerate


def _sealed(turn: Turn, parent: Step) -> None:
    """More items failed than are tolerated: stops the others, unless the policy lets independent work go on."""
    run = turn.run
    if run.state == "CANCELLING" or not stopped(run, parent):
        return
    if run.failure_policy == "FAIL_FAST" and run.spec(parent).on_error != "continue":
        ending.stop(turn, "STEP_FAILED")
    else:
        ending.cancel_items(turn, parent, f"{parent.id} has failed")


def _untolerated(turn: Turn) -> None:
    run = turn.run
    if run.state == "CANCELLING" or (run.failure_policy == "FAIL_FAST" and not run.open_steps):
        return
    if run.failure_policy == "FAIL_FAST":
        ending.stop(turn, "STEP_FAILED")
    elif run.failure_policy == "PAUSE" and run.state in ("RUNNING", "SUSPENDED"):
        turn.emit(events.RunStateChanged(from_=run.state, to="PAUSING", reason="STEP_FAILED"))
