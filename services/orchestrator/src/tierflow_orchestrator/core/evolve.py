"""How each event changes a run: the only place that changes one. The same for an event just decided and for one read from the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappush
from typing import Any

from tierflow_runtime.ledger import amounts_of, without
from tierflow_runtime.values import BlobRef, Micros

from tierflow_orchestrator.core import (
    branches,
    children,
    compensation,
    events,
    evolve_approvals,
    evolve_blocks,
    evolve_serverless,
    evolve_tools,
    generations,
    limits,
    steered,
)
from tierflow_orchestrator.core.failures import is_loss
from tierflow_orchestrator.core.moves import begin, book, end_step, lose, make_ready, move, remember
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.states import COMMANDS, RUN, STEP, IllegalTransition
from tierflow_orchestrator.core.step import Step


def evolve(run: Run, event: events.RunEvent, time: Micros) -> None:
    """Applies an event that happened at `time`. Raises `IllegalTransition` for a history that cannot have been."""
    run.moment = time
    _BY_TYPE[type(event)](run, event, time)


# The run itself.


def _created(run: Run, event: events.RunCreated, time: Micros) -> None:
    if run.state:
        raise IllegalTransition(RUN.name, run.id, run.state, RUN.initial)
    run.state = RUN.initial
    run.context = event.context
    run.generation = event.context.generation
    run.flow_hash, run.flow_name, run.flow_version = event.flow_hash, event.flow_name, event.flow_version
    run.input, run.allocation, run.options = event.input, event.allocation, event.options
    run.ledger.grant(event.allocation)
    run.created_at = time
    if event.options.breakpoints:
        run.steered().breakpoints = event.options.breakpoints
    if event.reuse is not None:
        run.steered().reuse = event.reuse
    _set_deadline(run)


def _set_deadline(run: Run) -> None:
    """The earliest of all that bounds the run in time, counted from when its generation was opened; or what an update says."""
    start = max(run.created_at, run.options.not_before or 0)
    if run.steer is not None:
        if run.steer.deadline is not None:
            run.deadline = run.steer.deadline
            return
        start = max(start, run.steer.opened_at)
    deadline = run.context.deadline
    for span in (run.options.timeout, run.allocation.wall_time, run.flow.run_timeout if run.flow else None):
        if span is not None and (deadline is None or start + span < deadline):
            deadline = start + span
    run.deadline = deadline


def _state_changed(run: Run, event: events.RunStateChanged, time: Micros) -> None:
    if event.generation:
        RUN.check_reopening(run.id, run.state, event.to)
    else:
        RUN.check(run.id, run.state, event.to)
    before, run.state, run.reason = run.state, event.to, event.reason
    if event.generation:
        generations.reopen(run, event, time)
        _set_deadline(run)
    elif event.to == "CANCELLING":
        steered.note_stop(run, event, time)
        run.stopping = "CANCELLED" if run.cancel_asked else event.reason
    elif event.to == "COMPENSATING":
        run.undo = compensation.plan(run)
    elif event.to == "RUNNING" and before == "PREPARING":
        _open(run)
    elif event.to == "RUNNING" and before == "SUSPENDED":
        _release_asked(run)


def _open(run: Run) -> None:
    """The steps of the flow become known, those that need nothing may start."""
    flow = run.definition()
    _set_deadline(run)
    if run.steps:
        generations.start(run)
        return
    if flow.program is not None:
        return
    for spec in flow.steps:
        handler = spec.handler if spec.dispatched else ""
        run.steps[spec.id] = Step(id=spec.id, of=spec.id, handler=handler, waiting=len(spec.needs))
    run.open_steps = len(flow.steps)
    run.counts_by_state[STEP.initial] += run.open_steps
    if run.steer is not None and run.steer.reused:
        steered.take_over(run)
        return
    for step_id in flow.roots:
        make_ready(run, run.steps[step_id])


def _release_asked(run: Run) -> None:
    for step_id in run.asked:
        step = run.steps[step_id]
        step.asked = False
        heappush(run.backoff, (step.next_attempt_at or 0, step_id, step.epoch))
    run.asked.clear()


def _ended(run: Run, event: events.RunEnded, time: Micros) -> None:
    RUN.check(run.id, run.state, event.to)
    run.state, run.reason = event.to, event.reason
    run.outcome, run.output, run.failure = event.outcome, event.output, event.failure
    run.ended_at = time


def predict(run: Run, command: str) -> tuple[bool, str]:
    """Whether a command applies to the run as it is, and the state to which it leads."""
    if run.state not in COMMANDS.get(command, ()):
        return False, run.state
    if command == "resume":
        return _predict_resume(run)
    if command == "cancel":
        return True, "CANCELLING" if run.live else compensation.after(run, "cancel", "CANCELLED")
    if command not in ("pause", "interrupt"):
        return True, run.state
    return True, "PAUSING" if children.attempts_in_flight(run) else "PAUSED"


def _predict_resume(run: Run) -> tuple[bool, str]:
    if run.state == "SUSPENDED":
        return bool(run.asked), "RUNNING" if run.asked else run.state
    if run.asked or run.only_waits:
        return True, "SUSPENDED"
    return True, "RUNNING" if run.open_steps else compensation.after(run, "failure", "FAILED")


def _command(run: Run, event: events.CommandReceived, time: Micros) -> None:
    applied, state = predict(run, event.command)
    for command_id in event.superseded:
        remember(run, command_id, False, state)
    remember(run, event.command_id, applied, state)
    if not applied:
        return
    if event.command == "cancel":
        run.cancel_asked = True
    elif event.command == "step":
        run.steered().stepping = True
    elif event.command == "resume" and run.steer is not None:
        run.steer.stepping = False


def _signalled(run: Run, event: events.SignalReceived, time: Micros) -> None:
    remember(run, event.signal_id, True, run.state)
    name = event.name if run.definition().program is None else evolve_serverless.INBOX
    run.signals.setdefault(name, []).append(event.payload)
    if run.definition().program is None:
        run.steered().signal_ids.setdefault(name, []).append(event.signal_id)


# Steps.


def _expanded(run: Run, event: events.ItemsExpanded, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "RUNNING")
    step.scheduled_at = step.started_at = time
    branches.expand(run, step, event.count)


def _scheduled(run: Run, event: events.StepScheduled, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "SCHEDULED")
    step.attempt, step.epoch, step.attempt_id = event.attempt, event.epoch, event.attempt_id
    step.executor_id, step.input = event.executor_id, event.input
    step.next_attempt_at = step.start_by = None
    step.started_at = step.tools = None
    if step.scheduled_at is None:
        step.scheduled_at = time
    if run.started_at is None:
        run.started_at = time
    if event.child_run_id:
        step.child, step.child_paused = event.child_run_id, False
    run.live[step.id] = None
    if event.grant is None:
        run.ledger.begin()
    else:
        step.grant = event.grant
        run.ledger.begin(step.attempt_id, amounts_of(event.grant))
    run.due.discard(step.id)
    queue = run.ready.get(step.handler)
    if queue and queue[0] == step.id:
        queue.popleft()


def _told(run: Run, event: events.ChildTold, time: Micros) -> None:
    run.steps[event.step_id].child_paused = event.paused


def _started(run: Run, event: events.StepStarted, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "RUNNING")
    step.started_at = event.started_at


def _waiting(run: Run, event: events.StepWaiting, time: Micros) -> None:
    step = run.steps[event.step_id]
    if step.frame is not None:
        evolve_serverless.note_wait(step.frame, event)
    if step.block is not None:
        step.block.delayed = True
    elif step.frame is None or step.state != "RUNNING":
        begin(run, step, time)
    step.reason, step.wakes_at = event.reason, event.until
    run.wait(step)


def _completed(run: Run, event: events.StepCompleted, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.output, step.outcome = event.output, event.outcome
    if step.frame is not None:
        step.frame.directive = event.directive
    if event.warnings:
        step.warnings = event.warnings
    if event.cached is not None:
        step.cached = event.cached
    if run.stopping:
        steered.note_receipt(run, event.attempt_id, "ENDED", event.usage)
    if run.signals and not step.handler:
        run.take_signal(run.spec(step).settings.get("signal", ""), step)
    book(run, step, event.usage)
    if isinstance(event.output, BlobRef):
        _note_large(run, step, event.output)
    if event.outcome == "DEGRADED":
        run.degraded = True
    elif event.outcome == "PARTIAL":
        run.partial = True
    end_step(run, step, "COMPLETED", time)


def _note_large(run: Run, step: Step, output: BlobRef) -> None:
    run.note_large(step.of, output)
    if run.unloaded is not None and run.looks_into(step.of):
        run.unloaded[output.sha256] = None


def _retrying(run: Run, event: events.StepRetrying, time: Micros) -> None:
    step = run.steps[event.step_id]
    move(run, step, "BACKOFF")
    step.failure, step.next_attempt_at = event.failure, event.next_attempt_at
    if step.stop_to:
        step.stopping = step.stop_to = ""
        limits.restore(run, step)
    gone = is_loss(event.failure)
    if gone:
        lose(run, step, time)
    book(run, step, event.usage)
    run.live.pop(step.id, None)
    if gone and on_lost(run, step) == "ASK":
        step.asked = True
        run.asked[step.id] = None
        return
    if not step.handler:
        run.set_timer(step, event.next_attempt_at)
        return
    heappush(run.backoff, (event.next_attempt_at, step.id, step.epoch))
    limits.await_slot(run, step, run.spec(step), event.next_attempt_at)


def on_lost(run: Run, step: Step) -> str:
    """RETRY, FAIL or ASK: what happens to a step whose executor is gone (rule R26)."""
    spec = run.spec(step)
    return spec.on_lost or run.options.on_lost or ("ASK" if spec.side_effecting else "RETRY")


def _failed(run: Run, event: events.StepFailed, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.failure, step.tolerated, step.outcome = event.failure, event.tolerated, "FAILURE"
    if run.stopping:
        steered.note_receipt(run, event.attempt_id, "ENDED", event.usage)
    if event.attempt_id and is_loss(event.failure):
        lose(run, step, time)
    book(run, step, event.usage)
    if event.tolerated:
        run.partial = True
    elif not (step.is_item or step.parent or run.failed_step or (step.frame is not None and step.frame.parent)):
        run.failed_step = step.id
    end_step(run, step, "FAILED", time)


def _skipped(run: Run, event: events.StepSkipped, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.reason, step.unchosen_by = event.reason, event.unchosen_by
    if event.by_hand:
        steered.skipped(run, step, event)
    end_step(run, step, "SKIPPED", time)


def _cancelled(run: Run, event: events.StepCancelled, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.reason, step.outcome = event.reason, "CANCELLED"
    if run.stopping:
        steered.note_receipt(run, event.attempt_id, "CONFIRMED" if event.confirmed else "UNCONFIRMED", event.usage)
    if not event.confirmed:
        lose(run, step, time)
        run.unconfirmed[event.attempt_id] = None
    book(run, step, event.usage)
    end_step(run, step, "CANCELLED", time)


def _cache_missed(run: Run, event: events.CacheMissed, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.cache_key = event.key_hash
    run.lookups.pop(step.id, None)
    run.ready.setdefault(step.handler, deque()).append(step.id)


def _variables_set(run: Run, event: events.VariablesSet, time: Micros) -> None:
    step = run.steps[event.step_id]
    run.sets += 1
    run.views.pop(step.id, None)
    step.set_number = run.sets
    step.variables += tuple(variable for variable in event.variables if variable.policy != "append")


def _stopping(run: Run, event: events.StepStopping, time: Micros) -> None:
    step = run.steps[event.step_id]
    step.stopping, step.stop_to, step.deadline = event.reason, event.then, None
    if event.output is not None:
        step.output = event.output


def _late(run: Run, event: events.LateResult, time: Micros) -> None:
    step = run.steps[event.step_id]
    epoch = int(event.attempt_id.rpartition("/")[2])
    step.unbooked = tuple(other for other in step.unbooked if other != epoch)
    if run.stopping:
        steered.note_receipt(run, event.attempt_id, "ENDED", event.usage)
    step.usage = without(step.usage.plus(event.usage), run.ledger.correct(event.attempt_id, event.usage))


def _charged(run: Run, event: events.HoldCharged, time: Micros) -> None:
    step = run.steps.get(event.step_id)
    whole = run.ledger.charge(event.attempt_id)
    if step is not None:  # An item or a step of a block may be gone by now: those above it have its bill.
        step.usage = step.usage.plus(whole)


def _emitted(run: Run, event: events.EventEmitted, time: Micros) -> None:
    """What a flow publishes is in the journal; the run does not keep it."""


def _logged(run: Run, event: events.AttemptLogged, time: Micros) -> None:
    """What an attempt wrote is in the journal; the run does not keep it."""


_BY_TYPE: dict[type, Callable[[Run, Any, Micros], None]] = {
    events.RunCreated: _created,
    events.RunStateChanged: _state_changed,
    events.RunEnded: _ended,
    events.CommandReceived: _command,
    events.ItemsExpanded: _expanded,
    events.StepScheduled: _scheduled,
    events.StepStarted: _started,
    events.ChildTold: _told,
    events.StepCompleted: _completed,
    events.StepRetrying: _retrying,
    events.StepFailed: _failed,
    events.StepSkipped: _skipped,
    events.StepCancelled: _cancelled,
    events.CacheMissed: _cache_missed,
    events.VariablesSet: _variables_set,
    events.StepStopping: _stopping,
    events.LateResult: _late,
    events.HoldCharged: _charged,
    events.AttemptLogged: _logged,
    events.StepWaiting: _waiting,
    **evolve_blocks.BY_TYPE,
    events.EventEmitted: _emitted,
    events.SignalReceived: _signalled,
    **evolve_approvals.BY_TYPE,
    **evolve_serverless.BY_TYPE,
    **evolve_tools.BY_TYPE,
    **steered.EVENTS,
}
