"""What can be told a schedule: pause, trigger, backfill, update, delete; and how it ends."""

from __future__ import annotations

import pathlib
import sys

import pytest
from tierflow_coordinator.core.schedules import commands, states
from tierflow_coordinator.core.schedules.decide import decide
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.schedules.spec import DAY, Spec
from tierflow_runtime.values import FailureError

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from schedule_world import HOUR, ID, MACHINE, MINUTE, START, World, at, template


def test_pause_and_resume() -> None:
    """Q6: while paused times pass and nothing is scheduled to wake; resuming fires from then on, not what passed."""
    world = World(Spec(cron=("@hourly",)), paused=True)
    assert world.schedule.state == states.PAUSED
    assert world.schedule.wake_at is None
    world.now += 5 * HOUR
    assert world.say(commands.ResumeSchedule, reason="go").applied
    world.until(world.now + HOUR)
    assert world.fired() == ["2023-11-15T04:00"]
    assert world.schedule.counts.missed == 0
    assert world.say(commands.PauseSchedule, reason="holiday").state == states.PAUSED
    assert (world.schedule.reason, world.schedule.actor) == ("holiday", "u")
    assert not world.say(commands.PauseSchedule).applied
    world.check()


def test_trigger() -> None:
    """Q6: by hand it fires at once, also while paused; the same command again is the same firing; an overlap is as the schedule or the command says."""
    world = World(Spec(every=HOUR), paused=True)
    first = world.tell(commands.TriggerSchedule(command_id="a", actor="u"))
    again = world.tell(commands.TriggerSchedule(command_id="a", actor="u"))
    assert first.firing is not None
    assert again.firing is not None
    assert again.applied
    assert again.firing.firing_id == first.firing.firing_id
    assert len(world.requests) == 1
    skipped = world.tell(commands.TriggerSchedule(command_id="b"))
    assert skipped.firing is not None
    assert skipped.firing.state == states.SKIPPED
    beside = world.tell(commands.TriggerSchedule(command_id="c", overlap="ALLOW"))
    assert beside.firing is not None
    assert beside.firing.state in (states.REQUESTED, states.STARTED)
    assert world.schedule.counts.fired == 0
    world.check()


def test_backfill_goes_one_by_one() -> None:
    """Q6: a backfill fires the times of its range in order, one after the other, whether they fired before or not; the present goes before it."""
    world = World(Spec(cron=("@hourly",)))
    world.until(START + 2 * HOUR)
    range_ = tuple(moment for moment in (at("2023-11-14T23:00"), at("2023-11-15T00:00"), at("2023-11-15T01:00")))
    assert world.say(commands.BackfillSchedule, times=range_).applied
    assert world.fired(states.BACKFILLED) == ["2023-11-14T23:00"]
    world.until(world.now + HOUR, ends=False)  # A time of the present waits for what is at work, and is not skipped.
    assert [firing.kind for firing in world.schedule.waiting] == [
        states.BACKFILLED,
        states.BACKFILLED,
        states.SCHEDULED,
    ]
    for _ in range(4):
        world.end()
    order = [firing.kind for firing in world.changes(states.REQUESTED)][-4:]
    assert order == [states.BACKFILLED, states.SCHEDULED, states.BACKFILLED, states.BACKFILLED]
    assert len(world.requests) == 6
    assert world.schedule.counts.skipped == 0
    world.check()


def test_backfill_at_once() -> None:
    """Q6: a concurrent backfill fires all of its times at once, and does not count as the schedule's firings."""
    world = World(Spec(every=HOUR, max_firings=1))
    world.say(commands.BackfillSchedule, times=tuple(START - n * HOUR for n in range(5, 0, -1)), concurrent=True)
    assert len(world.schedule.running) == 5
    assert world.schedule.counts.fired == 0
    world.check()


def test_update() -> None:
    """Q6: an update is versioned: one of another version is refused; what has fired is asked for again as it began; the past does not fire."""
    world = World(Spec(every=HOUR, swarm=template("one")))
    world.now += HOUR
    world.tell(commands.WakeUp(), answer=False)
    (firing,) = world.schedule.open.values()
    new = Spec(every=MINUTE, swarm=template("two"))
    with pytest.raises(FailureError, match="has version 1, not 7"):
        world.say(commands.UpdateSchedule, spec=new, expected_version=7)
    assert world.say(commands.UpdateSchedule, spec=new, expected_version=1).version == 2
    assert world.schedule.specs[firing.version].swarm == template("one")
    assert world.schedule.wake_at is not None
    assert world.schedule.wake_at > world.now
    assert not world.say(commands.UpdateSchedule, spec=new).applied
    world.make(firing.firing_id)
    world.end()
    assert list(world.schedule.specs) == [2]
    world.check()


def test_it_ends() -> None:
    """Q6: after its last time, or after so many firings, it ends once its last swarm has; then nothing fires it."""
    world = World(Spec(every=HOUR, max_firings=3, overlap="BUFFER_ALL"))
    world.until(START + 10 * HOUR, ends=False)
    assert len(world.schedule.open) == 3
    assert world.schedule.state == states.ACTIVE
    for _ in range(3):
        world.end()
    assert (world.schedule.state, world.schedule.reason) == (states.ENDED, "it has fired 3 times")
    with pytest.raises(FailureError, match="cannot be fired"):
        world.say(commands.TriggerSchedule)
    world.check()
    bounded = World(Spec(every=HOUR, end_at=START + 2 * HOUR))
    bounded.until(START + DAY)
    assert (len(bounded.fired()), bounded.schedule.reason) == (2, "there are no further times")
    bounded.check()


@pytest.mark.parametrize("cancel", [False, True])
def test_delete(cancel: bool) -> None:
    """Q6: a deleted schedule waits for what is being made and, where they are cancelled, for its swarms; others go on without it."""
    world = World(Spec(every=HOUR, overlap="ALLOW"))
    world.until(START + HOUR, ends=False)
    world.now += HOUR
    world.tell(commands.WakeUp(), answer=False)
    reply = world.tell(commands.DeleteSchedule(command_id="d", cancel_running=cancel), answer=False)
    assert reply.state == states.DELETING
    requested = next(firing for firing in world.schedule.running if firing.state == states.REQUESTED)
    world.make(requested.firing_id)
    if cancel:
        assert {firing.state for firing in world.schedule.running} == {states.CANCELLING}
        world.end("CANCELLED")
        world.end("CANCELLED")
    assert world.schedule.state == states.DELETED
    assert world.schedule.wake_at is None
    assert not world.tell(
        commands.FiringOver(firing_id=requested.firing_id, swarm_id="s", tenant="t", outcome="SUCCESS")
    ).applied
    world.check()


def test_tables_refuse() -> None:
    """C2: moves that the tables do not have are refused, naming both states."""
    with pytest.raises(FailureError, match="A schedule cannot go from DELETED to ACTIVE"):
        states.check(states.DELETED, states.ACTIVE)
    with pytest.raises(FailureError, match="A firing cannot go from SKIPPED to STARTED"):
        states.check_firing(states.SKIPPED, states.STARTED)
    with pytest.raises(FailureError, match="never created"):
        decide(Schedule(schedule_id=ID), commands.WakeUp(), START)


def test_a_month_of_minutes_is_cheap() -> None:
    """Q6: deciding a time costs no more with the number of times that have fired."""
    world = World(Spec(cron=("* * * * *",)))
    world.until(START + DAY)
    assert world.schedule.counts.fired == 1440
    assert len(world.schedule.recent) == 20
    assert not world.schedule.open
    assert len(MACHINE.dump(world.schedule)) < 16_384
