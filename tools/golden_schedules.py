"""The schedules of a golden set: together they lead to every kind of event and every state of schedules and firings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import golden_flows as flows
from tierflow import Client, Handle
from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.coordinator.v1.schedule_pb2 import Schedule
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

YEARLY = "0 0 1 1 *"
"""So seldom that it never fires by itself here."""
PAST = (datetime(2020, 12, 31, tzinfo=UTC), datetime(2022, 1, 2, tzinfo=UTC))
"""Two times of it."""


class GoldenSchedules:
    """Drives the schedules."""

    def __init__(self, client: Client, stack: Stack) -> None:
        self.client = client
        self.schedules = client.schedules
        self.stack = stack

    async def drive(self) -> None:
        """Everything, in the end with schedules that are over."""
        for flow in (flows.SIGNALLED, flows.SOON_OVER, flows.NOBODY, flows.NEEDY):
            await self.client.register_flow(flow)
        await self.regular()
        await self.overlaps()
        await self.not_made()

    async def regular(self) -> None:
        """One that fires by itself, is changed, paused, misses times while nothing is up, and is over when it has fired often enough."""
        await self.schedules.create(
            "often", "golden-soon-over", every="1s", catch_up="1s", paused=True, reason="not yet"
        )
        await self.schedules.resume("often", "now")
        await self.until("often", lambda one: one.counts.succeeded > 0)
        for service in self.stack.coordinators:
            service.kill()
        await asyncio.sleep(4)
        for service in self.stack.coordinators:
            service.start()
        await self.until("often", lambda one: one.counts.missed > 0)
        await self.schedules.update("often", max_firings=1, reason="often enough")
        await self.gone("often")

    async def overlaps(self) -> None:
        """Firings that wait, are skipped, and cancelled for another."""
        await self.schedules.create("one", "golden-signalled", cron=YEARLY, overlap="buffer_one")
        first = await self.schedules.trigger("one")
        await self.schedules.trigger("one")
        assert not (await self.schedules.trigger("one")).swarm_id  # skipped: one waits already
        await self.schedules.update("one", overlap="cancel_running", reason="the newest counts")
        newest = await self.schedules.trigger("one")
        assert (await self.client.handle(first.swarm_id).wait(60)).state == "STOPPED"
        await self.until(
            "one",
            lambda one: any(f.firing_id == newest.firing_id and f.state == pb.FIRING_STATE_STARTED for f in one.open),
        )
        await self.schedules.pause("one", "lunch")
        await self.schedules.delete("one", cancel_running=True)
        await self.gone("one")

    async def not_made(self) -> None:
        """Firings whose swarm cannot be made: for now, and for good."""
        await self.schedules.create("nobody", "golden-nobody", cron=YEARLY)
        await self.schedules.trigger("nobody")
        await self.until("nobody", lambda one: one.open[0].state == pb.FIRING_STATE_DELAYED)
        await self.schedules.delete("nobody")
        await self.schedules.create("needy", "golden-needy", {}, cron=YEARLY)
        await self.client.register_flow(flows.NEEDY_2)
        await self.schedules.trigger("needy")
        await self.until("needy", lambda one: [f.state for f in one.recent] == [pb.FIRING_STATE_REFUSED])

    async def left_open(self, opened: dict[str, Handle]) -> None:
        """What the next version goes on with: a backfill under way, whose first swarm waits; and one that has a snapshot."""
        text = "long " * 4000
        await self.schedules.create("past", "golden-signalled", {"text": text}, cron=YEARLY)
        for n in range(4):
            await self.schedules.update("past", input={"text": text, "n": n})
        await self.schedules.backfill("past", *PAST)
        found = await self.until("past", lambda one: bool(one.open) and bool(one.open[0].swarm_id))
        opened["backfill"] = self.client.handle(found.open[0].swarm_id)

    async def gone(self, name: str) -> None:
        """Returns when a schedule is over."""

        async def look() -> bool:
            return name not in [schedule.name async for schedule in self.schedules.list()]

        await eventually(look, timeout=30)

    async def until(self, name: str, condition: Callable[[Schedule], bool]) -> Schedule:
        """Returns a schedule when it is so."""

        async def look() -> Any:
            found = await self.schedules.get(name)
            return found if condition(found) else None

        found: Schedule = await eventually(look, timeout=30)
        return found
