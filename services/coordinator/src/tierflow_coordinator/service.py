"""The public API of Tier 1 over gRPC. Handlers check who asks, hand on, and wait; what they started goes on without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc as servicers
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_durable.durable import Durable
from tierflow_durable.ids import uuid7
from tierflow_runtime.errors import failure
from tierflow_runtime.security import Caller, caller_of
from tierflow_runtime.shielding import finished
from tierflow_runtime.values import Failure, FailureError
from tierflow_runtime.wire import SWARM_STATES

from tierflow_coordinator import listing
from tierflow_coordinator.access import Access
from tierflow_coordinator.auditing import Auditing
from tierflow_coordinator.checkpoints import Checkpoints
from tierflow_coordinator.contexts import Contexts
from tierflow_coordinator.core import commands, states
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.dead_letters import DeadLetters
from tierflow_coordinator.engine import Engine
from tierflow_coordinator.facade import Facade
from tierflow_coordinator.queue import Queue
from tierflow_coordinator.schedules.hosting import Schedules
from tierflow_coordinator.schedules.service import ScheduleCalls
from tierflow_coordinator.sessions import Session, check_id
from tierflow_coordinator.sharing import Sharing
from tierflow_coordinator.steering import LONGEST_WAIT, Steering
from tierflow_coordinator.steering_many import SteeringMany
from tierflow_coordinator.submission import Submission, answer_message
from tierflow_coordinator.views import row_message, swarm_message
from tierflow_coordinator.watch import Watches

MOST_AT_ONCE: Final = 1000
QUARANTINED: Final = "QUARANTINED"


class CoordinatorServicer(
    Facade,
    SteeringMany,
    Steering,
    Sharing,
    Checkpoints,
    ScheduleCalls,
    DeadLetters,
    Auditing,
    servicers.CoordinatorServiceServicer,
):
    """Everything that a client needs (B12). What Tier 2 answers is in `Facade`."""

    def __init__(
        self,
        *,
        durable: Durable,
        engine: Engine,
        submission: Submission,
        access: Access,
        watches: Watches,
        queue: Queue,
        contexts: Contexts,
        schedules: Schedules,
        **facade: Any,
    ) -> None:
        super().__init__(access=access, **facade)
        self._durable = durable
        self._engine = engine
        self._submission = submission
        self._watches = watches
        self._queue = queue
        self._contexts = contexts
        self._schedules = schedules
        self._sessions: set[Session] = set()

    def drain(self) -> None:
        """Takes nothing new, and sends the clients of streams elsewhere."""
        self._submission.drain()
        for session in list(self._sessions):
            session.drain()
        self._watches.drain()

    # --- taking swarms ---

    async def SubmitSwarm(self, request: swarm_pb2.SwarmExecutionRequest, context: Any) -> api.SubmitSwarmResponse:
        """See the proto."""
        answer = await self._submitted(request, caller_of(context))
        if isinstance(answer, Failure):
            raise FailureError(answer)
        return answer

    async def SubmitSwarms(self, request: api.SubmitSwarmsRequest, context: Any) -> api.SubmitSwarmsResponse:
        """See the proto."""
        caller = caller_of(context)
        if len(request.requests) > MOST_AT_ONCE:
            raise FailureError(
                failure("INVALID_REQUEST", f"requests: {len(request.requests)} are more than {MOST_AT_ONCE}")
            )
        answers = await asyncio.gather(*(self._submitted(each, caller) for each in request.requests))
        return api.SubmitSwarmsResponse(
            answers=[
                answer_message(answer, each.context.request_id)
                for answer, each in zip(answers, request.requests, strict=True)
            ]
        )

    async def ExecuteSwarms(
        self, request: AsyncIterator[api.ExecuteSwarmsRequest], context: Any
    ) -> AsyncIterator[api.ExecuteSwarmsResponse]:
        """See the proto."""
        session = Session(
            caller_of(context),
            access=self._access,
            submission=self._submission,
            waiting=self._engine.waiting,
            durable=self._durable,
        )
        if self._submission.draining:
            session.drain()
        self._sessions.add(session)
        session.begin(request)
        try:
            while (frame := await session.next()) is not None:
                yield frame
        finally:
            session.end()
            self._sessions.discard(session)

    async def _submitted(
        self, request: swarm_pb2.SwarmExecutionRequest, caller: Caller, *, may_reuse: bool = False
    ) -> api.SubmitSwarmResponse | Failure:
        future: asyncio.Future[api.SubmitSwarmResponse | Failure] = asyncio.get_running_loop().create_future()
        self._submission.submit(request, caller, _resolve(future), may_reuse=may_reuse)
        return await future

    # --- looking ---

    async def GetSwarm(self, request: api.GetSwarmRequest, context: Any) -> api.GetSwarmResponse:
        """See the proto."""
        await self._visible(request.swarm_id, caller_of(context))
        return api.GetSwarmResponse(swarm=await self._shown(request.swarm_id))

    async def ListSwarms(self, request: api.ListSwarmsRequest, context: Any) -> api.ListSwarmsResponse:
        """See the proto."""
        caller = caller_of(context)
        user = self._access.visible_user(caller, request.user_id)
        if request.user_id and user != request.user_id:
            return api.ListSwarmsResponse()  # Whatever another user has is not to be seen.
        page = await self._durable.reader.page(listing.filter_of(request, caller.tenant, user))
        now = self._durable.clock.now()
        return api.ListSwarmsResponse(
            swarms=[row_message(row, now) for row in page.rows], next_page_token=page.next_id or ""
        )

    async def WaitSwarm(self, request: api.WaitSwarmRequest, context: Any) -> api.WaitSwarmResponse:
        """See the proto."""
        timeout = listing.longest_wait(request.timeout) if request.HasField("timeout") else None
        await self._visible(request.swarm_id, caller_of(context))
        swarm = await self._wait(request.swarm_id, timeout)
        return api.WaitSwarmResponse(swarm=swarm, ended=SWARM_STATES.name(swarm.state) in states.ENDED)

    async def _wait(self, swarm_id: str, timeout: float | None) -> swarm_pb2.Swarm:
        """The swarm, once it has ended or the wait is over. Raises FailureError UNAVAILABLE when this instance drains."""
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        listener = _resolve(ended)
        self._engine.waiting.listen(swarm_id, listener)
        try:
            await asyncio.wait({ended, self._watches.draining}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done() and self._watches.draining.done():
                raise FailureError(failure("UNAVAILABLE", "This instance is draining; wait at another."))
        finally:
            self._engine.waiting.leave(swarm_id, listener)
        return await self._shown(swarm_id)

    async def WatchSwarm(self, request: api.WatchSwarmRequest, context: Any) -> AsyncIterator[api.WatchSwarmResponse]:
        """See the proto."""
        await self._visible(request.swarm_id, caller_of(context), hide=False)
        async for message in self._watches.watch(request):
            yield message

    async def ListEvents(self, request: api.ListEventsRequest, context: Any) -> api.ListEventsResponse:
        """See the proto."""
        limit = listing.limit_of("limit", request.limit, default=1000, most=10_000)
        swarm = await self._visible(request.swarm_id, caller_of(context))
        if request.run_id:
            return await self._run_events(request, swarm, limit)
        rows = await self._durable.reader.events(request.swarm_id, request.after_seq, limit + 1)
        batch = event_pb2.EventBatch(source=self._watches.source_of(swarm))
        for row in rows:
            batch.events.extend(
                event for event in event_pb2.EventBatch.FromString(row.data).events if event.seq > request.after_seq
            )
        more = len(batch.events) > limit
        del batch.events[limit:]
        return api.ListEventsResponse(batch=batch, more=more)

    async def GetQueue(self, request: api.GetQueueRequest, context: Any) -> api.GetQueueResponse:
        """See the proto."""
        caller_of(context)
        return await self._queue.show()

    # --- steering ---

    async def PauseSwarm(self, request: api.PauseSwarmRequest, context: Any) -> api.PauseSwarmResponse:
        """See the proto."""
        command = states.INTERRUPT if request.mode == orchestrator.PAUSE_MODE_INTERRUPT else states.PAUSE
        reply = await self._steer(request, command, caller_of(context))
        return api.PauseSwarmResponse(applied=reply.applied, state=SWARM_STATES.number(reply.state))

    async def ResumeSwarm(self, request: api.ResumeSwarmRequest, context: Any) -> api.ResumeSwarmResponse:
        """See the proto."""
        caller = caller_of(context)
        swarm = await self._visible(request.swarm_id, caller, hide=False)
        if swarm.state in (states.STARTING, states.RUNNING) and swarm.run is not None:
            # Nobody has paused the swarm; its run may have paused by itself: at a breakpoint, after a failed step, or to ask what to do.
            # That an orchestrator has taken the run may not be noted yet.
            command = orchestrator.CommandRunRequest(command=orchestrator.RUN_COMMAND_RESUME)
            try:
                done = await self._command(request, command, caller)
            except FailureError as error:
                if error.failure.code != "NOT_FOUND":
                    raise
                done = orchestrator.CommandRunResponse()  # nobody has taken it
            return api.ResumeSwarmResponse(applied=done.applied, state=SWARM_STATES.number(swarm.state))
        reply = await self._steer(request, states.RESUME, caller)
        return api.ResumeSwarmResponse(applied=reply.applied, state=SWARM_STATES.number(reply.state))

    async def CancelSwarm(self, request: api.CancelSwarmRequest, context: Any) -> api.CancelSwarmResponse:
        """See the proto."""
        caller = caller_of(context)
        wait = min(listing.longest_wait(request.wait), LONGEST_WAIT) if request.HasField("wait") else 0.0
        reply = await self._steer(request, states.CANCEL, caller)
        answer = api.CancelSwarmResponse(applied=reply.applied, state=SWARM_STATES.number(reply.state))
        if wait:
            answer.state = (await self._wait(request.swarm_id, wait)).state
            swarm = await self._visible(request.swarm_id, caller)
            if swarm.run_taken and swarm.run is not None:
                answer.receipt.CopyFrom((await self._run(swarm.run.run_id, caller)).stop)
        return answer

    async def StopSwarm(self, request: api.StopSwarmRequest, context: Any) -> api.StopSwarmResponse:
        """See the proto."""
        command = states.TERMINATE if request.mode == api.STOP_MODE_FORCE else states.STOP
        reply = await self._steer(request, command, caller_of(context))
        return api.StopSwarmResponse(applied=reply.applied, state=SWARM_STATES.number(reply.state))

    async def SignalSwarm(self, request: api.SignalSwarmRequest, context: Any) -> api.SignalSwarmResponse:
        """See the proto."""
        caller = caller_of(context)
        listing.check_texts(name=request.name, signal_id=request.signal_id)
        swarm = await self._visible(request.swarm_id, caller, hide=False)
        return await finished(self._signal(request, swarm, caller))

    async def _steer(self, request: Any, command: str, caller: Caller) -> commands.Reply:
        listing.check_texts(reason=request.reason, command_id=request.command_id)
        await self._visible(request.swarm_id, caller, hide=False)
        steer = commands.SteerSwarm(
            command=command,
            command_id=request.command_id or uuid7(),
            actor=caller.user_id,
            reason=request.reason,
        )
        return await finished(self._engine.steer(request.swarm_id, steer))

    # --- shared ---

    async def _visible(self, swarm_id: str, caller: Caller, *, hide: bool = True) -> Swarm:
        """The swarm, if the caller may see it; its state as committed. Raises FailureError."""
        check_id("swarm_id", swarm_id)
        try:
            swarm: Swarm = await self._durable.reader.view(swarm_id, lambda state: state)
        except FailureError as error:
            if error.failure.code == "NOT_FOUND":
                raise FailureError(failure("NOT_FOUND", f"There is no swarm {swarm_id}.")) from error
            raise
        context = swarm.context
        self._access.check(caller, context.tenant, context.user_id, what=f"swarm {swarm_id}", hide=hide)
        return swarm

    async def _shown(self, swarm_id: str) -> swarm_pb2.Swarm:
        entity = self._durable.host.entities.get(swarm_id)
        now = self._durable.clock.now()
        row = None
        if entity is not None and entity.birth is None and not entity.closing:
            seq, owner = entity.seq, self._durable.instance_id
        else:
            row = await self._durable.reader.row(swarm_id)
            seq, owner = (0, "") if row is None else (row.seq, row.owner or "")
        message: swarm_pb2.Swarm = await self._durable.reader.view(
            swarm_id, lambda swarm: swarm_message(swarm, now=now, seq=seq, owner=owner, readable=True)
        )
        if row is not None and row.reason == QUARANTINED:
            # Set aside by the library, which writes the row alone (rule R13).
            message.state = SWARM_STATES.number(row.state)
            message.reason = row.reason
        return message


def _resolve(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    def resolve(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    return resolve
