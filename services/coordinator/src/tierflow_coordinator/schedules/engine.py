"""The engine of schedules: makes and cancels their swarms once that is committed, and tells them what became of those. It is the durable library's `Hooks`.

Whatever it keeps beside the schedules' states can be lost: a swarm is asked for with the firing's request id, so that asking again makes no second one (rules R8, R16).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_durable.durable import Durable
from tierflow_durable.entity import Entity
from tierflow_runtime.logs import get_log
from tierflow_runtime.security import Caller
from tierflow_runtime.values import Failure, FailureError

from tierflow_coordinator.core.commands import Effect, SteerSwarm
from tierflow_coordinator.core.schedules import commands, events
from tierflow_coordinator.core.schedules.firing import Firing, firing_of
from tierflow_coordinator.core.schedules.react import open_effects, react
from tierflow_coordinator.core.schedules.schedule import Schedule
from tierflow_coordinator.core.states import CANCEL
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.schedules.requests import caller_of, labels_of, swarm_request

log = get_log(__name__)

CANCEL_AGAIN: Final = 5.0


class Submits(Protocol):
    """Takes swarms."""

    def submit(
        self,
        request: swarm_pb2.SwarmExecutionRequest,
        caller: Caller,
        answered: Callable[[api.SubmitSwarmResponse | Failure], None],
        *,
        labels: Mapping[str, str] = ...,
    ) -> None:
        """`answered` hears once: that it is stored, or why it is not."""
        ...


class Notes(Protocol):
    """Counts what schedules do."""

    def note(self, firing: Firing) -> None:
        """A change of a firing is committed."""
        ...

    def note_missed(self, count: int) -> None:
        """Times were missed."""
        ...


class ScheduleEngine:
    """What happens around the schedules that this instance owns."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._durable: Durable
        self._submission: Submits
        self._steer: Callable[[str, SteerSwarm], Awaitable[Any]]

    def bind(self, durable: Durable, submission: Submits, steer: Callable[[str, SteerSwarm], Awaitable[Any]]) -> None:
        """Gives it the durable library that it is the hooks of, and the ways to its swarms."""
        self._durable = durable
        self._submission = submission
        self._steer = steer

    # --- hooks of the durable library ---

    def prepare_now(self, state: Schedule, first: Any, command: Any) -> bool:
        """A schedule needs nothing from outside."""
        return True

    async def prepare(self, state: Schedule, first: Any, command: Any) -> None:
        """Never called: see `prepare_now`."""

    def missing(self, state: Schedule, command: Any) -> Sequence[str]:
        """A schedule looks into no large value."""
        return ()

    def provide(self, state: Schedule, sha256: str, content: bytes) -> None:
        """Never called: see `missing`."""

    def settle(self, entity: Entity[Schedule]) -> None:
        """Nothing follows within the same slice."""

    def committed(self, entity: Entity[Schedule], events_: Sequence[events.ScheduleEvent]) -> None:
        """Carries out what the events demand."""
        for event in events_:
            for effect in react(event):
                self._carry_out(entity, effect)

    def replaces(self, instance_id: str) -> None:
        """Nobody below knows of schedules."""

    def opened(self, entity: Entity[Schedule]) -> None:
        """Repeats every effect that is not known to be done (rule R16)."""
        for effect in open_effects(entity.state):
            self._carry_out(entity, effect)

    def closed(self, entity: Entity[Schedule], reason: str) -> None:
        """Nothing is kept for it."""

    def _carry_out(self, entity: Entity[Schedule], effect: Effect) -> None:
        if isinstance(effect, commands.MakeSwarm):
            self._make(entity.state, effect.firing_id)
        elif isinstance(effect, commands.CancelSwarm):
            self._durable.host.spawn(self._cancel(entity.state, effect))
        elif isinstance(effect, commands.NoteFiring):
            self._notes.note(effect.firing)
        elif isinstance(effect, commands.NoteMissed):
            self._notes.note_missed(effect.count)

    # --- its swarms ---

    def _make(self, schedule: Schedule, firing_id: str) -> None:
        firing = schedule.open.get(firing_id)
        if firing is None:
            return  # It is made already: the state may be ahead of the event.
        schedule_id = schedule.schedule_id

        def answered(answer: api.SubmitSwarmResponse | Failure) -> None:
            made = (
                commands.FiringRefused(firing_id=firing_id, failure=answer)
                if isinstance(answer, Failure)
                else commands.FiringMade(firing_id=firing_id, swarm_id=answer.swarm_id)
            )
            # Where it is owned here no more, its owner asks again and hears the same.
            self._durable.host.tell(schedule_id, made)

        self.submit(schedule, firing, answered)

    def submit(
        self, schedule: Schedule, firing: Firing, answered: Callable[[api.SubmitSwarmResponse | Failure], None]
    ) -> None:
        """Asks for a firing's swarm; asking again, here or elsewhere, is answered with the same swarm."""
        self._submission.submit(
            swarm_request(schedule, firing), caller_of(schedule), answered, labels=labels_of(schedule)
        )

    async def _cancel(self, schedule: Schedule, effect: commands.CancelSwarm) -> None:
        firing = schedule.find(effect.firing_id)
        reason = f"schedule {schedule.name}: {firing.reason if firing is not None else ''}"
        command = SteerSwarm(
            command=CANCEL, command_id=f"schedule/{effect.firing_id}", actor=schedule.user_id, reason=reason
        )
        while self._durable.host.entities.get(schedule.schedule_id) is not None and effect.firing_id in schedule.open:
            try:
                await self._steer(effect.swarm_id, command)
                return
            except FailureError as error:
                if error.failure.code == "NOT_FOUND":
                    return
                log.warning(
                    "a swarm of a schedule cannot be cancelled now", swarm_id=effect.swarm_id, code=error.failure.code
                )
            await asyncio.sleep(CANCEL_AGAIN)

    async def tell_end(self, swarm: Swarm) -> bool:
        """Tells a schedule that a swarm of its has ended; False where that cannot be done now. For a schedule that is gone there is nothing to do."""
        found = firing_of(swarm.context.request_id)
        if found is None:
            return True
        schedule_id, firing_id = found
        over = commands.FiringOver(
            firing_id=firing_id,
            swarm_id=swarm.swarm_id,
            tenant=swarm.context.tenant,
            outcome=swarm.outcome,
            failure=swarm.failure,
            ended_at=swarm.ended_at,
        )
        try:
            await self._durable.router.command(schedule_id, over, f"{swarm.swarm_id}/{swarm.generation}")
        except FailureError as error:
            if error.failure.code == "NOT_FOUND":
                return True
            log.info("a schedule hears of a swarm's end later", swarm_id=swarm.swarm_id, code=error.failure.code)
            return False
        return True
