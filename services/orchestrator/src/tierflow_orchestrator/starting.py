"""Taking runs, whichever call brings them. Everything is checked before anything is stored (A5); answers come by callback after the commit.

Runs under way go first: new ones are taken as far as those leave room (`tierflow_durable.intake`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.durable import Durable
from tierflow_durable.entity import Created
from tierflow_durable.intake import ROOM, Intake
from tierflow_durable.retention import DAY
from tierflow_flow import Flow
from tierflow_runtime import wire
from tierflow_runtime.contract import check_run_request, refusal
from tierflow_runtime.contract_basics import check_uuid
from tierflow_runtime.errors import failure
from tierflow_runtime.filling import fill_time
from tierflow_runtime.values import Failure, FailureError, Micros, Violation

from tierflow_orchestrator.checks import out_of_time, violated
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.flows import Flows
from tierflow_orchestrator.nesting import nested_wrongly
from tierflow_orchestrator.prerequisites import Prerequisites
from tierflow_orchestrator.reusing import reused_steps
from tierflow_orchestrator.settings import OrchestratorSettings
from tierflow_orchestrator.tombstones import REFUSAL, is_buried
from tierflow_orchestrator.wire_steering import reuse_in

Answer: TypeAlias = Callable[[pb.StartRunResponse | FailureError], None]

Waiting: TypeAlias = tuple[run_pb2.RunExecutionRequest, Answer]

COME_BACK = 1_000_000
"""Microseconds after which a coordinator may ask again, where there was no room."""


class Starting:
    """The way of a request into the journal."""

    def __init__(
        self,
        durable: Durable,
        flows: Flows,
        dispatcher: Dispatcher,
        settings: OrchestratorSettings,
        prerequisites: Prerequisites,
    ) -> None:
        self._prerequisites = prerequisites
        self._durable = durable
        self._flows = flows
        self._dispatcher = dispatcher
        self._most_runs = settings.most_runs
        self._most_commits = settings.most_commits_waiting
        self.keep: Micros = settings.keep_days * DAY
        self._draining = False
        # Coordinators ask for no more than can be taken soon, and who is in memory here was let in: those who wait are not refused for their number.
        self._intake: Intake[Waiting] = Intake(take=self._waited, room=self._room, least=settings.most_commits_waiting)
        durable.host.writer.gathered = self._intake.nudge

    @property
    def draining(self) -> bool:
        """Whether no new runs are taken."""
        return self._draining

    def drain(self) -> None:
        """Takes no new runs; those who wait are told to ask another orchestrator."""
        self._draining = True
        self._intake.flush()

    def _room(self) -> bool:
        return self._durable.host.writer.backlog < ROOM

    def offer(self, request: run_pb2.RunExecutionRequest, answer: Answer) -> None:
        """Takes a run of somebody else's once there is room, or attaches to it; `answer` hears after the commit."""
        if self._intake.open or self._draining:
            self.start(request, answer)
        elif seconds := self._intake.wait((request, answer), request.ByteSize()):
            answer(FailureError(_full(f"{len(self._intake)} runs wait to be taken here", int(seconds * 1_000_000))))

    def _waited(self, waiting: Waiting, seconds: float) -> None:
        request, answer = waiting
        if request.context.HasField("time_remaining"):
            # It counts from the receipt (rule R17).
            remaining = request.context.time_remaining
            fill_time(remaining, max(0, wire.micros(remaining) - int(seconds * 1_000_000)))
        self.start(request, answer)

    def start(self, request: run_pb2.RunExecutionRequest, answer: Answer) -> None:
        """Takes a run, or attaches to it, now; `answer` hears after the commit."""
        now = self._durable.clock.now()
        answer = self._unless_known(request.context.run_id, answer)
        violations = check_run_request(request, now)
        if not violations:
            violations = out_of_time("context.run_id", request.context.run_id, now, self.keep)
        if violations:
            answer(FailureError(refusal(violations, component="orchestrator", operation="start_run")))
            return
        if refused := self._refusal():
            answer(FailureError(refused))
            return
        flow = self._flows.cached(request.input.flow.hash) if request.input.flow.hash else None
        if flow is None or (request.input.HasField("reuse") and request.input.reuse.step_ids):
            self._durable.host.spawn(self._find_and_start(request, answer))
            return
        self._create(request, flow, answer)

    def _unless_known(self, run_id: str, answer: Answer) -> Answer:
        """What would refuse a new run (a handler that is gone, a deadline that has passed) does not refuse one that exists: a coordinator attaches to it."""
        unsound: list[Violation] = []
        check_uuid("context.run_id", run_id, unsound, required=True)

        async def look(refused: FailureError) -> None:
            try:
                row = await self._durable.reader.row(run_id)
                buried = row is not None and await is_buried(self._durable, run_id, row.state)
            except FailureError as error:
                answer(error)
                return
            if row is None:
                answer(refused)
            elif buried:
                answer(FailureError(REFUSAL))
            else:
                answer(pb.StartRunResponse(run_id=run_id, state=wire.RUN_STATES.number(row.state), created=False))

        def answered(result: pb.StartRunResponse | FailureError) -> None:
            if isinstance(result, FailureError) and not unsound:
                self._durable.host.spawn(look(result))
            else:
                answer(result)

        return answered

    def _refusal(self) -> Failure | None:
        if self._draining or not self._durable.ready:
            return failure(
                "UNAVAILABLE",
                "this orchestrator takes no runs now; ask another",
                component="orchestrator",
                operation="start_run",
            )
        if why := self._full():
            return _full(why, COME_BACK)
        return None

    def _full(self) -> str:
        """Why no new run is taken now; empty where one is (J10)."""
        if len(self._durable.host.entities) >= self._most_runs:
            return f"{self._most_runs} runs are under way here"
        backlog = self._durable.host.writer.backlog
        return f"{backlog} runs wait for the database here" if backlog >= self._most_commits else ""

    async def _find_and_start(self, request: run_pb2.RunExecutionRequest, answer: Answer) -> None:
        try:
            flow = await self._flows.find(request.context.tenant, request.input.flow)
            if request.input.flow.HasField("source"):
                await self._require(request, flow)
                await self._flows.store(flow)
            reused: tuple[commands.ReusedStep, ...] = ()
            if request.input.reuse.step_ids:
                if flow.program is not None:
                    raise violated("input.reuse", "is not for documents that are walked task by task", "start_run")
                reused = await reused_steps(self._durable, request.input.reuse, request.context.tenant, flow)
            self._create(request, flow, answer, reused)
        except FailureError as error:
            answer(error)

    async def _require(self, request: run_pb2.RunExecutionRequest, flow: Flow) -> None:
        """Waits for executors that are just coming, then refuses with everything that is missing (L7)."""
        await self._dispatcher.missing_after_meeting(flow.handlers)
        context = wire.context_from_proto(request.context, self._durable.clock.now())
        refused = self._prerequisites.refusal(flow, context, wire.allocation_from_proto(request.allocation))
        if refused is not None:
            raise FailureError(refused)

    async def _meet_and_create(
        self,
        request: run_pb2.RunExecutionRequest,
        flow: Flow,
        answer: Answer,
        reused: tuple[commands.ReusedStep, ...],
    ) -> None:
        try:
            await self._require(request, flow)
            self._create(request, flow, answer, reused)
        except FailureError as error:
            answer(error)

    def _create(
        self,
        request: run_pb2.RunExecutionRequest,
        flow: Flow,
        answer: Answer,
        reused: tuple[commands.ReusedStep, ...] = (),
    ) -> None:
        now = self._durable.clock.now()
        context = wire.context_from_proto(request.context, now)
        allocation = wire.allocation_from_proto(request.allocation)
        if context.attempt_id and (nested := nested_wrongly(flow, context)):
            answer(FailureError(nested))
            return
        if self._prerequisites.refusal(flow, context, allocation) is not None:
            self._durable.host.spawn(self._meet_and_create(request, flow, answer, reused))
            return
        command = commands.CreateRun(
            context=context,
            flow_hash=flow.hash,
            flow_name=flow.name,
            flow_version=flow.version,
            input=wire.payload_from_proto(request.input.input) if request.input.HasField("input") else None,
            allocation=allocation,
            options=wire.options_from_proto(request.options),
            reuse=reuse_in(request.input),
            reused=reused,
        )
        run_id = context.run_id

        def done(result: Created | FailureError) -> None:
            if isinstance(result, FailureError):
                answer(result)
                return
            entity = self._durable.host.entities.get(run_id)
            if not result.created and (entity is None or entity.state.buried):
                answer(FailureError(REFUSAL))  # unless its row says otherwise, see `_unless_known`
                return
            state = entity.state.state if entity is not None else ""
            answer(pb.StartRunResponse(run_id=run_id, state=wire.RUN_STATES.number(state), created=result.created))

        self._durable.host.create_now(run_id, command, None, done)


def _full(why: str, come_back: Micros) -> Failure:
    return failure("QUEUE_FULL", why, component="orchestrator", operation="start_run", retry_after=come_back)
