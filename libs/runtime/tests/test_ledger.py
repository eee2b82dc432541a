"""The ledger: what every tier asks before it grants anything (docs/budgets.md)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_runtime.ledger import DIMENSIONS, NOTHING, Amounts, Ledger, amounts_of, spoken, violations, without
from tierflow_runtime.values import NO_ALLOCATION, NO_USAGE, Allocation, Usage


def used(credits: int = 0, tokens: int = 0, tool_calls: int = 0, attempts: int = 1) -> Usage:
    return Usage(credits=credits, input_tokens=tokens, tool_calls=tool_calls, attempts=attempts)


def numbers(ledger: Ledger) -> dict[str, tuple[int | None, int, int, int | None, int]]:
    """By dimension: total, reserved, consumed, available, overdrawn."""
    found = {name: ledger.balance(name) for name in DIMENSIONS}
    return {name: (b.total, b.reserved, b.consumed, b.available, b.overdrawn) for name, b in found.items()}


def check(ledger: Ledger) -> None:
    """V57: at all times."""
    for name in DIMENSIONS:
        b = ledger.balance(name)
        assert min(b.reserved, b.consumed, b.overdrawn, b.available or 0) >= 0, (name, b)
        if b.total is not None and b.available is not None:
            assert b.total + b.overdrawn == b.available + b.reserved + b.consumed, (name, b)
            assert not (b.overdrawn and b.available), (name, b)


def test_a_life() -> None:
    """D1, D3: held while it runs, then what was used is spent and the rest is free again."""
    ledger = Ledger(Allocation(credits=100, steps=3))
    ledger.begin("a", Amounts(credits=60))
    assert numbers(ledger)["credits"] == (100, 60, 0, 40, 0)
    assert numbers(ledger)["steps"] == (3, 0, 1, 2, 0)
    ledger.settle("a", used(25))
    assert numbers(ledger)["credits"] == (100, 0, 25, 75, 0)
    assert numbers(ledger)["tokens"] == (None, 0, 0, None, 0)


def test_it_comes_back_once() -> None:
    """D3, Lesson 6: who settles again gives nothing back again, and a key holds one thing at a time."""
    ledger = Ledger(Allocation(credits=100))
    ledger.reserve("a", Amounts(credits=60))
    ledger.reserve("b", Amounts(credits=20))
    with pytest.raises(ValueError, match="holds something already"):
        ledger.reserve("a", Amounts(credits=1))
    ledger.settle("a", NO_USAGE)
    ledger.settle("a", NO_USAGE)
    assert numbers(ledger)["credits"] == (100, 20, 0, 80, 0)


def test_all_that_is_short_is_named() -> None:
    """D2: each dimension in which there is too little, with what was asked and what is left; what will come back is told from what never does."""
    ledger = Ledger(Allocation(credits=100, tokens=10, tool_calls=5), used(30))
    ledger.reserve("a", Amounts(credits=50, tokens=9))
    found = ledger.short(Amounts(credits=21, tokens=2, tool_calls=5, steps=1 << 60))
    assert [(one.dimension, one.asked, one.left) for one in found] == [("credits", 21, 20), ("tokens", 2, 1)]
    assert [one.dimension for one in ledger.never(Amounts(credits=71, tokens=10))] == ["credits"]
    assert not ledger.never(Amounts(credits=70, tokens=10))
    assert [v.field for v in violations(found)] == ["allocation.credits", "allocation.tokens"]
    assert spoken(found) == "21 micro-credits (20 left), 2 tokens (1 left)"


def test_a_lost_attempt_pays_in_full_until_more_is_known() -> None:
    """D8, R30: its hold stays, is then settled at the whole, and a later truth corrects that, once."""
    ledger = Ledger(Allocation(credits=100))
    ledger.begin("a", Amounts(credits=40, tokens=7))
    assert ledger.lose("a", "step", 5)
    assert not ledger.lose("a", "step", 5)
    assert (ledger.next_due(), ledger.due(4), ledger.due(5)) == (5, [], ["a"])
    assert numbers(ledger)["credits"] == (100, 40, 0, 60, 0)
    whole = ledger.charge("a")
    assert (whole.credits, whole.input_tokens) == (40, 7)
    assert numbers(ledger)["credits"] == (100, 0, 40, 60, 0)
    assert (ledger.next_due(), ledger.due(None)) == (None, [])
    taken = ledger.correct("a", used(3, attempts=0))
    assert taken == whole
    assert numbers(ledger)["credits"] == (100, 0, 3, 97, 0)
    ledger.begin("b", Amounts(credits=40))
    ledger.lose("b", "step", 5)
    assert ledger.correct("b", used(4, attempts=0)) == NO_USAGE
    assert numbers(ledger)["credits"] == (100, 0, 7, 93, 0)


def test_more_than_granted_is_booked_as_it_was() -> None:
    """D4, Lesson 31: what was measured is spent, also beyond the limit; nothing is free until as much is granted."""
    ledger = Ledger(Allocation(credits=10))
    ledger.reserve("a", Amounts(credits=10))
    ledger.settle("a", used(14))
    assert numbers(ledger)["credits"] == (10, 0, 14, 0, 4)
    ledger.grant(Allocation(credits=20))
    assert numbers(ledger)["credits"] == (20, 0, 14, 6, 0)


def test_a_lowered_limit_takes_nothing_from_who_has_it() -> None:
    """C12, D2: what is held stays held; what comes back is gone up to the new limit."""
    ledger = Ledger(Allocation(credits=100))
    ledger.reserve("a", Amounts(credits=60))
    ledger.grant(Allocation(credits=20))
    assert numbers(ledger)["credits"] == (20, 60, 0, 0, 40)
    ledger.settle("a", used(10))
    assert numbers(ledger)["credits"] == (20, 0, 10, 10, 0)


def test_without_limits_it_only_counts() -> None:
    """D6: and says so."""
    ledger = Ledger()
    ledger.begin()
    ledger.settle("a", used(5))
    assert (ledger.finite, ledger.rest(), ledger.short(Amounts(credits=1 << 62))) == (False, NO_ALLOCATION, ())
    assert (ledger.usage.credits, ledger.started, ledger.held) == (5, 1, NOTHING)
    assert amounts_of(None) == amounts_of(Allocation(memory_bytes=4)) == NOTHING
    assert Ledger(Allocation(memory_bytes=1, steps=2)).rest() == Allocation(memory_bytes=1, steps=2)


def test_what_is_taken_back_is_exact() -> None:
    """A9: whole numbers beyond 2^53 too."""
    big = Usage(credits=2**60 + 1, wall_time=7, input_tokens=2**61, output_tokens=1, tool_calls=2, attempts=1)
    assert without(big.plus(big), big) == big


# --- trees of ledgers, at random ---

Verb = Callable[[Ledger], Any]


class Node:
    """A ledger with its journal. A crash forgets the ledger; the journal gives it back."""

    def __init__(self, total: Allocation) -> None:
        self.total = total
        self.ledger = Ledger(total)
        self.journal: list[Verb] = []
        self.children: dict[str, Node] = {}
        self.attempts: dict[str, Amounts] = {}
        self.lost: dict[str, Amounts] = {}

    def tell(self, verb: Verb) -> Any:
        self.journal.append(verb)
        return verb(self.ledger)

    def crash(self) -> None:
        before = state(self.ledger)
        self.ledger = Ledger(self.total)
        for verb in self.journal:
            verb(self.ledger)
        assert state(self.ledger) == before
        again = Ledger(self.ledger.total, self.ledger.usage, self.ledger.started)
        again.restore(self.ledger.holds, self.ledger.owed)
        assert state(again) == before


def state(ledger: Ledger) -> Any:
    return ledger.total, ledger.usage, ledger.started, ledger.holds, ledger.owed, ledger.held


def drawn(chance: random.Random, most: Amounts) -> Amounts:
    return Amounts(**{name: chance.randint(0, getattr(most, name)) for name in DIMENSIONS})


class Forest:
    """A tree of budgets that lives: attempts begin, end, are lost and found; children are opened and close."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.number = 0
        self.root = Node(Allocation(credits=10_000, tokens=5_000, tool_calls=300, steps=200))
        self.measured = NO_USAGE
        """What attempts have truly used, as far as anybody can know."""

    def key(self) -> str:
        self.number += 1
        return str(self.number)

    def nodes(self) -> list[Node]:
        found, waiting = [], [self.root]
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting.extend(node.children.values())
        return found

    def step(self) -> None:
        node = self.chance.choice(self.nodes())
        verb = self.chance.choice((self.begin, self.begin, self.open, self.end, self.lose, self.learn, self.close))
        verb(node)
        if self.chance.random() < 0.2:
            self.chance.choice(self.nodes()).crash()

    def free(self, node: Node) -> Amounts:
        return amounts_of(node.ledger.rest())

    def begin(self, node: Node) -> None:
        free = self.free(node)
        wanted = drawn(self.chance, free.plus(Amounts(credits=5)))
        wanted = wanted.minus(Amounts(steps=wanted.steps))
        short = node.ledger.short(wanted.plus(Amounts(steps=1)))
        assert bool(short) == (wanted.credits > free.credits or free.steps < 1)
        if not short:
            key = self.key()
            node.tell(lambda ledger: ledger.begin(key, wanted))
            node.attempts[key] = wanted

    def open(self, node: Node) -> None:
        free = self.free(node)
        if free.steps < 2:
            return
        key, given = self.key(), drawn(self.chance, free.minus(Amounts(steps=1)))
        node.tell(lambda ledger: ledger.begin(key, given))
        node.children[key] = Node(Allocation(**{name: getattr(given, name) for name in DIMENSIONS}))

    def spent(self, most: Amounts, attempts: int) -> Usage:
        found = drawn(self.chance, most)
        return used(found.credits, found.tokens, found.tool_calls, attempts)

    def end(self, node: Node) -> None:
        if node.attempts:
            key, amounts = node.attempts.popitem()
            usage = self.spent(amounts, 1)
            node.tell(lambda ledger: ledger.settle(key, usage))

    def lose(self, node: Node) -> None:
        if node.attempts:
            key, amounts = node.attempts.popitem()
            node.tell(lambda ledger: (ledger.lose(key, "s", 9), ledger.book(used())))
            node.lost[key] = amounts

    def learn(self, node: Node) -> None:
        """Time passes, or truth comes: perhaps after that."""
        if node.lost:
            key = self.chance.choice(list(node.lost))
            owed = node.ledger.owed.get(key)
            if self.chance.random() < 0.5 and owed is not None and not owed.charged:
                node.tell(lambda ledger: ledger.charge(key))
                return
            usage = self.spent(node.lost.pop(key), 0)
            node.tell(lambda ledger: ledger.correct(key, usage))

    def close(self, node: Node) -> None:
        """One of its children ends: everything in it ends first."""
        if not node.children:
            return
        key, child = node.children.popitem()
        for other in list(child.children):
            self.close(child)
            assert other
        while child.attempts:
            self.end(child)
        for lost in child.ledger.due(None):
            child.tell(lambda ledger, lost=lost: ledger.charge(lost))
        assert child.ledger.held == NOTHING
        total = child.ledger.usage.plus(Usage(attempts=1))
        assert total.attempts == child.ledger.started + 1
        node.tell(lambda ledger: ledger.settle(key, total))

    def check(self) -> None:
        for node in self.nodes():
            check(node.ledger)
            assert all(node.ledger.balance(name).overdrawn == 0 for name in DIMENSIONS), "V57"
            for key, child in node.children.items():
                held = node.ledger.holds[key]
                assert all(getattr(held, name) == child.ledger.limit(name) for name in DIMENSIONS), "V53"


@settings(deadline=None)
@given(st.integers(0, 1 << 32))
def test_trees(seed: int) -> None:
    """D1, D2, D3, D4, S1: in every tree, at every moment, over crashes: granted is held, spent and free; no child has more than its parent gave; at the end nothing is held and the sums agree."""
    forest = Forest(seed)
    for _ in range(60):
        forest.step()
        forest.check()
    root = forest.root
    while root.children:
        forest.close(root)
    while root.attempts:
        forest.end(root)
    for key in root.ledger.due(None):
        root.ledger.charge(key)
    assert root.ledger.held == NOTHING
    assert root.ledger.started == root.ledger.usage.attempts
    forest.check()
