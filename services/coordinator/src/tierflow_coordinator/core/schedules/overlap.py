"""What becomes of a firing: it begins, waits for an earlier one, or is skipped."""

from __future__ import annotations

from typing import Final

from tierflow_runtime.values import Failure, Micros

from tierflow_coordinator.core.schedules import spec as policies
from tierflow_coordinator.core.schedules import states
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.turn import Turn

MOST_OPEN: Final = 2000
"""More firings than this are never open at once: the schedule is held in memory whole."""
FIRST_PAUSE: Final[Micros] = 1_000_000
LONGEST_PAUSE: Final[Micros] = 60_000_000


def fire(turn: Turn, firing: Firing, overlap: str = "") -> None:
    """Decides about a new firing, by a policy or the schedule's own."""
    schedule = turn.schedule
    policy = overlap or schedule.spec.overlap
    running = schedule.running
    waiting = [other for other in schedule.waiting if other.kind != states.BACKFILLED]
    if len(schedule.open) >= MOST_OPEN:
        _skip(turn, firing, f"{len(schedule.open)} firings are open, which is the most that may be")
    elif policy == policies.ALLOW or not (running or waiting):
        started(turn, firing)
    elif policy == policies.CANCEL_RUNNING:
        _instead(turn, firing, running, waiting)
    else:
        _behind(turn, firing, policy, running, waiting)


def _behind(turn: Turn, firing: Firing, policy: str, running: list[Firing], waiting: list[Firing]) -> None:
    room = {policies.BUFFER_ONE: 1, policies.BUFFER_ALL: turn.schedule.spec.max_waiting}.get(policy, 0)
    if all(other.kind == states.BACKFILLED for other in running):
        room = max(
            room, 1
        )  # The present is not skipped for making up for the past; it goes before what is left of that.
    first = (running or waiting)[0]
    if len(waiting) < room:
        turn.change(firing, state=states.WAITING, version=turn.schedule.version, reason=f"{_name(first)} has not ended")
    elif room:
        _skip(turn, firing, f"{_name(first)} has not ended, and {len(waiting)} wait already")
    else:
        _skip(turn, firing, f"{_name(first)} has not ended")


def _instead(turn: Turn, firing: Firing, running: list[Firing], waiting: list[Firing]) -> None:
    for other in waiting:
        turn.change(other, state=states.SKIPPED, reason=f"{_name(firing)} came before it began", ended_at=turn.now)
    for other in running:
        if other.state == states.STARTED:
            turn.change(other, state=states.CANCELLING, reason=f"{_name(firing)} takes its place")
        elif other.state == states.DELAYED:
            turn.change(other, state=states.SKIPPED, reason=f"{_name(firing)} came before it began", ended_at=turn.now)
    turn.change(firing, state=states.WAITING, version=turn.schedule.version, reason="the firing before it is cancelled")


def begin_waiting(turn: Turn) -> None:
    """Begins what waits, where nothing is at work any more; cancels what began late, where a later one waits to take its place."""
    schedule = turn.schedule
    if schedule.state == states.DELETING or not schedule.open:
        return
    first = _first_waiting(turn)
    if first is None:
        return
    running = _in_its_way(turn, first)
    if not running:
        started(turn, first)
    elif schedule.spec.overlap == policies.CANCEL_RUNNING and first.kind != states.BACKFILLED:
        _cancel(turn, running, first)


def _first_waiting(turn: Turn) -> Firing | None:
    """The next to begin: the past comes after the present. What is fired by hand begins also while the schedule is paused."""
    active = turn.schedule.state == states.ACTIVE
    may_begin = [firing for firing in turn.schedule.waiting if active or firing.kind != states.SCHEDULED]
    return min(may_begin, key=lambda firing: firing.kind == states.BACKFILLED, default=None)


def _in_its_way(turn: Turn, first: Firing) -> list[Firing]:
    running = turn.schedule.running
    if turn.schedule.spec.overlap == policies.ALLOW:  # A backfill of one after the other does not wait for the others.
        return [firing for firing in running if firing.kind == first.kind]
    return running


def _cancel(turn: Turn, running: list[Firing], instead: Firing) -> None:
    for firing in running:
        if firing.state == states.STARTED and firing.kind != states.BACKFILLED:
            turn.change(firing, state=states.CANCELLING, reason=f"{_name(instead)} takes its place")


def started(turn: Turn, firing: Firing) -> None:
    """Begins a firing: its swarm is asked for once this is committed."""
    schedule = turn.schedule
    version = firing.version if firing.state == states.WAITING else schedule.version
    turn.change(
        firing,
        state=states.REQUESTED,
        reason="",
        version=version if version in schedule.specs else schedule.version,
        fired_at=turn.now,
        previous=schedule.previous if firing.kind == states.SCHEDULED else None,
    )


def delayed(turn: Turn, firing: Firing, failure: Failure) -> None:
    """A swarm was not made: it is tried again within the time for catching up, where trying again may help."""
    schedule = turn.schedule
    since = firing.fired_at or turn.now
    # The pause grows with the time that has passed: no count needs to be kept.
    pause = min(max(FIRST_PAUSE, (turn.now - since) // 2, failure.retry_after or 0), LONGEST_PAUSE)
    if failure.retryable and turn.now + pause <= since + schedule.spec.catch_up and schedule.state != states.DELETING:
        turn.change(firing, state=states.DELAYED, failure=failure, retry_at=turn.now + pause)
    else:
        turn.change(firing, state=states.REFUSED, failure=failure, ended_at=turn.now, reason=failure.code)


def _skip(turn: Turn, firing: Firing, why: str) -> None:
    turn.change(firing, state=states.SKIPPED, version=turn.schedule.version, reason=why, ended_at=turn.now)


def _name(firing: Firing) -> str:
    return f"firing {firing.firing_id}"
