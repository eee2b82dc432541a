"""Results that are held until they are acknowledged (rule R27)."""

from __future__ import annotations

from collections.abc import Iterator

from tierflow_executor.core.attempt import Attempt


class Holding:
    """Ended attempts with their results, oldest first, and how many bytes they are.

    Args:
        bound: Bytes beyond which `full` is true. Nothing is dropped for it: whoever asks stops granting slots.
        ttl: How long a result is held without acknowledgement, microseconds.
    """

    def __init__(self, bound: int, ttl: int) -> None:
        self._bound = bound
        self._ttl = ttl
        self._held: dict[str, Attempt] = {}
        self._bytes = 0
        self._full = False

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._held.values())

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether no slots may be granted: true from the bound on, and until a quarter of it is free again."""
        if self._full:
            self._full = self._bytes > self._bound * 3 // 4
        else:
            self._full = self._bytes >= self._bound
        return self._full

    def keep(self, attempt: Attempt) -> None:
        """Holds the result of an attempt that has just ended."""
        self._held[attempt.attempt_id] = attempt
        self._bytes += len(attempt.result)

    def drop(self, attempt: Attempt) -> None:
        """Lets a result go."""
        if self._held.pop(attempt.attempt_id, None) is not None:
            self._bytes -= len(attempt.result)

    def expired(self, now: int) -> list[Attempt]:
        """Results that were held for their whole time, oldest first; they are still held."""
        found = []
        for attempt in self._held.values():
            if attempt.ended_at + self._ttl > now:
                break
            found.append(attempt)
        return found
