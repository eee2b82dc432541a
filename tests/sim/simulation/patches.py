"""How a fault is put into the product for a while: by replacing functions, entries of tables, and text of statements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tierflow_durable.batch

from simulation import commits


class Patches:
    """What was replaced, to be put back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def put(self, where: Any, name: str, value: Any) -> Any:
        """Replaces an attribute; returns what was there."""
        before = getattr(where, name)
        setattr(where, name, value)
        self._undo.append(lambda: setattr(where, name, before))
        return before

    def entry(self, where: dict[Any, Any], key: Any, value: Any) -> Any:
        """Replaces an entry of a table."""
        before = where[key]
        where[key] = value
        self._undo.append(lambda: where.__setitem__(key, before))
        return before

    def sql(self, block: str, old: str, new: str) -> None:
        """Replaces text in the group commit."""
        texts = tierflow_durable.batch.blocks("tierflow_durable", "commit.sql")
        assert old in texts[block], f"{block} has no {old!r} any more"
        self.entry(texts, block, texts[block].replace(old, new))
        self._forget_statements()
        self._undo.append(self._forget_statements)

    @staticmethod
    def _forget_statements() -> None:
        tierflow_durable.batch.commit_statement.cache_clear()
        commits.plan.cache_clear()

    def undo(self) -> None:
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()


@dataclass(frozen=True)
class Mutation:
    """A fault: what is wrong, how it is put in, the invariants of which one must be broken, and within how many seeds."""

    name: str
    about: str
    patch: Callable[[Patches], None]
    caught_by: tuple[str, ...]
    seeds: int
    first: int = 0
    """Where to begin: what is seldom is looked for where it was seen."""
