"""The pure core of schedules, on a virtual clock: when they fire, overlaps, catching up, jitter, backfills, pauses, and one swarm for each firing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_contracts.common.v1.schedule_pb2 import SwarmTemplate
from tierflow_coordinator.core.schedules import commands, events, states
from tierflow_coordinator.core.schedules.decide import decide
from tierflow_coordinator.core.schedules.firing import Firing, firing_of, request_id
from tierflow_coordinator.core.schedules.react import open_effects, react
from tierflow_coordinator.core.schedules.schedule import Schedule, evolve
from tierflow_coordinator.core.schedules.spec import DAY, POLICIES, SECOND, Spec
from tierflow_coordinator.core.schedules.times import local, moments, next_time, text_of, wrong_with_cron
from tierflow_coordinator.schedules.machine import ScheduleMachine
from tierflow_runtime.values import Failure, FailureError

ID = "0190b0a0-0000-7000-8000-000000000001"
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
START = 1_700_000_000 * SECOND  # 2023-11-14T22:13:20Z
FAILURE = Failure(code="INTERNAL", message="it broke", tier=2)
MACHINE = ScheduleMachine()


class World:
    """A schedule, its moment, the swarms that it makes, and everything that it decided: replayed at the end."""

    def __init__(self, spec: Spec, *, now: int = START, paused: bool = False) -> None:
        self.schedule = Schedule(schedule_id=ID)
        self.now = now
        self.journal: list[tuple[int, events.ScheduleEvent]] = []
        self.requests: dict[str, str] = {}
        """Request id to swarm: what Tier 1 stores, once for each id."""
        self.asked: list[str] = []
        self.commands = 0
        self.tell(
            commands.CreateSchedule(name="n", tenant="t", user_id="u", roles=(), spec=spec, paused=paused), answer=False
        )

    def tell(self, command: commands.ScheduleCommand, *, answer: bool = True) -> commands.Reply:
        """Decides; carries the effects out as the engine does."""
        decision = decide(self.schedule, command, self.now)
        self.journal += [(self.now, event) for event in decision.events]
        for event in decision.events:
            for effect in react(event):
                if isinstance(effect, commands.MakeSwarm) and answer:
                    self.make(effect.firing_id)
        return decision.reply

    def make(self, firing_id: str) -> str:
        """Makes the firing's swarm as admission does: once for each request id. Returns it."""
        swarm_id = self.requests.setdefault(request_id(ID, firing_id), f"swarm-{len(self.requests)}")
        self.asked.append(firing_id)
        self.tell(commands.FiringMade(firing_id=firing_id, swarm_id=swarm_id))
        return swarm_id

    def end(self, outcome: str = "SUCCESS", firing_id: str = "") -> None:
        """Ends the oldest swarm that is at work, or one."""
        firing = self.schedule.open[firing_id] if firing_id else self.schedule.running[0]
        failure = FAILURE if outcome == "FAILURE" else None
        self.tell(
            commands.FiringOver(
                firing_id=firing.firing_id, swarm_id=firing.swarm_id, tenant="t", outcome=outcome, failure=failure
            )
        )

    def until(self, moment: int, *, ends: bool = True) -> None:
        """Lets time pass, waking the schedule at its moments; its swarms end at once where `ends`."""
        while (wake := self.schedule.wake_at) is not None and wake <= moment and not self.schedule.over:
            self.now = max(self.now, wake)
            self.tell(commands.WakeUp())
            while ends and self.schedule.running:
                self.end()
        self.now = max(self.now, moment)

    def say(self, kind: type[commands.Told], **fields: Any) -> commands.Reply:
        """Somebody's command."""
        self.commands += 1
        return self.tell(kind(command_id=f"c{self.commands}", actor="u", **fields))

    def fired(self, kind: str = states.SCHEDULED) -> list[str]:
        """Times that began, in order."""
        begun = [
            event.firing
            for _, event in self.journal
            if isinstance(event, events.FiringChanged) and event.firing.state == states.REQUESTED
        ]
        return [text_of(firing.time)[:16] for firing in begun if firing.kind == kind and firing.retry_at is None]

    def changes(self, state: str) -> list[Firing]:
        """Firings that came into a state."""
        found = [event.firing for _, event in self.journal if isinstance(event, events.FiringChanged)]
        return [firing for firing in found if firing.state == state]

    def check(self) -> None:
        """The state is what its journal gives, through its messages and through a snapshot (R16, V3)."""
        again = Schedule(schedule_id=ID)
        for seq, (time, event) in enumerate(self.journal, 1):
            batch = b"\x12" + _length(encoded := MACHINE.encode(event, seq, time)) + encoded
            for _, stored_at, stored in MACHINE.decode(batch):
                evolve(again, stored, stored_at)
        assert _plain(again) == _plain(self.schedule)
        assert _plain(MACHINE.load(MACHINE.dump(self.schedule))) == _plain(self.schedule)
        assert len(self.requests) == len(set(self.requests.values()))


def _length(data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes([*out, length])


def _plain(schedule: Schedule) -> Schedule:
    return msgspec.structs.replace(schedule, planned=None)


def template(text: str) -> bytes:
    """What a schedule makes."""
    return SwarmTemplate(correlation_id=text).SerializeToString()


def at(text: str, zone: str = "UTC") -> int:
    """A moment from local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


def times(spec: Spec, after: int, count: int) -> list[str]:
    """The next times by the clock of the spec's zone."""
    found: list[str] = []
    for moment in moments(spec, ID, after):
        found.append(local(moment.time, spec.time_zone).strftime("%m-%d %H:%M %z"))
        if len(found) == count:
            break
    return found


# --- times ---


def test_clock_leaps_forward() -> None:
    """Q6: on the night when the clock leaps from 2 to 3, a time between is the first moment after, once; the hours of `*` follow each other."""
    daily = Spec(cron=("30 2 * * *",), time_zone="Europe/Berlin")
    assert times(daily, at("2024-03-30T00:00", "Europe/Berlin"), 3) == [
        "03-30 02:30 +0100", "03-31 03:00 +0200", "04-01 02:30 +0200"]  # fmt: skip
    hourly = Spec(cron=("@hourly",), time_zone="Europe/Berlin")
    assert times(hourly, at("2024-03-31T00:30", "Europe/Berlin"), 3) == [
        "03-31 01:00 +0100", "03-31 03:00 +0200", "03-31 04:00 +0200"]  # fmt: skip


def test_clock_goes_back() -> None:
    """Q6: on the night with two hours from 2 to 3, a fixed time comes once, the first of the two; the hours of `*` both come."""
    daily = Spec(cron=("30 2 * * *",), time_zone="Europe/Berlin")
    assert times(daily, at("2024-10-26T12:00", "Europe/Berlin"), 2) == ["10-27 02:30 +0200", "10-28 02:30 +0100"]
    between = at("2024-10-27T00:45")  # 02:45 for the first time
    assert times(daily, between, 1) == ["10-28 02:30 +0100"]
    in_second = at("2024-10-27T01:10")  # 02:10 for the second time
    assert times(daily, in_second, 1) == ["10-28 02:30 +0100"]
    hourly = Spec(cron=("0 * * * *",), time_zone="Europe/Berlin")
    assert times(hourly, at("2024-10-26T23:30"), 3) == ["10-27 02:00 +0200", "10-27 02:00 +0100", "10-27 03:00 +0100"]


def test_times_of_several_expressions() -> None:
    """Q6: a moment that several expressions and the interval name is one time; start and end bound them all."""
    spec = Spec(cron=("0 9 * * MON-FRI", "@daily", "0 9 13 * *"), every=12 * HOUR, start_at=at("2024-05-12T00:00"))
    spec = msgspec.structs.replace(spec, end_at=at("2024-05-14T00:00"))
    assert times(spec, 0, 20) == [
        "05-12 00:00 +0000", "05-12 12:00 +0000", "05-13 00:00 +0000", "05-13 09:00 +0000", "05-13 12:00 +0000"]  # fmt: skip


def test_intervals_are_counted_from_their_start() -> None:
    """Q6: an interval with an offset is counted from start_at, else from 1970, whatever the clock does."""
    spec = Spec(every=90 * MINUTE, offset=10 * MINUTE)
    assert next_time(spec, 0) == 10 * MINUTE
    assert next_time(spec, 10 * MINUTE) == 100 * MINUTE
    later = Spec(every=90 * MINUTE, offset=10 * MINUTE, start_at=START)
    assert next_time(later, 0) == START + 10 * MINUTE


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("* * * *", "has 4 fields"),
        ("61 * * * *", "cannot be read: bad minute"),
        ("@never", "is no nickname; there are @hourly"),
        ("0 0 30 2 *", "cannot be read: bad day-of-month"),
        ("0 0 0 * * *", "has 6 fields"),
        ("@daily", ""),
        ("*/5 9-17 * * MON-FRI", ""),
    ],
)
def test_expressions_are_checked(text: str, wrong: str) -> None:
    """Q6, A5: an expression that cannot be read, or never comes, is refused with what is wrong."""
    assert wrong_with_cron(text).startswith(wrong)
    assert bool(wrong_with_cron(text)) == bool(wrong)


zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
expressions = st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 * * 0", "15 1,2,3 * * *", "@hourly", "0 */6 1-15 * *"])


@settings(max_examples=60, deadline=None)
@given(zones, st.lists(expressions, min_size=1, max_size=3), st.integers(0, 400 * 24), st.integers(0, 3 * HOUR))
def test_times_rise_and_jitter_is_bounded(zone: str, cron: Sequence[str], hours: int, jitter: int) -> None:
    """Q6: times rise strictly over every turn of the clock; each fires at its time or up to the jitter later, before the next, always by as much."""
    spec = Spec(cron=tuple(cron), time_zone=zone, jitter=jitter)
    after = at("2024-01-01T00:00") + hours * HOUR
    found = []
    for moment in moments(spec, ID, after):
        found.append(moment)
        if len(found) == 12:
            break
    for one, other in itertools.pairwise(found):
        assert after < one.time < other.time
        assert one.time <= one.fires_at <= one.time + jitter
        assert one.fires_at < other.time
    assert next(moments(spec, ID, found[4].time)) == found[5]  # from wherever one looks


def test_jitter_spreads() -> None:
    """Q6: the same time of different schedules fires at different moments."""
    spec = Spec(cron=("@hourly",), jitter=10 * MINUTE)
    found = {next(moments(spec, f"{ID[:-2]}{n:02}", START)).fires_at for n in range(50)}
    assert len(found) > 40


# --- firing ---


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


# --- overlaps ---


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


# --- catching up ---


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


# --- refusals ---


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


# --- commands ---


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
