"""Schedules in this process: their own durable library beside that of swarms, in a schema of its own, and what the public API needs of them.

Both are in one process, so that a schedule's swarms are made without a call; neither can slow the other's lists, counts or commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from tierflow_contracts.common.v1 import schedule_pb2 as pb
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as swarms
from tierflow_contracts.coordinator.v1 import schedule_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.durable import Durable, DurableOptions
from tierflow_durable.ids import uuid7
from tierflow_durable.outlet import Outlet
from tierflow_durable.reading import EntityRow, ListFilter, Page
from tierflow_runtime.security import Caller
from tierflow_runtime.values import Failure, Micros

from tierflow_coordinator.core.commands import SteerSwarm
from tierflow_coordinator.core.schedules import commands
from tierflow_coordinator.core.schedules.decide import decide
from tierflow_coordinator.core.schedules.firing import Firing
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.schedules.checks import sample_values, spec_zone
from tierflow_coordinator.schedules.engine import Notes, ScheduleEngine, Submits
from tierflow_coordinator.schedules.machine import ScheduleMachine
from tierflow_coordinator.schedules.requests import template_request
from tierflow_coordinator.schedules.views import schedule_message

QUARANTINED: Final = "QUARANTINED"
MADE_WITHIN: Final = 10.0
"""Seconds for which a call waits to be told the swarm of a firing by hand."""
T = TypeVar("T")


class Schedules:
    """The schedules of a coordinator."""

    def __init__(
        self, options: DurableOptions, *, publisher: Outlet | None, notes: Notes, on_fenced: Callable[[str], None]
    ) -> None:
        self.engine = ScheduleEngine(notes)
        self.durable = Durable(ScheduleMachine(), self.engine, options, publisher=publisher, on_fenced=on_fenced)
        self._check: Callable[[swarm_pb2.SwarmExecutionRequest, Caller], Awaitable[None]]

    def bind(
        self,
        submission: Submits,
        steer: Callable[[str, SteerSwarm], Awaitable[Any]],
        check: Callable[[swarm_pb2.SwarmExecutionRequest, Caller], Awaitable[None]],
    ) -> None:
        """Gives it the ways to its swarms: to make them, to steer them, to see beforehand whether they could be made."""
        self.engine.bind(self.durable, submission, steer)
        self._check = check

    def now(self) -> Micros:
        """The present moment, by the database's clock (rule R17)."""
        return self.durable.clock.now()

    async def check(self, spec: pb.ScheduleSpec, caller: Caller) -> None:
        """Refuses a schedule whose swarms could not be made. Raises FailureError as admission does."""
        await self._check(template_request(spec.swarm, sample_values(spec_zone(spec))), caller)

    async def create(self, command: commands.CreateSchedule) -> tuple[str, bool]:
        """Stores a schedule; its id, and whether it is new: not where the name is taken. Raises FailureError."""
        created = await self.durable.host.create(uuid7(self.now()), command)
        if created.created:
            return created.entity_id, True
        row = await self.named(command.tenant, command.name)
        return (created.entity_id if row is None else row.id), False

    def preview(self, command: commands.CreateSchedule) -> api.Schedule:
        """The schedule as it would be."""
        schedule = Schedule(schedule_id="")
        decide(schedule, command, self.now())
        return schedule_message(schedule)

    async def named(self, tenant: str, name: str) -> EntityRow | None:
        """The row of a name: the one that is open, else the newest that was."""
        page = await self.page(ListFilter(tenant=tenant, name=name, limit=1))
        return page.rows[0] if page.rows else None

    async def page(self, wanted: ListFilter) -> Page:
        """A page of rows. Raises FailureError while the database is away."""
        return await self.durable.reader.page(wanted)

    async def view(self, schedule_id: str, look: Callable[[Schedule], T]) -> T:
        """What `look` sees in the state, once that is committed. Raises FailureError."""
        return await self.durable.reader.view(schedule_id, look)

    async def shown(self, schedule_id: str, *, full: bool = True) -> api.Schedule:
        """The schedule as clients see it."""
        entity = self.durable.host.entities.get(schedule_id)
        row = None if entity is not None and not entity.closing else await self.durable.reader.row(schedule_id)
        seq = entity.seq if row is None and entity is not None else 0 if row is None else row.seq
        message: api.Schedule = await self.view(schedule_id, lambda state: schedule_message(state, seq=seq, full=full))
        if row is not None and row.reason == QUARANTINED:
            message.state, message.reason = pb.SCHEDULE_STATE_PAUSED, QUARANTINED
        return message

    async def tell(self, schedule_id: str, command: Any) -> commands.Reply:
        """Brings a command to a schedule, wherever it is owned; answers after the commit (rule R14). Raises FailureError."""
        reply: commands.Reply = await self.durable.router.command(schedule_id, command, command.command_id)
        return reply

    async def made(self, schedule: Schedule, firing: Firing) -> swarms.SubmitSwarmResponse | Failure | None:
        """The swarm of a firing: asked for here as well, which makes no second one and brings the answer (rule R8). None where that takes too long."""
        future: asyncio.Future[swarms.SubmitSwarmResponse | Failure] = asyncio.get_running_loop().create_future()
        self.engine.submit(schedule, firing, lambda answer: None if future.done() else future.set_result(answer))
        await asyncio.wait({future}, timeout=MADE_WITHIN)
        return future.result() if future.done() else None

    async def drain(self, timeout: float) -> None:
        """Hands the schedules over."""
        await self.durable.drain(timeout)
