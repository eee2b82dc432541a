"""The RPCs of Tier 2. Handlers check, hand on and wait; a caller that goes away stops nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
from tierflow_contracts.common.v1 import flow_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as rpc
from tierflow_contracts.orchestrator.v1 import run_pb2
from tierflow_durable.counting import Counts
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_durable.reading import Idle
from tierflow_flow import Flow
from tierflow_runtime import wire
from tierflow_runtime.errors import failure
from tierflow_runtime.security import caller_of
from tierflow_runtime.values import FailureError

from tierflow_orchestrator import views
from tierflow_orchestrator.asking import Asking
from tierflow_orchestrator.checkpoints import Checkpointing
from tierflow_orchestrator.checks import (
    list_filter,
    longest_wait,
    page_size,
    place,
    schema_json,
    shown_link,
    sound_circumstances,
    sound_ref,
    sound_texts,
    valid_id,
    violated,
)
from tierflow_orchestrator.commanding import answer_of, command_of
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.dead_letters import DeadLetters
from tierflow_orchestrator.dispatcher import Dispatcher
from tierflow_orchestrator.explaining import Explaining
from tierflow_orchestrator.flows import Flows, flow_to_proto
from tierflow_orchestrator.nesting import look_into
from tierflow_orchestrator.prerequisites import Prerequisites, refusal_of, shown
from tierflow_orchestrator.sessions import Sessions
from tierflow_orchestrator.starting import Starting
from tierflow_orchestrator.tombstones import bury, check_burial

SERVICE = "tierflow.orchestrator.v1.OrchestratorService"
FLOW_SERVICE = "tierflow.orchestrator.v1.FlowService"
T = TypeVar("T")


class OrchestratorService(Explaining, Asking, Checkpointing, DeadLetters, rpc.OrchestratorServiceServicer):
    """See proto/tierflow/orchestrator/v1/orchestrator_service.proto."""

    def __init__(
        self, durable: Durable, starting: Starting, dispatcher: Dispatcher, sessions: Sessions, flows: Flows
    ) -> None:
        self._flows = flows
        self._durable = durable
        self._starting = starting
        self._dispatcher = dispatcher
        self._sessions = sessions
        self._counts = Counts(durable.reader.count_states)
        sessions.start = starting.offer
        sessions.command = self.command

    # --- starting and steering ---

    async def command(self, request: pb.CommandRunRequest) -> pb.CommandRunResponse:
        """Brings a command to its run, wherever that is. Raises FailureError."""
        valid_id("run_id", request.run_id)
        sound_texts(command_id=request.command_id, reason=request.reason, actor=request.actor)
        command_id = request.command_id or uuid7()
        command = await command_of(request, command_id, self._flow_of)
        answer = answer_of(request.run_id, command_id, await self._bring(request, command, command_id))
        if isinstance(command, commands.Retry) and answer.applied:
            # It goes on: who looked after its dead letter need not any more.
            await self._durable.dead_letters.resolve_of(
                request.run_id, answer.generation, actor=request.actor, reason=request.reason
            )
        return answer

    async def _flow_of(self, request: pb.CommandRunRequest) -> Flow:
        """The flow that a command names, stored. Raises FailureError."""
        row = await self._durable.reader.row(request.run_id)
        if row is None:
            raise self._durable.reader.not_found(request.run_id)
        flow = await self._flows.find(row.tenant, sound_ref(request.flow))
        if not request.validate_only:
            await self._flows.store(flow)
        return flow

    async def _bring(self, request: pb.CommandRunRequest, command: commands.RunCommand, command_id: str) -> Any:
        """The reply of the run, or of the tombstone that a cancel leaves where its run has not come yet (rule R29)."""
        if not isinstance(command, commands.Cancel) or not request.HasField("context"):
            return await self._durable.router.command(request.run_id, command, command_id)
        check_burial(request)
        try:
            return await self._durable.router.command(request.run_id, command, command_id)
        except FailureError as error:
            if error.failure.code != "NOT_FOUND":
                raise
        reply = await bury(self._durable, request, command, keep=self._starting.keep)
        return reply or await self._durable.router.command(request.run_id, command, command_id)

    async def ExecuteRuns(
        self, request_iterator: AsyncIterator[pb.ExecuteRunsRequest], context: Any
    ) -> AsyncIterator[pb.ExecuteRunsResponse]:
        """See the proto."""
        async for first in request_iterator:
            if not first.HasField("hello"):
                raise violated("hello", "the first frame needs it", "execute_runs")
            break
        else:
            return
        if self._starting.draining:
            raise FailureError(
                failure(
                    "UNAVAILABLE",
                    "this orchestrator is draining; ask another",
                    component="orchestrator",
                    operation="execute_runs",
                )
            )
        session = self._sessions.connect(_chain(first, request_iterator), first.hello)
        try:
            async for frame in session.frames:
                yield pb.ExecuteRunsResponse(**frame)
            if session.refusal is not None:
                raise session.refusal
        finally:
            self._sessions.disconnect(session)

    async def StartRun(self, request: run_pb2.RunExecutionRequest, context: Any) -> pb.StartRunResponse:
        """See the proto."""
        return await self._durable.host.answered(lambda answer: self._starting.offer(request, answer))

    async def CommandRun(self, request: pb.CommandRunRequest, context: Any) -> pb.CommandRunResponse:
        """See the proto."""
        return await self.command(request)

    # --- reading ---

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        """See the proto."""
        return pb.GetRunResponse(run=await self._show(request.run_id))

    async def _show(self, run_id: str) -> run_pb2.Run:
        valid_id("run_id", run_id)
        row = await self._durable.reader.row(run_id)
        entity = self._durable.host.entities.get(run_id)
        owner = self._durable.instance_id if entity is not None else (row.owner or "") if row is not None else ""
        run = await self._durable.reader.view(run_id, views.shown(self._durable.clock.now(), owner=owner))
        run.seq = entity.committed_seq if entity is not None else max(row.seq if row is not None else 0, run.seq)
        if row is not None and row.reason == "QUARANTINED":
            run.state, run.reason = wire.RUN_STATES.number(row.state), row.reason
        return run

    async def WaitRun(
        self, request: pb.WaitRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.WaitRunResponse:
        """See the proto."""
        valid_id("run_id", request.run_id)
        timeout = longest_wait(request.timeout) if request.HasField("timeout") else None
        ended = await self._durable.reader.wait_ended(request.run_id, timeout)
        return pb.WaitRunResponse(run=await self._show(request.run_id), ended=ended)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        """See the proto."""
        wanted = list_filter(request, request.tenant or caller_of(context).tenant)
        page = await self._durable.reader.page(wanted)
        now = self._durable.clock.now()
        return pb.ListRunsResponse(
            runs=[views.listed(row, now) for row in page.rows], next_page_token=page.next_id or ""
        )

    async def ListSteps(self, request: pb.ListStepsRequest, context: Any) -> pb.ListStepsResponse:
        """See the proto."""
        valid_id("run_id", request.run_id)
        look = views.steps_page(
            request.step_id,
            place(request.page_token),
            page_size(request.page_size, 1000),
            self._durable.clock.now(),
            payloads=request.include_payloads,
        )
        steps, following = await self._durable.reader.view(request.run_id, look)
        return pb.ListStepsResponse(steps=steps, next_page_token=str(following) if following else "")

    async def ListLogs(self, request: pb.ListLogsRequest, context: Any) -> pb.ListLogsResponse:
        """See the proto."""
        valid_id("run_id", request.run_id)
        await self._need_run(request.run_id)
        logs: list[pb.AttemptLog] = []
        after = 0
        while rows := await self._durable.reader.events(request.run_id, after, 500):
            for row in rows:
                logs += views.logs_of(event_pb2.EventBatch.FromString(row.data).events, request.step_id)
            after = rows[-1].seq
        return pb.ListLogsResponse(attempts=logs)

    async def _need_run(self, run_id: str) -> None:
        if await self._durable.reader.row(run_id) is None:
            raise self._durable.reader.not_found(run_id)

    async def ListRunEvents(self, request: pb.ListRunEventsRequest, context: Any) -> pb.ListRunEventsResponse:
        """See the proto."""
        valid_id("run_id", request.run_id)
        await self._need_run(request.run_id)
        limit = page_size(request.limit, 1000, most=10_000, field="limit")
        batch = event_pb2.EventBatch(source=await self._source(request.run_id))
        more = False
        rows = await self._durable.reader.events(request.run_id, request.after_seq, limit + 1)
        for row in rows:
            for event in event_pb2.EventBatch.FromString(row.data).events:
                if event.seq > request.after_seq:
                    if len(batch.events) >= limit:
                        more = True
                        break
                    batch.events.append(event)
        return pb.ListRunEventsResponse(batch=batch, more=more)

    async def _source(self, run_id: str) -> event_pb2.EventSource:
        row = await self._durable.reader.row(run_id)
        if row is None:
            raise self._durable.reader.not_found(run_id)
        return event_pb2.EventSource(
            kind="run", entity_id=run_id, tenant=row.tenant, user_id=row.user_id, swarm_id=row.parent_id or "", run_id=run_id, trace_id=row.trace_id,
            correlation_id=row.correlation_id,
        )  # fmt: skip

    async def WatchRun(self, request: pb.WatchRunRequest, context: Any) -> AsyncIterator[pb.WatchRunResponse]:
        """See the proto."""
        valid_id("run_id", request.run_id)
        await self._need_run(request.run_id)
        source = await self._source(request.run_id)
        yield pb.WatchRunResponse(ready_after_seq=request.after_seq)
        async for row in self._durable.reader.watch(request.run_id, request.after_seq):
            if isinstance(row, Idle):
                yield pb.WatchRunResponse(idle_at_seq=row.seq)
                continue
            batch = event_pb2.EventBatch.FromString(row.data)
            if row.first_seq <= request.after_seq:
                kept = [event for event in batch.events if event.seq > request.after_seq]
                del batch.events[:]
                batch.events.extend(kept)
            batch.source.CopyFrom(source)
            yield pb.WatchRunResponse(batch=batch)

    async def GetRunQueue(self, request: pb.GetRunQueueRequest, context: Any) -> pb.GetRunQueueResponse:
        """See the proto."""
        counts = await self._counts.get()
        links = self._dispatcher.links()
        return pb.GetRunQueueResponse(
            runs=[
                pb.RunStateCount(state=wire.RUN_STATES.number(state), count=count)
                for state, count in sorted(counts.items())
            ],
            waiting_steps=self._dispatcher.slots.waiting_counts(),
            attempts=len(self._dispatcher.flights),
            slots=sum(link.slots for link in links if link.connected),
            time=wire.timestamp(self._durable.clock.now()),
        )

    async def ListExecutors(self, request: pb.ListExecutorsRequest, context: Any) -> pb.ListExecutorsResponse:
        """See the proto."""
        return pb.ListExecutorsResponse(executors=[shown_link(link) for link in self._dispatcher.links()])


class FlowService(rpc.FlowServiceServicer):
    """See the proto."""

    def __init__(self, flows: Flows, dispatcher: Dispatcher, prerequisites: Prerequisites) -> None:
        self._flows = flows
        self._dispatcher = dispatcher
        self._prerequisites = prerequisites

    async def RegisterFlow(self, request: pb.RegisterFlowRequest, context: Any) -> pb.RegisterFlowResponse:
        """See the proto."""
        await self._refuse_circles(request.source, caller_of(context).tenant)
        flow, created = await self._flows.register(
            caller_of(context).tenant, request.source, anonymous=request.anonymous
        )
        return pb.RegisterFlowResponse(flow=flow_to_proto(flow), created=created)

    async def _refuse_circles(self, source: flow_pb2.FlowSource, tenant: str) -> None:
        """A flow that would run within itself is not registered (E12). One whose inner flows are not there yet is. Raises FailureError FLOW_INVALID."""
        flow = await self._flows.compile(source)
        if flow.subflows:
            wrong = [each for each in await look_into(flow, self._flows, tenant) if each.code == "FLOW_INVALID"]
            if refused := refusal_of(wrong):
                raise FailureError(refused)

    async def CheckFlow(self, request: pb.CheckFlowRequest, context: Any) -> pb.CheckFlowResponse:
        """See the proto."""
        try:
            flow = await self._flows.find(caller_of(context).tenant, sound_ref(request.flow))
        except FailureError as error:
            if error.failure.code != "FLOW_INVALID":
                raise
            problems = [wire.violation_to_proto(violation) for violation in error.failure.violations]
            return pb.CheckFlowResponse(check=flow_pb2.FlowCheck(problems=problems))
        missing = await self._dispatcher.missing_after_meeting(flow.handlers)
        schema = schema_json(flow.input_schema)
        circumstances = sound_circumstances(request, caller_of(context))
        unmet = self._prerequisites.unmet(flow, *circumstances)
        if flow.subflows:
            unmet += await look_into(flow, self._flows, circumstances[0].tenant)
        check = flow_pb2.FlowCheck(flow=flow_to_proto(flow), missing_handlers=missing, unmet=shown(unmet))
        return pb.CheckFlowResponse(check=check, input_schema_json=schema)

    async def GetFlow(self, request: pb.GetFlowRequest, context: Any) -> pb.GetFlowResponse:
        """See the proto."""
        flow = await self._flows.find(caller_of(context).tenant, sound_ref(request.flow))
        return pb.GetFlowResponse(flow=flow_to_proto(flow))

    async def ListFlows(self, request: pb.ListFlowsRequest, context: Any) -> pb.ListFlowsResponse:
        """See the proto."""
        sound_texts(name=request.name, page_token=request.page_token)
        flows, token = await self._flows.list(
            caller_of(context).tenant, request.name, page_size(request.page_size, 100), request.page_token
        )
        return pb.ListFlowsResponse(flows=flows, next_page_token=token)


async def _chain(first: T, rest: AsyncIterator[T]) -> AsyncIterator[T]:
    """`first`, then the rest."""
    yield first
    async for item in rest:
        yield item
