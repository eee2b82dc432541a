"""What becomes of the times of a schedule: one swarm for each, overlaps, catching up, refusals."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_coordinator.core.schedules import commands, events, states
from tierflow_coordinator.core.schedules.decide import decide
from tierflow_coordinator.core.schedules.firing import firing_of, request_id
from tierflow_coordinator.core.schedules.react import open_effects, react
from tierflow_coordinator.core.schedules.spec import DAY, POLICIES, SECOND, Spec
from tierflow_coordinator.core.schedules.times import moments, text_of
from tierflow_runtime.values import Failure

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from schedule_world import HOUR, ID, MINUTE, START, World, at


def test_each_time_makes_one_swarm() -> None:
    """Q6: an hourly schedule fires at each hour, once; what it did is what its journal says."""
    world = World(Spec(cron=("@hourly",)))
    world.until(START + 4 * HOUR)
    assert world.fired() == ["2023-11-14T23:00", "2023-11-15T00:00", "2023-11-15T01:00", "2023-11-15T02:00"]
    assert len(world.requests) == 4
    assert world.schedule.counts.succeeded == world.schedule.counts.fired == 4
    assert [firing.previous for firing in world.schedule.recent][1:] == [
        firing.time for firing in world.schedule.recent
    ][:-1]
    world.check()


def test_asking_again_makes_no_second_swarm() -> None:
    """Q6, R8, R16: after a takeover every open firing is asked for again by the same request id, whether its swarm was made or not."""
    world = World(Spec(cron=("@hourly",)))
    world.now = START + HOUR
    decision = decide(world.schedule, commands.WakeUp(), world.now)
    world.journal += [(world.now, event) for event in decision.events]
    (effect,) = [
        effect for event in decision.events for effect in react(event) if isinstance(effect, commands.MakeSwarm)
    ]
    first = world.requests.setdefault(request_id(ID, effect.firing_id), "made, and never journaled")
    (again,) = open_effects(world.schedule)
    assert isinstance(again, commands.MakeSwarm)
    assert world.make(again.firing_id) == first
    assert world.schedule.open[again.firing_id].swarm_id == first
    assert not open_effects(world.schedule)
    world.check()


def test_an_end_may_overtake_the_answer() -> None:
    """Q6: a swarm that ends before the schedule knows that it was made is believed by its request id; another tenant's or another swarm is not."""
    world = World(Spec(every=HOUR))
    world.now += HOUR
    world.tell(commands.WakeUp(), answer=False)
    (firing_id,) = world.schedule.open
    world.tell(commands.FiringOver(firing_id=firing_id, swarm_id="x", tenant="other", outcome="SUCCESS"))
    assert world.schedule.open
    world.tell(commands.FiringOver(firing_id=firing_id, swarm_id="x", tenant="t", outcome="SUCCESS"))
    assert not world.schedule.open
    assert world.schedule.counts.succeeded == 1
    world.tell(commands.FiringMade(firing_id=firing_id, swarm_id="x"))
    world.tell(commands.FiringOver(firing_id=firing_id, swarm_id="y", tenant="t", outcome="FAILURE"))
    assert world.schedule.counts.failed == 0
    world.check()


def test_request_ids_say_whose_they_are() -> None:
    """Q6: the request id of a firing's swarm leads back to it; what clients choose does not."""
    assert firing_of(request_id(ID, "trigger/ab")) == (ID, "trigger/ab")
    for other in (
        "",
        "schedule/",
        "schedule/x/y",
        f"schedule/{ID}",
        f"schedule/{ID}/",
        "nightly",
        f"schedule/{'-' * 36}/y",
    ):
        assert firing_of(other) is None


def _overlapping(policy: str, times: int = 4, **fields: Any) -> World:
    world = World(Spec(every=HOUR, overlap=policy, **fields))
    world.until(START + times * HOUR, ends=False)
    return world


def test_overlap_skip() -> None:
    """Q6: SKIP skips what comes while a swarm is at work, says why, and goes on after its end."""
    world = _overlapping("SKIP")
    assert len(world.fired()) == 1
    assert world.schedule.counts.skipped == 3
    assert world.changes(states.SKIPPED)[0].reason == f"firing {world.schedule.running[0].firing_id} has not ended"
    world.end()
    world.until(world.now + HOUR, ends=False)
    assert len(world.fired()) == 2
    world.check()


def test_overlap_buffer_one() -> None:
    """Q6: BUFFER_ONE lets one wait, and skips the rest."""
    world = _overlapping("BUFFER_ONE")
    assert len(world.fired()) == 1
    assert len(world.schedule.waiting) == 1
    assert world.schedule.counts.skipped == 2
    world.end()
    assert len(world.fired()) == 2
    assert not world.schedule.waiting
    world.check()


def test_overlap_buffer_all_is_bounded() -> None:
    """Q6: BUFFER_ALL lets as many wait as it says, in order, and skips what comes beyond."""
    world = _overlapping("BUFFER_ALL", 6, max_waiting=3)
    assert len(world.schedule.waiting) == 3
    assert world.schedule.counts.skipped == 2
    for _ in range(4):
        world.end()
    assert len(world.fired()) == 4
    assert world.fired() == sorted(world.fired())
    world.check()


def test_overlap_cancel_running() -> None:
    """Q6: CANCEL_RUNNING cancels the swarm; the newest time begins once that has ended, and not before; what waited is skipped."""
    world = _overlapping("CANCEL_RUNNING", 3)
    assert len(world.fired()) == 1
    (old,) = world.schedule.running
    assert old.state == states.CANCELLING
    assert len(world.schedule.waiting) == 1
    assert world.schedule.counts.skipped == 1
    assert open_effects(world.schedule) == [commands.CancelSwarm(firing_id=old.firing_id, swarm_id=old.swarm_id)]
    world.end("CANCELLED")
    assert len(world.fired()) == 2
    assert world.schedule.counts.failed == 0
    world.check()


def test_overlap_allow() -> None:
    """Q6: ALLOW lets swarms work beside each other."""
    world = _overlapping("ALLOW")
    assert len(world.fired()) == len(world.schedule.running) == 4
    world.check()


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(POLICIES),
    st.lists(
        st.sampled_from(["time", "end", "fail", "trigger", "backfill", "pause", "resume", "late", "update"]),
        max_size=30,
    ),
)
def test_invariants_of_overlaps(policy: str, acts: list[str]) -> None:
    """Q6: whatever happens, one swarm at most is at work unless they may overlap, no firing makes two, none is lost, and the journal tells it all."""
    world = World(Spec(every=HOUR, overlap=policy, max_waiting=2, pause_after_failures=3))
    for act in acts:
        _act(world, act)
        if policy != "ALLOW":
            assert len(world.schedule.running) <= 1
        if world.schedule.state == states.ACTIVE and world.schedule.waiting:
            assert world.schedule.running
        assert len(world.asked) == len(set(world.asked)) == len(world.requests)
    seen = {event.firing.firing_id for _, event in world.journal if isinstance(event, events.FiringChanged)}
    over = {
        event.firing.firing_id
        for _, event in world.journal
        if isinstance(event, events.FiringChanged) and event.firing.over
    }
    assert seen - over <= set(world.schedule.open)
    world.check()


def _act(world: World, act: str) -> None:
    running = world.schedule.running
    if act == "time":
        world.until(world.now + HOUR, ends=False)
    elif act == "late":
        world.now += 3 * HOUR
        world.tell(commands.WakeUp())
    elif act in ("end", "fail") and running:
        outcome = "CANCELLED" if running[0].state == states.CANCELLING else "FAILURE" if act == "fail" else "SUCCESS"
        world.end(outcome)
    elif act == "trigger":
        world.say(commands.TriggerSchedule)
    elif act == "backfill":
        world.say(commands.BackfillSchedule, times=(START - 2 * HOUR, START - HOUR))
    elif act == "update":
        world.say(
            commands.UpdateSchedule, spec=msgspec.structs.replace(world.schedule.spec, description=str(world.now))
        )
    elif act in ("pause", "resume"):
        world.say(commands.PauseSchedule if act == "pause" else commands.ResumeSchedule)


def test_what_was_missed_while_down() -> None:
    """Q6: after a time down, what is within the time for catching up fires, in order; what is older is missed, and counted."""
    world = World(Spec(cron=("@hourly",), catch_up=3 * HOUR, overlap="ALLOW"))
    world.now = at("2023-11-15T12:30")
    world.tell(commands.WakeUp())
    assert world.fired() == ["2023-11-15T10:00", "2023-11-15T11:00", "2023-11-15T12:00"]
    missed = next(event for _, event in world.journal if isinstance(event, events.TimesMissed))
    assert (text_of(missed.first), text_of(missed.last)) == ("2023-11-14T23:00:00Z", "2023-11-15T09:00:00Z")
    assert world.schedule.counts.missed == missed.count == 11
    assert not missed.more
    world.check()


def test_a_long_time_down_is_no_long_decision() -> None:
    """Q6: a month down of a schedule of every second is dealt with in slices; what is too old is not counted one by one."""
    world = World(Spec(every=SECOND, catch_up=60 * SECOND))
    world.now += 30 * DAY
    world.tell(commands.WakeUp())
    assert len(world.journal) < 100
    assert world.schedule.counts.missed == 1000
    assert world.schedule.wake_at is not None
    assert world.schedule.wake_at <= world.now
    world.until(world.now)
    assert world.schedule.wake_at == world.now + SECOND
    world.check()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40 * HOUR), min_size=1, max_size=8), st.integers(0, 30 * MINUTE))
def test_no_time_is_lost_and_none_doubled(waits: list[int], jitter: int) -> None:
    """Q6: however late the schedule wakes, each time fires once or is missed, and together they are all the times there were."""
    spec = Spec(cron=("*/30 * * * *",), jitter=jitter, catch_up=6 * HOUR, overlap="ALLOW")
    world = World(spec)
    for wait in waits:
        world.now += wait
        world.until(world.now)
    dealt_with = len(world.fired()) + world.schedule.counts.missed
    expected = sum(1 for moment in _until(spec, world.now) if moment <= world.now)
    assert len(world.fired()) == len(set(world.fired())) == len(world.requests)
    assert dealt_with == expected
    world.check()


def _until(spec: Spec, now: int) -> list[int]:
    found: list[int] = []
    for moment in moments(spec, ID, START):
        if moment.time > now:
            break
        found.append(moment.fires_at)
    return found


def test_a_swarm_that_cannot_be_made_now_is_tried_again() -> None:
    """Q6: a refusal that waiting may cure is tried again, ever more slowly; past the time for catching up the firing is given up, with the reason."""
    world = World(Spec(every=DAY, catch_up=HOUR))
    busy = Failure(code="QUEUE_FULL", message="full", retryable=True)
    world.now = world.schedule.wake_at or 0
    world.tell(commands.WakeUp(), answer=False)
    (firing_id,) = world.schedule.open
    tries = 0
    while world.schedule.open:
        world.tell(commands.FiringRefused(firing_id=firing_id, failure=busy), answer=False)
        if world.schedule.open:
            tries += 1
            world.now = world.schedule.wake_at or 0
            world.tell(commands.WakeUp(), answer=False)
    (given_up,) = world.schedule.recent
    assert given_up.state == states.REFUSED
    assert given_up.reason == "QUEUE_FULL"
    assert 50 < tries < 100
    assert world.schedule.counts.failed == 1
    world.check()


def test_it_pauses_itself_after_failures() -> None:
    """Q6: after so many failures in a row it is paused, and says why; a success between begins the count anew; resuming does, too."""
    world = World(Spec(every=HOUR, pause_after_failures=2))
    for outcome in ("FAILURE", "SUCCESS", "FAILURE", "CANCELLED", "FAILURE"):
        world.until(world.now + HOUR, ends=False)
        world.end(outcome)
    assert world.schedule.state == states.PAUSED
    assert world.schedule.reason == "2 firings in a row failed: INTERNAL, it broke"
    assert world.schedule.wake_at is None
    assert world.say(commands.ResumeSchedule).applied
    assert world.schedule.counts.failed_in_row == 0
    assert world.schedule.counts.failed == 3
    world.check()


def test_a_retry_of_a_swarm_corrects_the_record() -> None:
    """Q6, R31: a swarm that failed, was retried and then succeeded is shown so."""
    world = World(Spec(every=HOUR))
    world.until(world.now + HOUR, ends=False)
    world.end("FAILURE")
    (firing,) = world.schedule.recent
    world.tell(commands.FiringOver(firing_id=firing.firing_id, swarm_id=firing.swarm_id, tenant="t", outcome="SUCCESS"))
    assert (world.schedule.counts.failed, world.schedule.counts.succeeded) == (0, 1)
    assert [firing.outcome for firing in world.schedule.recent] == ["SUCCESS"]
    world.check()
