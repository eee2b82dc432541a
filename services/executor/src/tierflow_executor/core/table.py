"""All attempts that an executor knows: an id is run once, a result is kept until it is acknowledged, owners follow one another.

Pure: no clock, no I/O. `now` is in microseconds and only has to rise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from tierflow_executor.core.attempt import Attempt
from tierflow_executor.core.holding import Holding
from tierflow_executor.core.memory import Memory
from tierflow_executor.core.states import Move, State
from tierflow_executor.core.succession import Succession

MINUTE = 60_000_000
HOUR = 60 * MINUTE
UNARY = ""
"""The owner of attempts that were asked for by the unary form."""


class Verdict(Enum):
    """What a request for an attempt comes to."""

    START = "START"  # new: the attempt is in the table, QUEUED
    KNOWN = "KNOWN"  # under way
    REPEAT = "REPEAT"  # ended: its result is sent again
    CANCELLED = "CANCELLED"  # was cancelled before it was asked for (rule R29)
    GONE = "GONE"  # ended and forgotten
    DROP = "DROP"  # of somebody who may not ask any more (rule R25)


class Grave(Enum):
    """Why an id that is not in the table must not be started."""

    CANCELLED = "CANCELLED"
    FORGOTTEN = "FORGOTTEN"
    ASKED = "ASKED"


class Attempts:
    """The attempts of one executor.

    Args:
        held_bytes: Bytes of held results beyond which no slots are granted.
        ttl: How long a result is held and an id is remembered, microseconds. A result that nobody can acknowledge, since it was asked for by the unary
            form, is held for a minute, for a call that is repeated.
        remembered: How many ids of each kind are remembered at most.
    """

    def __init__(self, *, held_bytes: int = 256 << 20, ttl: int = HOUR, remembered: int = 200_000) -> None:
        self.holding = Holding(held_bytes, ttl)
        self._brief = Holding(held_bytes, min(ttl, MINUTE))
        self.succession = Succession()
        self._known: dict[str, Attempt] = {}
        self._graves: Memory[tuple[Grave, str]] = Memory(remembered, ttl)
        self._forgotten: Memory[Grave] = Memory(remembered, ttl)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, attempt_id: str) -> Attempt | None:
        """The attempt, where it is known."""
        return self._known.get(attempt_id)

    def request(self, attempt_id: str, run_id: str, instance: str) -> tuple[Verdict, Attempt | None]:
        """Somebody asks for an attempt; a new one is QUEUED from now on. The attempt is returned for START, KNOWN and REPEAT."""
        if self.succession.is_replaced(instance):
            return Verdict.DROP, None
        known = self._known.get(attempt_id)
        if known is not None:
            if instance != UNARY:
                self._hand_over(known, instance)
            return (Verdict.REPEAT if known.has_result else Verdict.KNOWN), known
        if self._forgotten.get(attempt_id) is not None:
            return Verdict.GONE, None
        grave = self._graves.get(attempt_id)
        if grave is not None:
            reason, asker = grave
            if reason is Grave.CANCELLED:
                return Verdict.CANCELLED, self._accept(attempt_id, run_id, instance)
            if not self.succession.speaks_for(instance, asker):
                return Verdict.DROP, None
            self._graves.remove(attempt_id)
        return Verdict.START, self._accept(attempt_id, run_id, instance)

    def _accept(self, attempt_id: str, run_id: str, instance: str) -> Attempt:
        attempt = Attempt(attempt_id, run_id, instance)
        self._known[attempt_id] = attempt
        return attempt

    def end(self, attempt: Attempt, result: bytes, result_state: int, now: int, *, alive: bool = False) -> None:
        """An attempt has a result, which is held from now on; `alive` says that it could not be stopped."""
        attempt.move(Move.GIVE_UP if alive else Move.END)
        attempt.result = result
        attempt.result_state = result_state
        attempt.ended_at = now
        if not alive:
            attempt.work = None
        self._shelf(attempt).keep(attempt)

    def _shelf(self, attempt: Attempt) -> Holding:
        return self._brief if attempt.owner == UNARY else self.holding

    def _hand_over(self, attempt: Attempt, instance: str) -> None:
        if attempt.has_result and attempt.owner == UNARY:
            self._brief.drop(attempt)
            self.holding.keep(attempt)
        attempt.owner = instance

    def vanish(self, attempt: Attempt) -> None:
        """What could not be stopped has stopped after all."""
        if attempt.state is State.LINGERING:
            attempt.move(Move.VANISH)
        attempt.work = None

    def acknowledge(self, attempt_id: str, instance: str, now: int) -> bool:
        """A result is committed by its owner and is forgotten. Stale acknowledgements change nothing; says whether this one did."""
        attempt = self._known.get(attempt_id)
        if attempt is None or not attempt.has_result or attempt.owner != instance:
            return False
        self._forget(attempt, now)
        return True

    def expire(self, now: int) -> list[Attempt]:
        """Forgets results that nobody acknowledged in time, and returns them."""
        expired = self.holding.expired(now) + self._brief.expired(now)
        for attempt in expired:
            self._forget(attempt, now)
        return expired

    def _forget(self, attempt: Attempt, now: int) -> None:
        self._shelf(attempt).drop(attempt)
        attempt.move(Move.FORGET)
        del self._known[attempt.attempt_id]
        self._forgotten.add(attempt.attempt_id, Grave.FORGOTTEN, now)

    def adopt(self, attempt_id: str, instance: str, now: int) -> Attempt | None:
        """The attempt is the caller's from now on. None: it is unknown, for good; only the caller or who follows it may start it."""
        if self.succession.is_replaced(instance):
            return None
        attempt = self._known.get(attempt_id)
        if attempt is None:
            grave = self._graves.get(attempt_id)
            if grave is None or grave[0] is Grave.ASKED:
                self._graves.add(attempt_id, (Grave.ASKED, instance), now)
            return None
        self._hand_over(attempt, instance)
        return attempt

    def bury(self, attempt_id: str, now: int) -> None:
        """An unknown attempt was cancelled: it is refused should it come later."""
        self._graves.add(attempt_id, (Grave.CANCELLED, ""), now)

    def orphans(self, connected: Collection[str], before: int) -> list[Attempt]:
        """Held results that wait for nobody: their owner was replaced, or has not been here since they ended before that moment."""
        return [
            attempt
            for attempt in self.holding
            if attempt.owner not in connected
            and (attempt.ended_at < before or self.succession.is_replaced(attempt.owner))
        ]

    def under_way(self) -> list[Attempt]:
        """Attempts without a result."""
        return [attempt for attempt in self._known.values() if not attempt.has_result]

    def of(self, owners: Iterable[str]) -> list[Attempt]:
        """Attempts that belong to these instances."""
        wanted = set(owners)
        return [attempt for attempt in self._known.values() if attempt.owner in wanted]
