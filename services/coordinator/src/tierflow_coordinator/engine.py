"""The engine of Tier 1: carries out what swarms demand once it is committed, and tells them what Tier 2 says. The only place that writes.

It is the durable library's `Hooks` and the `Answers` of `runs`. Whatever it keeps beside the swarms' states can be lost: it is built again from them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.durable import Durable
from tierflow_durable.entity import Created, Entity
from tierflow_durable.machine import UnknownRecord
from tierflow_runtime.logs import get_log, ids
from tierflow_runtime.requests import run_request
from tierflow_runtime.values import Context, Failure, FailureError
from tierflow_runtime.wire import RUN_STATES

from tierflow_coordinator import wire
from tierflow_coordinator.admission import Admitted
from tierflow_coordinator.core import commands, events, states
from tierflow_coordinator.core.plan import Plan
from tierflow_coordinator.core.planning import allocation_of
from tierflow_coordinator.core.react import EFFECTIVE, after_run_state, open_effects, react
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.links import Link
from tierflow_coordinator.load import Load
from tierflow_coordinator.resting import Resting, is_owned
from tierflow_coordinator.runs import Runs
from tierflow_coordinator.tracing import Tracing
from tierflow_coordinator.waiting import Waiting

log = get_log(__name__)

NOTE_AFTER: Final = 0.05
"""Seconds for which the acceptance of a run waits for the run's end, to be journaled with it in one commit."""

NOTE_AFTER_BUSY: Final = 0.5
MANY_NOTES: Final = 64
"""With so many notes waiting it is longer: under load runs take longer, and a row for each acceptance would be a third of all rows."""

ROUTED_AT_ONCE: Final = 64
MOST_REMEMBERED: Final = 10_000

FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"


class Engine:
    """What happens around the swarms that this instance owns."""

    def __init__(
        self, *, tracing: Tracing, park_after: float = 60.0, on_end: Callable[[Swarm], None] = lambda _: None
    ) -> None:
        self.runs = Runs(self)
        self.waiting: Waiting
        self.resting: Resting
        self._durable: Durable
        self._tracing = tracing
        self._park_after = park_after
        self._on_end = on_end
        self._notes: deque[tuple[float, Entity[Swarm]]] = deque()
        self._note_timer: asyncio.TimerHandle | None = None
        self._terminated: dict[str, tuple[str, int]] = {}
        self._routing: set[str] = set()
        self._unknown: set[str] = set()
        self._route_slots = asyncio.Semaphore(ROUTED_AT_ONCE)
        self.load = Load()
        self.tell_schedule: Callable[[Swarm], Awaitable[bool]] = _no_schedules
        """Tells a schedule of the end of its swarm; False where that cannot be done now."""

    def bind(self, durable: Durable) -> None:
        """Gives it the durable library that it is the hooks of."""
        self._durable = durable
        self._host = durable.host
        self.waiting = Waiting(durable)
        self.resting = Resting(durable.host, self.runs, self.waiting, after=self._park_after)

    # --- what the service asks ---

    def create(self, admitted: Admitted, on_done: Callable[[Created | FailureError], None]) -> None:
        """Stores a new swarm; `on_done` hears after the commit."""

        def done(created: Created | FailureError) -> None:
            if isinstance(created, Created) and created.created:
                command, now = admitted.command, self._durable.clock.now()
                self._tracing.admitted(command.context, admitted.parent_traceparent, now, command.reuse)
            else:
                self.load.withdrawn()
            on_done(created)

        self.load.started()
        self._host.create_now(admitted.swarm_id, admitted.command, admitted.request_key, done)

    async def steer(self, swarm_id: str, command: commands.SteerSwarm) -> commands.Reply:
        """Brings a command to a swarm, wherever it is owned; answers after the commit. Raises FailureError."""
        reply: commands.Reply = await self._durable.router.command(swarm_id, command, command.command_id)
        return reply

    # --- hooks of the durable library ---

    def prepare_now(self, state: Swarm, first: events.SwarmEvent | None, command: commands.SwarmCommand | None) -> bool:
        """A swarm needs nothing from outside."""
        return True

    async def prepare(
        self, state: Swarm, first: events.SwarmEvent | None, command: commands.SwarmCommand | None
    ) -> None:
        """Never called: see `prepare_now`."""

    def missing(self, state: Swarm, command: commands.SwarmCommand | None) -> Sequence[str]:
        """A swarm looks into no large value."""
        return ()

    def provide(self, state: Swarm, sha256: str, content: bytes) -> None:
        """Never called: see `missing`."""

    def settle(self, entity: Entity[Swarm]) -> None:
        """A note of acceptance goes into the journal with whatever is decided first."""
        if entity.data is not None:
            run_id, entity.data = entity.data, None
            self._take_run(entity, run_id)

    def committed(self, entity: Entity[Swarm], events_: Sequence[events.SwarmEvent]) -> None:
        """Carries out what the events demand."""
        swarm = entity.state
        observing = self._tracing.observing
        for event in events_:
            if observing:
                self._tracing.observe(swarm, event, entity.last_time)
            kind = type(event)
            if kind in EFFECTIVE:
                for effect in react(swarm, event):
                    self._carry_out(entity, effect)
            elif isinstance(event, events.SwarmStateChanged):
                self._changed(entity, event)
            elif kind in events.SHARED:
                self.resting.look_after_change(entity)
            elif swarm.plan is not None:
                self._planned(swarm.plan, event)

    def _planned(self, plan: Plan, event: events.SwarmEvent) -> None:
        """A run of several has ended, or was refused: the swarm does not wait for it any more."""
        if isinstance(event, events.RunFinished):
            self.runs.forget(event.run_id)
        elif isinstance(event, events.PlanDecided) and (run_id := plan.standings[event.planned].run_id):
            self.runs.forget(run_id)

    def _changed(self, entity: Entity[Swarm], event: events.SwarmStateChanged) -> None:
        if event.from_ in states.ENDED:
            self.load.started()
        if event.to == states.PAUSED:
            self.resting.look_soon(entity)

    def replaces(self, instance_id: str) -> None:
        """Nothing to tell Tier 2: runs are asked for by their id, whoever asks."""

    def opened(self, entity: Entity[Swarm]) -> None:
        """Repeats every effect that is not known to be done (rule R16)."""
        for effect in open_effects(entity.state):
            self._carry_out(entity, effect)
        if entity.state.state == states.PAUSED:
            self.resting.look(entity)

    def closed(self, entity: Entity[Swarm], reason: str) -> None:
        """Forgets what was kept for it. Whoever waits for its end goes on waiting elsewhere."""
        entity.data = None
        swarm = entity.state
        self._tracing.forget(swarm)
        if swarm.run is not None:
            run = swarm.run
            unfinished = swarm.state == states.TERMINATED and not run.finished
            self.runs.forget(run.run_id, but_command=unfinished)
            if unfinished:
                self._terminated[run.run_id] = (swarm.swarm_id, swarm.generation)
        if reason == "ended":
            self.load.ended()
        self.waiting.closed(swarm.swarm_id)

    def _carry_out(self, entity: Entity[Swarm], effect: commands.Effect) -> None:
        swarm = entity.state
        if isinstance(effect, commands.RequestRun):
            self.runs.request(swarm.swarm_id, effect.run_id, lambda: self._request(swarm, effect))
        elif isinstance(effect, commands.CommandRun):
            self.runs.command(swarm.swarm_id, effect, _context_of_cancel(swarm, effect.run_id))
        elif isinstance(effect, commands.AnswerWaiting):
            self.waiting.answer(swarm)
            self._tracing.ended(swarm)
            self._on_end(swarm)
        elif isinstance(effect, commands.TellSchedule):
            self._host.spawn(self._told(swarm))

    async def _told(self, swarm: Swarm) -> None:
        """Tells the schedule; what it could not be told is told again by `run_terminated`. Its duties done, the swarm is acknowledged."""
        if await self.tell_schedule(swarm) and not (swarm.state == states.TERMINATED and swarm.run_open):
            self._host.writer.acknowledge(swarm.swarm_id, swarm.generation)

    def _request(self, swarm: Swarm, effect: commands.RequestRun) -> run_pb2.RunExecutionRequest:
        context = msgspec.structs.replace(
            swarm.context,
            run_id=effect.run_id,
            parent_id=swarm.swarm_id,
            depth=swarm.context.depth + 1,
            generation=effect.generation,
            labels=swarm.own_labels,
        )
        standing = None if swarm.plan is None else swarm.plan.standing_of(effect.run_id)
        if standing is not None and standing.flow is not None:
            flow = standing.flow
            return run_request(
                context,
                flow_pb2.FlowRef(name=flow.name, version=flow.version, hash=flow.hash),
                input=standing.input,
                allocation=allocation_of(swarm, effect.run_id),
                options=swarm.options,
                now=self._durable.clock.now(),
            )
        return run_request(
            context,
            flow_pb2.FlowRef(name=swarm.flow_name, version=swarm.flow_version, hash=swarm.flow_hash),
            input=swarm.input,
            allocation=swarm.allocation,
            options=swarm.options,
            now=self._durable.clock.now(),
            reuse=swarm.reuse,
        )

    # --- what Tier 2 says ---

    def run_accepted(self, swarm_id: str, run_id: str) -> None:
        """Notes it, in the entity's slot; the note is journaled with the next event, or by itself when none comes soon. By then another run may be asked for."""
        entity = self._host.entities.get(swarm_id)
        if entity is None or entity.closing or (run := entity.state.run) is None or run.run_id != run_id:
            return
        if run.taken:
            self.resting.look(entity)
            return
        entity.data = run_id
        loop = asyncio.get_running_loop()
        self._notes.append((loop.time(), entity))
        if self._note_timer is None:
            self._note_timer = loop.call_later(NOTE_AFTER, self._write_notes)

    def _write_notes(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._notes:
            at, entity = self._notes[0]
            if entity.data is not None and is_owned(self._host, entity):
                if at + (NOTE_AFTER_BUSY if len(self._notes) > MANY_NOTES else NOTE_AFTER) > now + 0.001:
                    break
                run_id, entity.data = entity.data, None
                self._take_run(entity, run_id)
            self._notes.popleft()
        self._note_timer = loop.call_later(NOTE_AFTER, self._write_notes) if self._notes else None

    def _take_run(self, entity: Entity[Swarm], run_id: str) -> None:
        run = entity.state.run
        if run is None or not is_owned(self._host, entity):
            return
        if not run.taken and run.run_id == run_id:
            self._host.apply(entity, commands.TakeRun(run_id=run_id))
        if not entity.state.ended:
            self.resting.look(entity)

    def run_refused(self, swarm_id: str, run_id: str, refusal: Failure) -> None:
        """The swarm ends by it, or is stopped where it was told to stop."""
        self._host.tell(swarm_id, commands.RefuseRun(run_id=run_id, failure=refusal))

    def run_state(self, swarm_id: str, run_id: str, state: str) -> None:
        """A paused run makes a paused swarm, or is the time for the second half of a graceful stop."""
        entity = self._host.entities.get(swarm_id)
        if entity is None or entity.closing:
            return
        if state == "PAUSED":
            self._host.apply(entity, commands.ReportRunState(run_id=run_id, state=state))
        for effect in after_run_state(entity.state, state):
            self._carry_out(entity, effect)

    def pause_undone(self, swarm_id: str) -> None:
        """A graceful stop that somebody's late resume has undone becomes a cancel: nothing goes on below what is to stop (Lesson 32)."""
        entity = self._host.entities.get(swarm_id)
        if entity is not None and not entity.closing:
            for effect in after_run_state(entity.state, states.PAUSED):
                self._carry_out(entity, effect)

    def cancel_received(self, swarm_id: str, run_id: str) -> None:
        """The last duty for a swarm that was ended by force."""
        ended = self._terminated.pop(run_id, None)
        if ended is not None:
            self._host.writer.acknowledge(*ended)
            self.runs.forget(run_id)

    def run_ended(self, link: Link, result: run_pb2.RunExecutionResult) -> None:
        """Takes a result to its swarm, wherever that is; acknowledges it once it is committed there (rule R28)."""
        context = result.context
        run_id, swarm_id, generation = context.run_id, context.swarm_id, context.generation or 1
        if RUN_STATES.name(result.state) not in states.RUN_ENDS:
            log.error("a result says of its run that it has not ended", run_id=run_id, state=result.state)
            return
        finish = wire.finish_of(result)
        if self._host.tell(swarm_id, finish, lambda _: self.runs.acknowledge(link, run_id, generation)):
            return
        if run_id not in self._routing:
            self._routing.add(run_id)
            self._host.spawn(self._route(link, swarm_id, finish))

    async def _route(self, link: Link, swarm_id: str, finish: commands.FinishRun) -> None:
        """A result for a swarm that is not in memory here. What cannot be done now is not acknowledged: the orchestrator says it again."""
        try:
            await self._route_slots.acquire()
            try:
                command_id = f"{finish.run_id}/{finish.generation}"
                await self._durable.router.command(swarm_id, finish, command_id)
            finally:
                self._route_slots.release()
            self.runs.acknowledge(link, finish.run_id, finish.generation)
        except FailureError as error:
            if error.failure.code != "NOT_FOUND":
                log.warning("a result waits for its swarm", run_id=finish.run_id, code=error.failure.code)
            elif finish.run_id not in self._unknown:
                if len(self._unknown) >= MOST_REMEMBERED:
                    self._unknown.clear()
                self._unknown.add(finish.run_id)
                log.warning("a result of an unknown swarm", swarm_id=swarm_id, run_id=finish.run_id)
        finally:
            self._routing.discard(finish.run_id)

    # --- after an end by force ---

    async def run_terminated(self) -> None:
        """Brings cancels down that were not received before a restart, for swarms that were ended by force, and ends to schedules; until cancelled."""
        while True:
            await asyncio.sleep(10)
            try:
                before = self._durable.clock.now() - 10_000_000
                for row in await self._host.database.fetch("unacknowledged", before=before, after=FIRST_ID, limit=500):
                    with contextlib.suppress(UnknownRecord):  # another instance knows it
                        await self._finish_terminated(str(row["id"]))
            except FailureError as error:
                log.info("cancels wait for the database", code=error.failure.code)

    async def _finish_terminated(self, swarm_id: str) -> None:
        loaded: Any = await self._host.loader.load(swarm_id)
        if loaded is None:
            return
        swarm: Swarm = loaded.state
        if swarm.of_schedule and not await self.tell_schedule(swarm):
            return
        effects = [effect for effect in open_effects(swarm) if isinstance(effect, commands.CommandRun)]
        if swarm.run is None or not effects:
            self._host.writer.acknowledge(swarm_id, swarm.generation)
            return
        self._terminated[swarm.run.run_id] = (swarm_id, swarm.generation)
        log.info("a run of a terminated swarm is cancelled again", **ids(swarm.context))
        self.runs.command(swarm_id, effects[0], _context_of_cancel(swarm, swarm.run.run_id))


async def _no_schedules(_swarm: Swarm) -> bool:
    return True


def _context_of_cancel(swarm: Swarm, run_id: str) -> Context:
    """The context of a run that is told something; its deadline is left out, since a cancel may come after it."""
    context = swarm.context
    generation = swarm.run.generation if swarm.run is not None else 1
    return msgspec.structs.replace(
        context,
        run_id=run_id,
        parent_id=swarm.swarm_id,
        depth=context.depth + 1,
        generation=generation,
        deadline=None,
        labels=swarm.own_labels,
    )
