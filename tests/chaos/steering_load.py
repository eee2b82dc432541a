"""Load of which a part is paused, resumed and cancelled while it works, as many clients would."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import harness
from tierflow.handle import Handle

ENDS = {"STOPPED", "TERMINATED"}


@dataclass(slots=True)
class SteeredLoad(harness.Load):
    """As `Load`; of ten runs one is cancelled, two are paused and resumed, one of these by an interrupt."""

    chance: random.Random = field(default_factory=lambda: random.Random(7))
    cancelled: int = 0
    paused: int = 0

    async def _one(self, number: int, slots: asyncio.Semaphore) -> None:
        async with slots:
            self.submitted += 1
            began = time.monotonic()
            try:
                handle = await self.client.submit(self.flow, {"n": number})
                steered = await self._steer(handle)
                result = await handle.wait()
                if result.state == "COMPLETED":
                    if result.output != {"n": number}:
                        self.wrong.append(f"{number}: {result.output}")
                elif steered != "cancel" or result.state not in ENDS:
                    self.wrong.append(f"{number}: {result.state} after {steered or 'nothing'}: {result.failure}")
            except Exception as error:  # noqa: BLE001 - whatever a client is told, it is what this test is about
                self.wrong.append(f"{number}: {type(error).__name__}: {error}")
            self.longest = max(self.longest, time.monotonic() - began)
            self.done += 1

    async def _steer(self, handle: Handle) -> str:
        """What was done to it."""
        what = self.chance.choice(["cancel", "pause", "interrupt", *[""] * 7])
        if not what:
            return what
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        if what == "cancel":
            self.cancelled += await handle.cancel("chaos")
            return what
        self.paused += await handle.pause("chaos", interrupt=what == "interrupt")
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        await handle.resume("chaos")
        return what
