"""Remembers ids for a while, in bounded space: ids of attempts that must never be started again."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class Memory(Generic[V]):
    """A mapping that forgets: an entry lives at least as long as half its bound or its time is not used up.

    Two generations are kept; when the younger is full or old enough it becomes the older one, and the older one is dropped. Adding, looking up and
    forgetting cost the same however much is remembered.

    Args:
        bound: Entries remembered at most.
        ttl: For how long an entry is remembered at least, in the unit of `now`, unless the bound is reached before.
    """

    def __init__(self, bound: int, ttl: int) -> None:
        self._half = max(1, bound // 2)
        self._ttl = ttl
        self._young: dict[str, V] = {}
        self._old: dict[str, V] = {}
        self._since = 0

    def add(self, key: str, value: V, now: int) -> None:
        """Remembers an entry, in place of one of the same key."""
        if len(self._young) >= self._half or (now - self._since >= self._ttl and (self._young or self._old)):
            self._old = self._young
            self._young = {}
            self._since = now
        elif not self._young and not self._old:
            self._since = now
        self._young[key] = value

    def get(self, key: str) -> V | None:
        """The entry, or None where it is not known or forgotten."""
        found = self._young.get(key)
        return found if found is not None else self._old.get(key)

    def remove(self, key: str) -> None:
        """Forgets an entry at once."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
