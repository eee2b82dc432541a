"""Faults that could be built into budgets; see `mutations`."""

from __future__ import annotations

from typing import Any

from tierflow_runtime.ledger import Ledger

from simulation.patches import Mutation, Patches


def _settled_twice(patches: Patches) -> None:
    """What a hold returns is returned twice."""

    def release(self: Any, key: str) -> None:
        amounts = self.holds.get(key)
        before(self, key)
        if amounts is not None:
            self.held = self.held.minus(amounts)

    before = patches.put(Ledger, "_release", release)


def _hold_forgotten(patches: Patches) -> None:
    """What an attempt holds is free as soon as it is lost."""

    def lose(self: Any, key: str, step_id: str, until: int) -> bool:
        self._release(key)
        return False

    patches.put(Ledger, "lose", lose)


PAID: tuple[Mutation, ...] = (
    Mutation("settled-twice", "a settlement is applied twice (D3)", _settled_twice, ("V57", "V53"), 100),
    Mutation("hold-forgotten", "the hold of a lost attempt is forgotten (R30)", _hold_forgotten, ("V53", "V54", "V55"), 300),
)  # fmt: skip
