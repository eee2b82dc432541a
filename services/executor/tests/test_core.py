"""The pure core: every rule by itself, and under any interleaving."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tierflow_executor.core.attempt import Attempt
from tierflow_executor.core.holding import Holding
from tierflow_executor.core.memory import Memory
from tierflow_executor.core.slots import shares
from tierflow_executor.core.states import TRANSITIONS, IllegalMove, Move, State, moved
from tierflow_executor.core.succession import Succession
from tierflow_executor.core.table import Attempts, Verdict

DONE = 8


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", Move)
def test_what_is_not_in_the_table_is_refused(state: State, move: Move) -> None:
    """B5, Lesson 2: the transition table is all there is; anything else is refused, naming both."""
    if (state, move) in TRANSITIONS:
        assert moved("a", state, move) is TRANSITIONS[state, move]
    else:
        with pytest.raises(IllegalMove, match=f"{state.name}.*{move.name}"):
            moved("a", state, move)


def test_every_attempt_can_be_forgotten() -> None:
    """B5: from every state of the table FORGOTTEN can be reached, and nothing leads out of it."""
    reach = {State.FORGOTTEN}
    for _ in State:
        reach |= {before for (before, _), after in TRANSITIONS.items() if after in reach}
    assert reach == set(State)
    assert not [move for state, move in TRANSITIONS if state is State.FORGOTTEN]


@given(st.integers(-5, 2_000), st.lists(st.text(min_size=1, max_size=4), unique=True, max_size=20))
def test_slots_are_shared_evenly(usable: int, instances: list[str]) -> None:
    """R24: shares differ by at most one, nobody has none while there are any, and they add up unless there are fewer slots than instances."""
    found = shares(usable, instances)
    assert set(found) == set(instances)
    if usable <= 0:
        assert not any(found.values())
    elif instances:
        assert max(found.values()) - min(found.values()) <= 1
        assert min(found.values()) >= 1
        assert sum(found.values()) == max(usable, len(instances))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=200))
def test_memory_keeps_what_it_promises(steps: list[tuple[int, int]]) -> None:
    """R25, R29: an id is remembered until half the bound or the whole time has passed, and memory never exceeds its bound."""
    memory: Memory[int] = Memory(bound=10, ttl=20)
    now = 0
    last: list[tuple[str, int, int]] = []
    for key, later in steps:
        now += later
        memory.add(str(key), key, now)
        last = [*last[-4:], (str(key), key, now)]
        assert len(memory) <= 10
        for known, value, since in last:
            if now - since < 20:
                assert memory.get(known) == value


def _ended(attempt_id: str, size: int, at: int) -> Attempt:
    attempt = Attempt(attempt_id, "run", "one")
    attempt.result, attempt.ended_at = b"x" * size, at
    return attempt


def test_holding_is_bounded_and_expires_in_order() -> None:
    """R27: beyond its bytes it is full until a quarter is free again; results expire by age, oldest first."""
    holding = Holding(bound=100, ttl=10)
    attempts = [_ended(f"a{number}", 25, number) for number in range(4)]
    for attempt in attempts:
        assert not holding.full
        holding.keep(attempt)
    assert holding.full
    assert holding.bytes == 100
    holding.drop(attempts[3])
    assert not holding.full
    assert holding.expired(9) == []
    assert holding.expired(11) == attempts[:2]
    holding.drop(attempts[3])
    assert holding.bytes == 75


def test_succession_is_a_relation_of_many() -> None:
    """R25: several instances may take over from one, successors follow one another, and nobody replaces itself."""
    succession = Succession()
    assert succession.replace("b", ["a", "b", ""]) == ["a"]
    assert succession.replace("c", ["a"]) == []
    assert succession.replace("d", ["b"]) == ["b"]
    assert succession.speaks_for("d", "a")
    assert succession.speaks_for("c", "a")
    assert not succession.speaks_for("c", "b")
    assert not succession.is_replaced("d")
    succession.replace("a", ["d"])
    assert succession.speaks_for("c", "d"), "a ring of successors ends"


def _finish(table: Attempts, attempt: Attempt, now: int = 0) -> None:
    attempt.move(Move.START)
    table.end(attempt, b"result", DONE, now)


def test_an_id_is_run_once() -> None:
    """R24: asked for again, an attempt is known, then repeated, then gone; never started."""
    table = Attempts()
    verdict, attempt = table.request("a", "run", "one")
    assert verdict is Verdict.START
    assert attempt is not None
    assert table.request("a", "run", "one") == (Verdict.KNOWN, attempt)
    _finish(table, attempt)
    assert table.request("a", "run", "one") == (Verdict.REPEAT, attempt)
    assert table.acknowledge("a", "one", 1)
    assert table.request("a", "run", "one") == (Verdict.GONE, None)


def test_only_the_owner_acknowledges() -> None:
    """R27, Lesson 16: an acknowledgement of somebody who was replaced, or came too early, changes nothing."""
    table = Attempts()
    _, attempt = table.request("a", "run", "old")
    assert attempt is not None
    assert not table.acknowledge("a", "old", 0), "it has not ended"
    _finish(table, attempt)
    table.adopt("a", "new", 0)
    assert not table.acknowledge("a", "old", 0)
    assert table.acknowledge("a", "new", 0)


def test_unknown_is_final_for_those_who_were_replaced() -> None:
    """R25: after an id was answered as unknown, a late request of the predecessor does not start it; the asker's does, and its successor's."""
    table = Attempts()
    table.succession.replace("new", ["old"])
    assert table.adopt("a", "new", 0) is None
    assert table.request("a", "run", "old") == (Verdict.DROP, None)
    assert table.request("a", "run", "stranger") == (Verdict.DROP, None)
    table.succession.replace("newer", ["new"])
    assert table.request("a", "run", "newer")[0] is Verdict.START


def test_a_cancel_that_comes_first_wins() -> None:
    """R29: the later request is refused, and so is one that follows an adoption in between."""
    table = Attempts()
    table.bury("a", 0)
    table.adopt("a", "one", 0)
    verdict, attempt = table.request("a", "run", "one")
    assert verdict is Verdict.CANCELLED
    assert attempt is not None


def test_results_of_the_unary_form_expire_soon() -> None:
    """R27: nobody can acknowledge them; a stream that asks for one takes it over, and it then waits like all others."""
    table = Attempts(ttl=10**9)
    kept = []
    for name in ("a", "b"):
        _, attempt = table.request(name, "run", "")
        assert attempt is not None
        _finish(table, attempt)
        kept.append(attempt)
    assert len(table.holding) == 0
    assert table.request("b", "run", "one") == (Verdict.REPEAT, kept[1])
    assert len(table.holding) == 1
    assert table.expire(10**8) == kept[:1]
    assert table.expire(10**9) == kept[1:]
    assert len(table) == 0


class Interleavings(RuleBasedStateMachine):
    """Orchestrators that come, go and succeed one another, and an executor between them: R23 to R29 under any order of messages."""

    instances = st.sampled_from(["i1", "i2", "i3", "i4"])
    ids = st.sampled_from(["a", "b", "c", "d", "e"])

    def __init__(self) -> None:
        super().__init__()
        self.ttl = 50
        self.table = Attempts(held_bytes=1_000, ttl=self.ttl)
        self.now = 0
        self.starts: dict[str, int] = {}
        self.live: dict[str, Attempt] = {}
        self.owed: dict[str, tuple[str, int]] = {}
        self.replaced: set[str] = set()
        self.buried: dict[str, int] = {}
        self.unknown: dict[str, str] = {}

    @rule(attempt_id=ids, instance=instances)
    def request(self, attempt_id: str, instance: str) -> None:
        verdict, attempt = self.table.request(attempt_id, "run", instance)
        if instance in self.replaced:
            assert verdict is Verdict.DROP
        elif verdict is Verdict.START:
            assert attempt is not None
            assert attempt_id not in self.buried or self.buried.pop(attempt_id) + self.ttl <= self.now
            self.starts[attempt_id] = self.starts.get(attempt_id, 0) + 1
            self.live[attempt_id] = attempt
        elif verdict is Verdict.CANCELLED:
            assert attempt is not None
            assert attempt_id in self.buried
            self.table.end(attempt, b"c", DONE, self.now)
            self.owed[attempt_id] = (instance, self.now)
        elif verdict is Verdict.REPEAT:
            assert attempt_id in self.owed
            self.owed[attempt_id] = (instance, self.owed[attempt_id][1])
        elif verdict is Verdict.KNOWN:
            assert attempt_id in self.live
            assert self.live[attempt_id].owner == instance

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        attempt_id = data.draw(st.sampled_from(sorted(self.live)))
        attempt = self.live.pop(attempt_id)
        _finish(self.table, attempt, self.now)
        self.owed[attempt_id] = (attempt.owner, self.now)

    @rule(attempt_id=ids, instance=instances)
    def acknowledge(self, attempt_id: str, instance: str) -> None:
        if self.table.acknowledge(attempt_id, instance, self.now):
            assert self.owed.pop(attempt_id)[0] == instance

    @rule(attempt_id=ids, instance=instances)
    def adopt(self, attempt_id: str, instance: str) -> None:
        found = self.table.adopt(attempt_id, instance, self.now)
        if instance in self.replaced:
            assert found is None
        elif attempt_id in self.live or attempt_id in self.owed:
            assert found is not None
            assert found.owner == instance
            if attempt_id in self.owed:
                self.owed[attempt_id] = (instance, self.owed[attempt_id][1])
        else:
            assert found is None

    @rule(attempt_id=ids)
    def cancel_unknown(self, attempt_id: str) -> None:
        if self.table.get(attempt_id) is None:
            self.table.bury(attempt_id, self.now)
            self.buried[attempt_id] = self.now

    @rule(successor=instances, predecessor=instances)
    def replace(self, successor: str, predecessor: str) -> None:
        if successor not in self.replaced:
            self.table.succession.replace(successor, [predecessor])
            if successor != predecessor:
                self.replaced.add(predecessor)

    @rule(later=st.integers(1, 60))
    def pass_time(self, later: int) -> None:
        self.now += later
        gone = {attempt.attempt_id for attempt in self.table.expire(self.now)}
        assert gone == {name for name, (_, since) in self.owed.items() if since + 50 <= self.now}
        for name in gone:
            del self.owed[name]

    @invariant()
    def nothing_owed_is_forgotten(self) -> None:
        for attempt_id, (owner, _) in self.owed.items():
            attempt = self.table.get(attempt_id)
            assert attempt is not None
            assert attempt.has_result
            assert attempt.owner == owner
        assert self.table.holding.bytes == sum(len(attempt.result) for attempt in self.table.holding)

    @invariant()
    def nothing_runs_twice_at_once(self) -> None:
        assert len(self.live) + len(self.owed) == len(self.table)


class OneLife(Interleavings):
    """The same without expiry and with memory enough: then an id is started once, for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.ttl = 10**9
        self.table = Attempts(ttl=self.ttl)

    @rule(later=st.integers(1, 60))
    def pass_time(self, later: int) -> None:
        self.now += later
        assert self.table.expire(self.now) == []

    @invariant()
    def started_once(self) -> None:
        assert all(count == 1 for count in self.starts.values())


def test_interleavings() -> None:
    """R24, R25, R27, R29, Lesson 45: results are never forgotten before they are acknowledged or expire, whatever the order."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Interleavings, settings=settings(max_examples=60, stateful_step_count=50, deadline=None))


def test_an_id_is_started_once_whatever_happens() -> None:
    """R24, S7, Lesson 22: under any interleaving of orchestrators an attempt id is started at most once."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(OneLife, settings=settings(max_examples=60, stateful_step_count=50, deadline=None))
