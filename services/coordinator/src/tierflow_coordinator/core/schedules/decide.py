"""What a schedule decides: for each command the events that follow from it, given the state and the moment.

A command that comes too late or twice is stale, not an error: it yields no event and is answered with the stored state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from tierflow_runtime.values import Failure, FailureError, Micros

from tierflow_coordinator.core.schedules import commands, events, states
from tierflow_coordinator.core.schedules.due import begin_due
from tierflow_coordinator.core.schedules.firing import Firing, backfilled_id, triggered_id
from tierflow_coordinator.core.schedules.overlap import begin_waiting, delayed, fire, started
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.schedules.times import text_of
from tierflow_coordinator.core.schedules.turn import Turn


class Decision(msgspec.Struct, kw_only=True):
    """Events, already applied to the state, and the answer."""

    events: Sequence[events.ScheduleEvent]
    reply: commands.Reply
    blobs: Mapping[str, bytes] = {}


def decide(schedule: Schedule, command: commands.ScheduleCommand, now: Micros) -> Decision:
    """Decides, and applies the events it emits to `schedule`.

    Raises:
        FailureError: ALREADY_EXISTS for a second creation; STATE_CONFLICT for anything said to a schedule that was never created, for an update of
            another version than it has, and for one that has ended and is to fire.
    """
    if schedule.state == states.NEW and type(command) is not commands.CreateSchedule:
        raise conflict("The schedule was never created.")
    turn = Turn(schedule, now)
    if isinstance(command, commands.Told) and command.command_id in schedule.known_commands:
        return _answer(turn, schedule.find(triggered_id(command.command_id)), applied=True)
    firing = _DECIDE[type(command)](turn, command)
    if turn.events and not schedule.over:
        begin_waiting(turn)
        _look_after_failures(turn)
        _perhaps_over(turn)
    return _answer(turn, firing, applied=bool(turn.events))


def _answer(turn: Turn, firing: Firing | None, *, applied: bool) -> Decision:
    schedule = turn.schedule
    current = None if firing is None else schedule.find(firing.firing_id) or firing
    reply = commands.Reply(applied=applied, state=schedule.state, version=schedule.version, firing=current)
    return Decision(events=turn.events, reply=reply)


def conflict(message: str, code: str = "STATE_CONFLICT") -> FailureError:
    """The refusal of what the state does not allow."""
    return FailureError(Failure(code=code, message=message, tier=1, component="schedule", operation="decide"))


def _create(turn: Turn, command: commands.CreateSchedule) -> None:
    if turn.schedule.state != states.NEW:
        raise conflict("The schedule exists already.", "ALREADY_EXISTS")
    turn.emit(
        events.ScheduleCreated(
            name=command.name,
            tenant=command.tenant,
            user_id=command.user_id,
            roles=command.roles,
            spec=command.spec,
            request_id=command.request_id,
            paused=command.paused,
            reason=command.reason,
        )
    )


def _update(turn: Turn, command: commands.UpdateSchedule) -> None:
    schedule = turn.schedule
    _require_alive(schedule, "updated")
    if command.expected_version and command.expected_version != schedule.version:
        raise conflict(
            f"Schedule {schedule.name} has version {schedule.version}, not {command.expected_version}: somebody has changed it since."
            " Read it again, and send the change of what it is now."
        )
    if command.spec == schedule.spec:
        return
    _received(turn, command, "update")
    turn.emit(events.ScheduleUpdated(spec=command.spec, version=schedule.version + 1, actor=command.actor))


def _pause(turn: Turn, command: commands.PauseSchedule) -> None:
    if turn.schedule.state == states.ACTIVE:
        _received(turn, command, "pause")
        turn.move(states.PAUSED, command.reason, command.actor)


def _resume(turn: Turn, command: commands.ResumeSchedule) -> None:
    if turn.schedule.state == states.PAUSED:
        _received(turn, command, "resume")
        turn.move(states.ACTIVE, command.reason, command.actor)


def _trigger(turn: Turn, command: commands.TriggerSchedule) -> Firing:
    _require_alive(turn.schedule, "fired")
    _received(turn, command, "trigger")
    firing = Firing(firing_id=triggered_id(command.command_id), kind=states.TRIGGERED, time=turn.now)
    fire(turn, firing, command.overlap)
    return firing


def _backfill(turn: Turn, command: commands.BackfillSchedule) -> None:
    _require_alive(turn.schedule, "fired")
    if not command.times:
        return
    _received(turn, command, "backfill")
    ids = tuple(backfilled_id(command.command_id, text_of(time)) for time in command.times)
    turn.emit(events.BackfillRequested(firing_ids=ids, times=command.times, concurrent=command.concurrent))
    if command.concurrent:
        for firing_id in ids:
            started(turn, turn.schedule.open[firing_id])


def _delete(turn: Turn, command: commands.DeleteSchedule) -> None:
    schedule = turn.schedule
    if schedule.over or schedule.state == states.DELETING:
        return
    _received(turn, command, "delete")
    for firing in list(schedule.open.values()):
        if firing.state in (states.WAITING, states.DELAYED):
            turn.change(firing, state=states.SKIPPED, reason="the schedule was deleted", ended_at=turn.now)
        elif firing.state == states.STARTED and command.cancel_running:
            turn.change(firing, state=states.CANCELLING, reason="the schedule was deleted")
    # What is being made may be made already: it is waited for.
    to = states.DELETING if schedule.busy else states.DELETED
    turn.move(to, command.reason, command.actor, cancel_running=command.cancel_running)


def _made(turn: Turn, command: commands.FiringMade) -> None:
    firing = turn.schedule.open.get(command.firing_id)
    if firing is None or firing.state != states.REQUESTED:
        return
    firing = turn.change(firing, state=states.STARTED, swarm_id=command.swarm_id, failure=None, retry_at=None)
    if turn.schedule.cancels:
        turn.change(firing, state=states.CANCELLING, reason="the schedule was deleted")


def _refused(turn: Turn, command: commands.FiringRefused) -> None:
    firing = turn.schedule.open.get(command.firing_id)
    if firing is not None and firing.state == states.REQUESTED:
        delayed(turn, firing, command.failure)


def _over(turn: Turn, command: commands.FiringOver) -> None:
    schedule = turn.schedule
    firing = schedule.find(command.firing_id)
    if firing is None or schedule.over or command.tenant != schedule.tenant:
        return
    if firing.state == states.REQUESTED:
        # The swarm was faster than the answer that it was made: its request id says whose it is.
        firing = turn.change(firing, state=states.STARTED, swarm_id=command.swarm_id, failure=None, retry_at=None)
    if firing.swarm_id != command.swarm_id or (firing.over and firing.outcome == command.outcome):
        return
    turn.change(
        firing,
        state=states.FIRING_ENDED,
        outcome=command.outcome,
        failure=command.failure,
        ended_at=command.ended_at or turn.now,
    )


def _wake(turn: Turn, _command: commands.WakeUp) -> None:
    begin_due(turn)


def _received(turn: Turn, command: commands.Told, what: str) -> None:
    turn.emit(
        events.CommandReceived(command_id=command.command_id, command=what, actor=command.actor, reason=command.reason)
    )


def _require_alive(schedule: Schedule, what: str) -> None:
    if schedule.over or schedule.state == states.DELETING:
        raise conflict(f"Schedule {schedule.name} is {schedule.state} and cannot be {what} any more.")


def _look_after_failures(turn: Turn) -> None:
    schedule = turn.schedule
    most, now_failed = schedule.spec.pause_after_failures, schedule.counts.failed_in_row
    if most and now_failed >= most and schedule.state == states.ACTIVE:
        last = next(firing for firing in reversed(schedule.recent) if firing.failed)
        why = f": {last.failure.code}, {last.failure.message}" if last.failure is not None else ""
        turn.move(states.PAUSED, f"{now_failed} firings in a row failed{why}", "")


def _perhaps_over(turn: Turn) -> None:
    schedule = turn.schedule
    if schedule.state == states.DELETING and not schedule.busy:
        turn.move(states.DELETED, schedule.reason, schedule.actor)
    elif schedule.state == states.ACTIVE and not schedule.open and schedule.next_moment is None:
        limit = schedule.spec.max_firings
        spent = limit and schedule.counts.fired >= limit
        turn.move(states.ENDED, f"it has fired {limit} times" if spent else "there are no further times", "")


_DECIDE: dict[type, Callable[[Turn, Any], Firing | None]] = {
    commands.CreateSchedule: _create,
    commands.UpdateSchedule: _update,
    commands.PauseSchedule: _pause,
    commands.ResumeSchedule: _resume,
    commands.TriggerSchedule: _trigger,
    commands.BackfillSchedule: _backfill,
    commands.DeleteSchedule: _delete,
    commands.FiringMade: _made,
    commands.FiringRefused: _refused,
    commands.FiringOver: _over,
    commands.WakeUp: _wake,
}
