"""What must hold of the budget of a run, by its events alone (docs/budgets.md). Shares no code with the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_SPENT: Final = ("credits", "tokens", "tool_calls")
_CLOSED: Final = frozenset(
    ("StepCompleted", "StepRetrying", "StepFailed", "StepCancelled", "StepSkipped", "StepInterrupted", "StepGrown", "HandlerCalled")
)  # fmt: skip


@dataclass(slots=True)
class Purse:
    """What was granted to a run, and what is held of it."""

    total: Any = None
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SPENT, 0))
    holds: dict[str, dict[str, int]] = field(default_factory=dict)
    """By attempt: what it was granted, while nobody knows what it used."""
    lost: set[str] = field(default_factory=set)
    """Of those: attempts that were given up."""
    charged: dict[str, dict[str, int]] = field(default_factory=dict)

    def left(self, name: str) -> int | None:
        """What is free; None where it is not limited."""
        limit = getattr(self.total, name, None)
        if limit is None:
            return None
        return int(limit) - self.spent[name] - sum(hold[name] for hold in self.holds.values())


class BudgetRules:
    """Part of the checker of histories."""

    purse: Purse
    used: dict[str, int]

    def expect(self, holds: bool, invariant: str, text: str) -> None:
        """A breach where it does not hold."""
        raise NotImplementedError

    def _book(self, usage: Any) -> None:
        raise NotImplementedError

    def look_at_budget(self, event: Any) -> None:
        """Looks at what an event means for the budget."""
        name, purse = type(event).__name__, self.purse
        if name in ("RunCreated", "RunUpdated"):
            purse.total = event.allocation
        elif name == "StepScheduled":
            self._granted(event, purse)
        elif name in _CLOSED:
            self._over(event, purse)
        elif name == "HoldCharged":
            self._charged(event, purse)
        elif name == "LateResult":
            self._corrected(event, purse)
        elif name == "RunEnded":
            self.expect(not purse.holds, "V55", f"the run ended while something was held: {list(purse.holds)[:5]}")

    def _granted(self, event: Any, purse: Purse) -> None:
        grant = getattr(event, "grant", None)
        if grant is None:
            return
        hold = {name: getattr(grant, name) or 0 for name in _SPENT}
        for name, amount in hold.items():
            left = purse.left(name)
            within = left is None or amount <= max(0, left)
            self.expect(within, "V53", f"{event.attempt_id} was granted {amount} {name}, {left} were left")
            given = left is None or getattr(grant, name) is not None
            self.expect(given, "V53", f"{event.attempt_id} was granted {name} without a limit, {left} were left")
        if any(hold.values()) or grant.steps:
            purse.holds[event.attempt_id] = hold

    def _over(self, event: Any, purse: Purse) -> None:
        attempt_id, usage = getattr(event, "attempt_id", ""), getattr(event, "usage", None)
        known = getattr(event, "confirmed", True) and not _lost(getattr(event, "failure", None))
        if attempt_id and not known:
            if attempt_id in purse.holds:
                purse.lost.add(attempt_id)
        elif attempt_id:
            purse.holds.pop(attempt_id, None)
        if usage is not None:
            _add(purse.spent, spent_of(usage))

    def on_HoldCharged(self, event: Any, time: int) -> None:  # noqa: N802 - named after the event
        """All that it held is on the bill."""
        self._book(event.usage)

    def _charged(self, event: Any, purse: Purse) -> None:
        hold = purse.holds.pop(event.attempt_id, None)
        lost = event.attempt_id in purse.lost
        self.expect(lost and hold is not None, "V54", f"{event.attempt_id} is charged, but is not owed")
        wanted = spent_of(event.usage)
        self.expect(hold is None or hold == wanted, "V54", f"{event.attempt_id} held {hold}, is charged {wanted}")
        _add(purse.spent, wanted)
        purse.charged[event.attempt_id] = wanted

    def _corrected(self, event: Any, purse: Purse) -> None:
        taken = getattr(event, "charged", None)
        before = purse.charged.pop(event.attempt_id, None)
        found = None if taken is None else spent_of(taken)
        self.expect(before == found, "V54", f"{event.attempt_id}: {before} was charged, {found} is taken back")
        purse.holds.pop(event.attempt_id, None)
        if taken is not None:
            for name, number in found.items() if found is not None else ():
                purse.spent[name] -= number
            for name in self.used:
                self.used[name] -= getattr(taken, name)
        _add(purse.spent, spent_of(event.usage))


def spent_of(usage: Any) -> dict[str, int]:
    """What of a usage is spent out of a budget, steps aside."""
    return {
        "credits": usage.credits,
        "tokens": usage.input_tokens + usage.output_tokens,
        "tool_calls": usage.tool_calls,
    }


def _add(to: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        to[name] += number


def _lost(failure: Any) -> bool:
    from tierflow_testing.history import lost

    return failure is not None and lost(failure)
