"""The ledger of an allocation: what was granted, what of it is held by those below, what is spent, what is free (docs/budgets.md).

Pure, whole numbers, no clock: Tier 1 keeps one for each swarm, Tier 2 one for each run, and both change it only by the events of their journals. Credits, tokens,
tool calls and steps are spent; memory, concurrency and depth are handed down as they are; time is a deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tierflow_runtime.values import NO_ALLOCATION, NO_USAGE, Allocation, Micros, Usage, Value, Violation

DIMENSIONS: Final = ("credits", "tokens", "tool_calls", "steps")
"""What is spent, by the names that the fields of an allocation have."""


class Amounts(Value, frozen=True):
    """So much in each dimension; never negative."""

    credits: int = 0
    tokens: int = 0
    tool_calls: int = 0
    steps: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """The sum."""
        return Amounts(
            credits=self.credits + other.credits,
            tokens=self.tokens + other.tokens,
            tool_calls=self.tool_calls + other.tool_calls,
            steps=self.steps + other.steps,
        )

    def minus(self, other: Amounts) -> Amounts:
        """The difference."""
        return Amounts(
            credits=self.credits - other.credits,
            tokens=self.tokens - other.tokens,
            tool_calls=self.tool_calls - other.tool_calls,
            steps=self.steps - other.steps,
        )

    @property
    def whole(self) -> Usage:
        """The usage that is charged where nobody says what was used: all of it. Its steps were counted when they began."""
        return Usage(credits=self.credits, input_tokens=self.tokens, tool_calls=self.tool_calls)


NOTHING: Final = Amounts()


class Owed(Value, frozen=True):
    """The hold of an attempt that was given up without a result (rule R30)."""

    step_id: str
    amounts: Amounts
    until: Micros
    """When it is settled at the whole, unless its end has become known by then."""
    charged: bool = False
    """Whether it is settled; what becomes known later corrects it."""


class Short(Value, frozen=True):
    """A dimension in which more is asked for than there is."""

    dimension: str
    asked: int
    left: int


class Balance(Value, frozen=True):
    """One dimension. `total + overdrawn == available + reserved + consumed`; where nothing is limited, total and available are None."""

    total: int | None
    reserved: int
    consumed: int
    available: int | None
    overdrawn: int
    """More than zero only where a limit was lowered below what was held or spent by then, or somebody used more than was granted; then nothing is available."""


def amounts_of(allocation: Allocation | None) -> Amounts:
    """What an allocation holds; what it does not limit holds nothing."""
    if allocation is None or allocation is NO_ALLOCATION:
        return NOTHING
    return Amounts(
        credits=allocation.credits or 0,
        tokens=allocation.tokens or 0,
        tool_calls=allocation.tool_calls or 0,
        steps=allocation.steps or 0,
    )


class Ledger:
    """What is known of one allocation. Deciding only asks; the events of the journal change it, each by one of the verbs."""

    __slots__ = ("finite", "held", "holds", "owed", "started", "total", "usage")

    def __init__(self, total: Allocation = NO_ALLOCATION, usage: Usage = NO_USAGE, started: int = 0) -> None:
        self.usage = usage
        """What was used, as it was measured; of what is charged without being known, the whole."""
        self.started = started
        """Steps spent: attempts count when they begin."""
        self.holds: dict[str, Amounts] = {}
        """By key (the id of an attempt, or a run and its generation): what those below hold."""
        self.owed: dict[str, Owed] = {}
        """By key: holds of attempts that were given up."""
        self.held = NOTHING
        """The sum of what is held, of what is owed and not charged included."""
        self.total = total
        self.finite = False
        self.grant(total)

    # Questions.

    def limit(self, dimension: str) -> int | None:
        """What was granted; None: not limited."""
        found: int | None = getattr(self.total, dimension)
        return found

    def consumed(self, dimension: str) -> int:
        """What is spent."""
        if dimension == "steps":
            return self.started
        if dimension == "tokens":
            return self.usage.input_tokens + self.usage.output_tokens
        found: int = getattr(self.usage, dimension)
        return found

    def left(self, dimension: str) -> int | None:
        """What is free now; None: not limited."""
        limit = getattr(self.total, dimension)
        if limit is None:
            return None
        return max(0, limit - self.consumed(dimension) - getattr(self.held, dimension))  # type: ignore[no-any-return]

    def balance(self, dimension: str) -> Balance:
        """All about one dimension."""
        limit, reserved, consumed = self.limit(dimension), getattr(self.held, dimension), self.consumed(dimension)
        over = 0 if limit is None else max(0, reserved + consumed - limit)
        return Balance(
            total=limit, reserved=reserved, consumed=consumed, available=self.left(dimension), overdrawn=over
        )

    def short(self, asked: Amounts) -> tuple[Short, ...]:
        """In which dimensions that is more than is free now: all of them."""
        return self._short(asked, returning=False)

    def never(self, asked: Amounts) -> tuple[Short, ...]:
        """In which dimensions that is more than will be free once all that is held has come back unused."""
        return self._short(asked, returning=True)

    def _short(self, asked: Amounts, *, returning: bool) -> tuple[Short, ...]:
        found = []
        for name in DIMENSIONS:
            left = self.left(name)
            if left is None:
                continue
            wanted = getattr(asked, name)
            if wanted > left + (self._returning(name) if returning else 0):
                found.append(Short(dimension=name, asked=wanted, left=left))
        return tuple(found)

    def _returning(self, dimension: str) -> int:
        """What would be free beyond what is, if all that is held came back."""
        limit = self.limit(dimension) or 0
        held: int = getattr(self.held, dimension)
        return min(held, max(0, limit - self.consumed(dimension)))

    def rest(self) -> Allocation:
        """What is free, as an allocation; capacities are those that were granted."""
        given = self.total
        if not self.finite:
            return given
        return Allocation(
            credits=self.left("credits"),
            tokens=self.left("tokens"),
            tool_calls=self.left("tool_calls"),
            steps=self.left("steps"),
            wall_time=given.wall_time,
            memory_bytes=given.memory_bytes,
            concurrent_steps=given.concurrent_steps,
            depth=given.depth,
        )

    def next_due(self) -> Micros | None:
        """When the next hold that is owed is settled at the whole; None where none is."""
        return min((one.until for one in self.owed.values() if not one.charged), default=None)

    def due(self, now: Micros | None) -> list[str]:
        """Keys of what is owed and to be settled at the whole by now; all of them where there is no `now`."""
        return [key for key, one in self.owed.items() if not one.charged and (now is None or one.until <= now)]

    # Verbs.

    def grant(self, total: Allocation) -> None:
        """So much may be spent from now on. What is held and spent stays what it is."""
        self.total = total
        self.finite = total is not NO_ALLOCATION and any(getattr(total, name) is not None for name in DIMENSIONS)

    def begin(self, key: str = "", amounts: Amounts | None = None) -> None:
        """An attempt begins: a step is spent, and what it may use is held."""
        self.started += 1
        if amounts is not None:
            self.reserve(key, amounts)

    def reserve(self, key: str, amounts: Amounts) -> None:
        """Somebody below holds so much. Raises ValueError for a key that holds something already."""
        if key in self.holds:
            raise ValueError(f"{key} holds something already")
        self.holds[key] = amounts
        self.held = self.held.plus(amounts)

    def settle(self, key: str, usage: Usage, *, begun: int = 1) -> None:
        """What was used is spent, the rest of the hold is free again, once. `begun`: of its attempts, those that were counted when they began."""
        if self.holds:
            self._release(key)
        self.book(usage, begun=begun)

    def book(self, usage: Usage, *, begun: int = 1) -> None:
        """So much is spent."""
        if usage.attempts > begun:
            self.started += usage.attempts - begun
        if usage is not NO_USAGE:
            self.usage = usage if self.usage is NO_USAGE else self.usage.plus(usage)

    def lose(self, key: str, step_id: str, until: Micros) -> bool:
        """An attempt was given up without a result: its hold stays. Whether it held anything."""
        amounts = self.holds.pop(key, NOTHING)
        if amounts == NOTHING:
            return False
        self.owed[key] = Owed(step_id=step_id, amounts=amounts, until=until)
        return True

    def charge(self, key: str) -> Usage:
        """What is owed is settled at the whole; returns that."""
        one = self.owed[key]
        self.owed[key] = Owed(step_id=one.step_id, amounts=one.amounts, until=one.until, charged=True)
        self.held = self.held.minus(one.amounts)
        whole = one.amounts.whole
        self.book(whole)
        return whole

    def correct(self, key: str, usage: Usage) -> Usage:
        """What an attempt that was given up has used is known after all; returns what had been charged for it, which is taken back."""
        one = self.owed.pop(key, None)
        taken = NO_USAGE
        if one is not None and one.charged:
            taken = one.amounts.whole
            self.usage = without(self.usage, taken)
        elif one is not None:
            self.held = self.held.minus(one.amounts)
        self.book(usage)
        return taken

    def _release(self, key: str) -> None:
        amounts = self.holds.pop(key, None)
        if amounts is not None:
            self.held = self.held.minus(amounts)

    def restore(self, holds: Mapping[str, Amounts], owed: Mapping[str, Owed]) -> None:
        """What is held, of a ledger that was stored."""
        self.holds, self.owed, self.held = dict(holds), dict(owed), NOTHING
        for amounts in (*self.holds.values(), *(one.amounts for one in self.owed.values() if not one.charged)):
            self.held = self.held.plus(amounts)


def without(usage: Usage, less: Usage) -> Usage:
    """A usage from which what was charged, but not used, is taken back."""
    if less is NO_USAGE or less == NO_USAGE:
        return usage
    return Usage(
        credits=usage.credits - less.credits,
        wall_time=usage.wall_time - less.wall_time,
        cpu_time=usage.cpu_time - less.cpu_time,
        memory_bytes=usage.memory_bytes,
        steps=usage.steps - less.steps,
        attempts=usage.attempts - less.attempts,
        tool_calls=usage.tool_calls - less.tool_calls,
        input_tokens=usage.input_tokens - less.input_tokens,
        output_tokens=usage.output_tokens - less.output_tokens,
        metrics=usage.metrics,
    )


def violations(short: Iterable[Short]) -> tuple[Violation, ...]:
    """What is short, for a failure."""
    return tuple(
        Violation(field=f"allocation.{one.dimension}", description=f"{one.asked} asked, {one.left} left")
        for one in short
    )


def spoken(short: Iterable[Short]) -> str:
    """What is short, for people."""
    return ", ".join(f"{one.asked} {WORDS[one.dimension]} ({one.left} left)" for one in short)


WORDS: Final = {"credits": "micro-credits", "tokens": "tokens", "tool_calls": "tool calls", "steps": "steps"}
"""What each dimension is called where people read it."""
