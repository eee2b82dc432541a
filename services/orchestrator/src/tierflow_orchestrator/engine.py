"""The shell of Tier 2: gives runs slots, carries out what their events demand, brings them what executors say. Decides nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2, step_pb2
from tierflow_durable.entity import Entity
from tierflow_durable.host import Host
from tierflow_durable.ids import uuid7
from tierflow_durable.routing import Router
from tierflow_expressions.errors import ExpressionError
from tierflow_flow import Flow
from tierflow_flow.flow_keys import HANDLER_PREFIX
from tierflow_runtime import wire
from tierflow_runtime.logs import get_log
from tierflow_runtime.messaging import Messaging, subjects_of
from tierflow_runtime.values import Failure, FailureError

from tierflow_orchestrator.attempt_requests import AttemptRequests
from tierflow_orchestrator.cache import StepCache
from tierflow_orchestrator.children import Children
from tierflow_orchestrator.claims import claimed
from tierflow_orchestrator.core import commands, events, growth
from tierflow_orchestrator.core.attempts import current
from tierflow_orchestrator.core.caching import key_hash
from tierflow_orchestrator.core.children import RUNS
from tierflow_orchestrator.core.decide import missing_blobs
from tierflow_orchestrator.core.react import open_effects, react
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.flights import Reports
from tierflow_orchestrator.flows import Flows
from tierflow_orchestrator.link import Link
from tierflow_orchestrator.policy import PolicyFile
from tierflow_orchestrator.spans import RunSpans
from tierflow_orchestrator.visibility import TOOL_EVENTS, ToolCounts

log = get_log(__name__)


class Engine(Reports):
    """Hooks of the durable library on one side, reports of the dispatcher on the other."""

    def __init__(self, *, messaging: Messaging | None, spans: RunSpans) -> None:
        self._flows: Flows = None  # type: ignore[assignment]  # set by `connect`
        self._messaging = messaging
        self._spans = spans
        self.host: Host[Run, commands.RunCommand, events.RunEvent] = None  # type: ignore[assignment]  # set by `connect`
        self.router: Router[Run, commands.RunCommand] = None  # type: ignore[assignment]
        self.dispatcher: Dispatcher = None  # type: ignore[assignment]
        self.requests: AttemptRequests = None  # type: ignore[assignment]
        self.on_ended: Callable[[Run], None] = lambda run: None
        self.on_state: Callable[[Run], None] = lambda run: None
        self.children: Children = None  # type: ignore[assignment]
        self.policy: PolicyFile | None = None
        """The norms of this service; None: it has none."""
        self.cache: StepCache = None  # type: ignore[assignment]
        self._looking: set[tuple[str, str]] = set()
        """Steps, each with its run, for which the cache is being asked."""
        self._reading: set[str] = set()
        """Runs for which large values are being read."""
        self.steps_ended = 0
        self.attempts_retried = 0
        self.tools = ToolCounts()

    def connect(
        self, host: Host[Any, Any, Any], router: Router[Any, Any], dispatcher: Dispatcher, flows: Flows
    ) -> None:
        """Joins the parts that need each other."""
        self.host, self.router, self.dispatcher, self._flows = host, router, dispatcher, flows
        self.cache = StepCache(flows.database, host.clock)
        self.requests = AttemptRequests(dispatcher, self._spans, host.clock)

    # --- Hooks ---

    def prepare_now(self, state: Run, first: events.RunEvent | None, command: commands.RunCommand | None) -> bool:
        """Gives the run its flow, where that is in memory."""
        flow_hash = _flow_hash(state, first, command)
        if not flow_hash:
            return True
        flow = self._flows.cached(flow_hash)
        if flow is None:
            return False
        _give(state, flow)
        # Large results of another run are read before anything is decided from them.
        return not (isinstance(command, commands.CreateRun) and command.reused and missing_blobs(state, command))

    async def prepare(self, state: Run, first: events.RunEvent | None, command: commands.RunCommand | None) -> None:
        """Gives the run its flow. Raises FailureError FLOW_NOT_FOUND."""
        _give(state, await self._flows.get(_flow_hash(state, first, command)))

    def missing(self, state: Run, command: commands.RunCommand | None) -> Sequence[str]:
        """Large values that expressions look into."""
        return missing_blobs(state, command)

    def provide(self, state: Run, sha256: str, content: bytes) -> None:
        """A large value."""
        state.contents[sha256] = content.decode()

    def settle(self, entity: Entity[Run]) -> None:
        """Reserves slots for steps that may start, in the same commit as the events that made them ready."""
        run = entity.state
        dispatcher = self.dispatcher
        if run.lookups and run.state == "RUNNING":
            self._look_up(entity)
        again = True
        while again and not run.ended:
            again = False
            for handler in tuple(run.ready):
                while (step_id := run.next_ready(handler)) is not None and self._give_slot(entity, handler, step_id):
                    again = True
                    if dispatcher.slots.pumping and run.steps[step_id].state == "SCHEDULED":
                        return  # One in turn; what has failed instead has taken nothing, and may have let others begin.

    def _give_slot(self, entity: Entity[Run], handler: str, step_id: str) -> bool:
        """Whether the step has got a slot, or needed none, or has failed; False where it waits."""
        if handler.startswith(HANDLER_PREFIX):
            return self._assign(entity, step_id, None)
        spec = entity.state.spec(entity.state.steps[step_id])
        link = self.dispatcher.slots.reserve(entity.id, handler, spec.labels, spec.priority)
        return link is not None and self._assign(entity, step_id, link)

    def _look_up(self, entity: Entity[Run]) -> None:
        """Asks the cache for the results of steps that may start."""
        run = entity.state
        wanted = {}
        for step_id in run.lookups:
            step = run.steps[step_id]
            if step.held or (run.id, step_id) in self._looking:
                continue
            try:
                wanted[step_id] = key_hash(run, step)
            except ExpressionError:
                wanted[step_id] = ""  # there is no result for it; the core says what is wrong
        if wanted:
            self._looking.update((run.id, step_id) for step_id in wanted)
            self.host.spawn(self._recall(run.id, run.context.tenant, wanted))

    async def _recall(self, run_id: str, tenant: str, wanted: dict[str, str]) -> None:
        try:
            answers = await self.cache.recall(tenant, wanted)
        finally:
            self._looking.difference_update((run_id, step_id) for step_id in wanted)
        for answer in answers:
            self._tell(run_id, answer)

    def _assign(self, entity: Entity[Run], step_id: str, link: Link | None) -> bool:
        """Decides one dispatch; False where a large value must be read first: then it is done once that is there."""
        run = entity.state
        if self.policy is not None:
            run.policy = self.policy.current
        handler = run.steps[step_id].handler
        if link is None:
            command = commands.AssignSlot(step_id=step_id, executor_id=RUNS, child_run_id=uuid7(self.host.clock.now()))
        else:
            command = commands.AssignSlot(
                step_id=step_id,
                executor_id=link.key,
                side_effecting=handler in link.side_effecting,
                tool=handler in link.tools,
                input_schema=link.schemas.get(handler, ""),
            )
        if run.large and missing_blobs(run, command):
            if entity.id not in self._reading:
                self._reading.add(entity.id)
                self.host.spawn(self._read_and_settle(entity, command))
            return False
        self.host.apply(entity, command)
        step = run.steps[step_id]
        if step.state == "SCHEDULED" and link is not None:
            self.dispatcher.board(link, step.attempt_id, entity.id, step_id)
        return True

    async def _read_and_settle(self, entity: Entity[Run], command: commands.RunCommand) -> None:
        try:
            await self.host.provide_missing(entity.state, command)
        finally:
            self._reading.discard(entity.id)
        self.resettle(entity)

    def committed(self, entity: Entity[Run], committed: Sequence[events.RunEvent]) -> None:
        """Carries out what stored events demand."""
        run = entity.state
        observing = self._spans.observing
        for event in committed:
            kind = type(event)
            if kind is events.StepScheduled:
                self._dispatch(run, event)
                continue
            if kind is events.StepCompleted or kind is events.StepFailed:
                self.steps_ended += 1
            elif kind is events.StepRetrying:
                self.attempts_retried += 1
            elif kind is events.RunStateChanged:
                self.on_state(run)
            elif kind in TOOL_EVENTS:
                self.tools.note(event)
            for effect in react(run, event):
                self._carry_out(run, effect)
            if observing:
                self._spans.observe(run, event, entity.last_time)

    def _carry_out(self, run: Run, effect: commands.Effect) -> None:
        if isinstance(effect, commands.TellChild):
            self.children.tell(run, effect)
        elif isinstance(effect, commands.StopAttempt) and effect.executor_id == RUNS:
            self.children.stop(run, _step_of(run, effect.attempt_id))
        elif isinstance(effect, commands.StopAttempt):
            self.dispatcher.stop(effect.attempt_id, run.id, effect.executor_id, effect.reason)
        elif isinstance(effect, commands.ReportEnd):
            self.on_ended(run)
        elif isinstance(effect, commands.StoreResult):
            self.host.spawn(self.cache.store(run.context.tenant, run.id, effect))

    def _dispatch(self, run: Run, event: Any) -> None:
        if event.child_run_id:
            step = run.steps[event.step_id]
            if step.attempt_id == event.attempt_id:
                self.children.launch(run, step)
            return
        self.dispatcher.send(event.attempt_id, lambda: self.requests.make(run, event))

    def replaces(self, instance_id: str) -> None:
        """This instance takes over from a fenced one."""
        self.dispatcher.replaces(instance_id)

    def opened(self, entity: Entity[Run]) -> None:
        """A run was adopted, or has woken: everything not known to be done is done again, attempts are asked for first (rule R16)."""
        run = entity.state
        self.tools.opened(run)
        for effect in open_effects(run):
            if isinstance(effect, commands.DispatchAttempt) and effect.executor_id == RUNS:
                step = run.steps[effect.step_id]
                if step.state == "SCHEDULED":  # one that is stored is going to report its end
                    self.children.launch(run, step)
            elif isinstance(effect, commands.DispatchAttempt):
                self._recover(run, effect)
            else:
                self._carry_out(run, effect)
        self.resettle(entity)

    def _recover(self, run: Run, effect: commands.DispatchAttempt) -> None:
        self.dispatcher.recover(
            effect.attempt_id, run.id, effect.step_id, effect.executor_id, lambda: self.requests.make(run, effect)
        )

    def resettle(self, entity: Entity[Run]) -> None:
        """Looks for slots outside a decision."""
        if entity.closing or entity.busy:
            return
        entity.busy = True
        try:
            self.settle(entity)
        finally:
            entity.busy = False

    def closed(self, entity: Entity[Run], reason: str) -> None:
        """The run is no longer here."""
        self.tools.closed(entity.state)
        self.dispatcher.forget_run(entity.id, stop=entity.state.ended)
        self._spans.forget(entity.state)
        self.requests.forget(entity.id)

    # --- Reports ---

    def result(self, link: Link, result: step_pb2.StepExecutionResult) -> None:
        """An attempt ended: decide, and acknowledge after the commit (rule R27)."""
        run_id, attempt_id = result.context.run_id, result.context.attempt_id
        command = claimed(link.key, result, self.dispatcher.refusals)
        entity = self.host.entities.get(run_id)
        if entity is None or entity.closing or missing_blobs(entity.state, command):
            self.host.spawn(self._route_result(link, run_id, attempt_id, command))
            return
        if (step := current(entity.state, attempt_id)) is not None and step.executor_id == link.key:
            details = wire.payload_from_proto(result.last_heartbeat) if command.state == "FAILED" else None
            self.dispatcher.note_heartbeat(run_id, step.id, details)  # first: the next attempt may be sent at once
        try:
            self.dispatcher.refusals.answered(link.key, attempt_id, self.host.apply(entity, command))
        except FailureError as error:  # A defect, which the host sees to; the executor keeps the result.
            log.warning("a result was not taken", run_id=run_id, attempt_id=attempt_id, reason=str(error))
        else:
            self.host.when_committed(entity, lambda: self.dispatcher.acknowledge(link, attempt_id))

    async def _route_result(self, link: Link, run_id: str, attempt_id: str, command: commands.ReportResult) -> None:
        try:
            reply = await self.router.command(run_id, command)
            self.dispatcher.refusals.answered(link.key, attempt_id, reply)
        except FailureError as error:
            if error.failure.code not in ("NOT_FOUND", "INVALID_REQUEST"):
                log.warning(
                    "a result cannot be brought to its run; the executor keeps it",
                    run_id=run_id,
                    attempt_id=attempt_id,
                    reason=str(error),
                )
                return
        self.dispatcher.acknowledge(link, attempt_id)

    def _tell(self, run_id: str, command: commands.RunCommand) -> None:
        entity = self.host.entities.get(run_id)
        if entity is None or missing_blobs(entity.state, command) or not self._told(run_id, command):
            self.host.spawn(self._route(run_id, command))

    def _told(self, run_id: str, command: commands.RunCommand) -> bool:
        """Whether the run heard it: it is owned here. A defect met meanwhile is the host's business, not that of the executor's stream."""
        try:
            return self.host.tell(run_id, command)
        except FailureError as error:
            log.warning("a report was not taken", run_id=run_id, reason=str(error))
            return True

    async def _route(self, run_id: str, command: commands.RunCommand) -> None:
        try:
            await self.router.command(run_id, command)
        except FailureError as error:
            log.warning("a report cannot be brought to its run", run_id=run_id, reason=str(error))

    def started(self, run_id: str, attempt_id: str, started_at: int) -> None:
        """An attempt has started."""
        self._told(run_id, commands.ReportStarted(attempt_id=attempt_id, started_at=started_at))

    def lost(self, run_id: str, attempt_id: str, reason: str) -> None:
        """Nobody knows how an attempt ended."""
        log.warning("an attempt is lost", run_id=run_id, attempt_id=attempt_id, reason=reason)
        self._tell(run_id, commands.ReportLost(attempt_id=attempt_id, reason=reason))

    def refused(self, run_id: str, attempt_id: str, failure: Failure) -> None:
        """An attempt cannot be sent to any executor: it failed, for good."""
        self._tell(run_id, commands.ReportResult(attempt_id=attempt_id, state="FAILED", failure=failure))

    def stopped(self, run_id: str, attempt_id: str) -> None:
        """A cancelled attempt was never begun."""
        self._tell(run_id, commands.ReportResult(attempt_id=attempt_id, state="CANCELLED"))

    def unconfirmed(self, run_id: str, attempt_id: str) -> None:
        """A cancelled attempt may still be alive."""
        self._tell(run_id, commands.ReportUnconfirmed(attempt_id=attempt_id))

    def may_start(self, run_id: str, handler: str) -> bool:
        """A slot is free for a run that waited."""
        entity = self.host.entities.get(run_id)
        if entity is None or entity.closing or entity.state.next_ready(handler) is None:
            return False
        try:
            self.resettle(entity)
        except FailureError as error:
            log.warning("a run cannot go on", run_id=run_id, reason=str(error))
            return False
        return not entity.closing and entity.state.next_ready(handler) is not None

    def progress(self, progress: executor_service_pb2.AttemptProgress) -> None:
        """Progress goes on as it came; a heartbeat's details are kept for the next attempt."""
        if progress.HasField("heartbeat"):
            details = wire.payload_from_proto(progress.heartbeat)
            if details is not None:
                self.dispatcher.note_heartbeat(progress.run_id, progress.step_id, details)
        entity = self.host.entities.get(progress.run_id)
        if self._messaging is None or entity is None or entity.source is None:
            return
        source = entity.source
        batch = event_pb2.EventBatch.FromString(entity.source_bytes)
        event = batch.events.add(step_id=progress.step_id)
        event.time.CopyFrom(progress.time)
        event.progress_reported.CopyFrom(
            event_pb2.ProgressReported(
                attempt_id=progress.attempt_id,
                percent=progress.percent,
                message=progress.message,
                metrics=progress.metrics,
                kind=progress.kind,
            )
        )
        subject = subjects_of(source.tenant, source.swarm_id, source.run_id).progress(progress.step_id)
        self._messaging.publisher.publish_progress(subject, batch)


def _step_of(run: Run, attempt_id: str) -> Step:
    return next(run.steps[step_id] for step_id in run.live if run.steps[step_id].attempt_id == attempt_id)


def _flow_hash(state: Run, first: events.RunEvent | None, command: commands.RunCommand | None) -> str:
    if isinstance(first, events.RunCreated):
        return first.flow_hash
    if isinstance(command, commands.CreateRun):
        return command.flow_hash
    return state.flow_hash


def _give(run: Run, flow: Flow) -> None:
    run.flow = growth.whole(run, flow) if run.grown else flow
    run.environment = {name: os.environ[name] for name in flow.env if name in os.environ}
