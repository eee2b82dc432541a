"""What arrives is taken as far as there is room; who would wait long is refused at once. On a clock of its own."""

import heapq
import itertools
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tierflow_durable import intake
from tierflow_durable.intake import Intake, Pace


class World:
    """A clock, and something that does so many items a second of those that were taken."""

    def __init__(self, *, per_second: float, room: int, least: int = intake.LEAST) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._every = 1 / per_second
        self._room = room
        self.under_way = 0
        self.most_under_way = 0
        self.taken: list[int] = []
        self.waits: list[float] = []
        self.done = 0
        self.intake: Intake[int] = Intake(
            take=self._take,
            room=lambda: self.under_way < self._room,
            least=least,
            clock=lambda: self.now,
            call_later=self.later,
        )

    def later(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + delay, next(self._order), call))

    def until(self, moment: float) -> None:
        """Lets everything happen that happens before."""
        while self._timers and self._timers[0][0] <= moment:
            self.now, _, call = heapq.heappop(self._timers)
            call()
        self.now = moment

    def arrive(self, item: int) -> float:
        """As callers do; the seconds after which to come back, 0.0 where it is taken or waits."""
        if self.intake.open:
            self._take(item, 0.0)
            return 0.0
        return self.intake.wait(item, 100)

    def _take(self, item: int, waited: float) -> None:
        self.taken.append(item)
        self.waits.append(waited)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        if self.under_way == 1:
            self.later(self._every, self._one_done)

    def _one_done(self) -> None:
        self.under_way -= 1
        self.done += 1
        if self.under_way:
            self.later(self._every, self._one_done)
        self.intake.nudge()


@given(
    per_second=st.floats(20, 5000),
    times=st.floats(0.2, 8.0),
    seconds=st.floats(0.2, 4.0),
)
@settings(max_examples=40, deadline=None)
def test_whatever_arrives_what_is_under_way_stays_bounded_and_busy(
    per_second: float, times: float, seconds: float
) -> None:
    """J10: at any load no more is under way than there is room for, nothing accepted is lost or taken twice or out of turn, and the work never waits for want of it."""
    world = World(per_second=per_second, room=16)
    offered = int(per_second * times * seconds)
    refused = []
    for number in range(offered):
        world.until(number / (per_second * times))
        if come_back := world.arrive(number):
            refused.append(number)
            assert intake.SOONEST <= come_back <= intake.LATEST
    at_the_end = world.done
    assert world.most_under_way <= 16
    if times > 1.2:
        assert at_the_end >= int(per_second * seconds) * 0.95 - 2, "the work was starved"
    world.until(world.now + (len(world.intake) + 17) / per_second + 1.0)
    assert len(world.intake) == 0
    assert world.taken == sorted(set(range(offered)) - set(refused))
    assert world.done == len(world.taken)
    if times <= 0.99:
        assert not refused


@given(per_second=st.floats(100, 3000))
@settings(max_examples=20, deadline=None)
def test_who_is_accepted_does_not_wait_long(per_second: float) -> None:
    """J10: in a flood of five times what can be done the wait follows the speed: a second, or what the least line takes."""
    world = World(per_second=per_second, room=16)
    for number in range(int(per_second * 5 * 4.0)):
        world.until(number / (per_second * 5))
        world.arrive(number)
    longest = max(intake.LONGEST_WAIT, intake.LEAST / per_second)
    assert max(world.waits) <= min(longest, 60.0) * 1.25 + intake.LOOK_AGAIN
    assert world.intake.refused > 0


def test_room_nobody_tells_of_is_found() -> None:
    """J10: a lost nudge costs a moment, not the turn of those who wait."""
    room = False
    taken: list[int] = []
    world = World(per_second=1, room=1)
    line: Intake[int] = Intake(
        take=lambda item, _: taken.append(item),
        room=lambda: room,
        clock=lambda: world.now,
        call_later=world.later,
    )
    assert not line.wait(1, 10)
    world.until(5.0)
    assert taken == []
    room = True
    world.until(5.0 + 2 * intake.LOOK_AGAIN)
    assert taken == [1]


def test_those_who_wait_are_bounded_in_bytes() -> None:
    """J10, Lesson 38: large requests are counted by their size; one alone is always let in."""
    world = World(per_second=1, room=0)
    assert not world.intake.wait(1, intake.MOST_BYTES + 1)
    assert world.intake.wait(2, 10)
    world.intake.flush()
    assert not world.intake.wait(3, intake.MOST_BYTES - 10)
    assert not world.intake.wait(4, 10)
    assert world.intake.wait(5, 1)


def test_a_drain_leaves_nobody_waiting() -> None:
    """L6: all who wait hear of it, room or not."""
    world = World(per_second=1, room=0)
    for number in range(100):
        world.intake.wait(number, 10)
    world.intake.flush()
    assert world.taken == list(range(100))
    assert len(world.intake) == 0


def test_the_pace_fades() -> None:
    """J10: what was fast a while ago is not believed to be fast now."""
    pace = Pace(0.0)
    for tenth in range(100):
        pace.taken(400, tenth / 10)
    assert pace.rate(9.9) == pytest.approx(4000, rel=0.1)
    assert pace.most(9.9) == pytest.approx(4000, rel=0.1)
    assert pace.come_back(8000, 9.9) == pytest.approx(2.0, rel=0.1)
    assert pace.rate(30.0) < 1
    assert pace.most(30.0) == intake.LEAST
    assert pace.come_back(8000, 30.0) == intake.LATEST
    assert Pace(0.0).come_back(0, 1.0) == intake.LATEST
