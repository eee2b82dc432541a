"""Who speaks for whom after instances were replaced (rule R25)."""

from __future__ import annotations

from collections.abc import Iterable


class Succession:
    """Instances that were replaced. Nothing of theirs is started any more; nobody can be replaced by itself.

    Several instances may name the same dead one, since the entities of a fenced instance are spread over the living.
    """

    def __init__(self) -> None:
        self._successors: dict[str, set[str]] = {}

    def replace(self, successor: str, instances: Iterable[str]) -> list[str]:
        """Notes that `successor` has taken over instances, and returns those that were not known as replaced before."""
        fresh = []
        for instance in instances:
            if instance in ("", successor):
                continue
            if instance not in self._successors:
                fresh.append(instance)
            self._successors.setdefault(instance, set()).add(successor)
        return fresh

    def is_replaced(self, instance: str) -> bool:
        """Whether requests of this instance are dropped."""
        return instance in self._successors

    def speaks_for(self, instance: str, other: str) -> bool:
        """Whether `instance` is `other` or has taken over from it, over however many successors."""
        seen = {other}
        pending = [other]
        while pending:
            current = pending.pop()
            if current == instance:
                return True
            for successor in self._successors.get(current, ()):
                if successor not in seen:
                    seen.add(successor)
                    pending.append(successor)
        return False
