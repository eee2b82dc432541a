"""Offers the mix at a rate, whether or not earlier work has ended, and keeps how each ended."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field

from tierflow import Client, ExecutionFailed
from tierflow.errors import TierflowError

from benchmarks.sustained.mix import Kind, WrongEndError, sequence
from benchmarks.sustained.verdict import Outcome


@dataclass(slots=True)
class Counts:
    """One kind's work, by how it ended, and how long it took: seconds."""

    ended: int = 0
    latencies: list[float] = field(default_factory=list)


class Offer:
    """The load, as seen by those who ask for it."""

    def __init__(self, client: Client, rate: float) -> None:
        self._client = client
        self._rate = rate
        self.outcome = Outcome(rate=rate, due_under_way=round(rate * 2))
        self.kinds: dict[str, Counts] = defaultdict(Counts)
        self.under_way: set[asyncio.Task[None]] = set()
        self._recent: list[float] = []
        self._ended_before = self._offered_before = 0

    async def run(self, seconds: float) -> None:
        """Offers for so long, then waits for everything."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        kinds = sequence()
        number = 0
        while (due := number / self._rate) < seconds:
            await asyncio.sleep(max(0.0, began + due - loop.time()))
            task = asyncio.create_task(self._one(next(kinds), number, time.perf_counter()))
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)
            number += 1
            self.outcome.offered = number
        self.outcome.in_time = self.outcome.ended
        await asyncio.gather(*self.under_way)

    async def _one(self, kind: Kind, number: int, due: float) -> None:
        outcome = self.outcome
        try:
            await kind.perform(self._client, number)
        except (WrongEndError, ExecutionFailed) as error:
            outcome.wrong.append(f"{kind.name} {number}: {error}")
        except TierflowError as error:
            if error.code:
                outcome.refused[error.code] = outcome.refused.get(error.code, 0) + 1
            else:
                outcome.untyped.append(f"{kind.name} {number}: {error!r}")
        except Exception as error:  # noqa: BLE001 - whatever a client is told without a code is what this looks for
            outcome.untyped.append(f"{kind.name} {number}: {error!r}")
        else:
            took = time.perf_counter() - due
            outcome.ended += 1
            self.kinds[kind.name].ended += 1
            self.kinds[kind.name].latencies.append(took)
            if not kind.waits:
                self._recent.append(took)

    def since_last(self) -> tuple[int, int, list[float]]:
        """Since the last time that somebody asked: how many were offered, how many ended, and how long those took that do not wait by themselves."""
        ended, offered = self.outcome.ended - self._ended_before, self.outcome.offered - self._offered_before
        self._ended_before, self._offered_before = self.outcome.ended, self.outcome.offered
        recent, self._recent = self._recent, []
        return offered, ended, recent
