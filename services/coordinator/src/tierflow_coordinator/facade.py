"""What clients ask of Tier 1 and Tier 2 answers: runs, steps, logs, executors, flows, large values. Handed on, and scoped to the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as stubs
from tierflow_runtime.errors import failure, failure_of
from tierflow_runtime.security import TENANT_KEY, USER_KEY, Caller, caller_of
from tierflow_runtime.values import BlobRef, FailureError

from tierflow_coordinator.access import Access
from tierflow_coordinator.approvals import Approvals
from tierflow_coordinator.core.swarm import Swarm
from tierflow_coordinator.explaining import Explaining
from tierflow_coordinator.flows import Flows
from tierflow_coordinator.histories import Histories
from tierflow_coordinator.orchestrators import Orchestrators
from tierflow_coordinator.sessions import check_id

CALL_TIMEOUT: Final = 10.0
LARGEST_INPUT: Final = 16 * 1024 * 1024
"""Bytes of the largest stored value that may be a swarm's input: it is read to be checked."""


class Facade(Explaining, Histories, Approvals):
    """The reads of the public API that any connected orchestrator answers. With none connected they fail UNAVAILABLE."""

    def __init__(self, *, access: Access, orchestrators: Orchestrators, flows: Flows) -> None:
        self._access = access
        self._orchestrators = orchestrators
        self._flows = flows

    # --- runs ---

    async def GetRun(self, request: api.GetRunRequest, context: Any) -> api.GetRunResponse:
        """See the proto."""
        return api.GetRunResponse(run=await self._run(request.run_id, caller_of(context)))

    async def ListRuns(self, request: api.ListRunsRequest, context: Any) -> api.ListRunsResponse:
        """See the proto."""
        caller = caller_of(context)
        wanted = orchestrator.ListRunsRequest()
        wanted.CopyFrom(request.filter)
        user = self._access.visible_user(caller, wanted.user_id)
        if wanted.user_id and user != wanted.user_id:
            return api.ListRunsResponse()
        wanted.tenant = caller.tenant
        wanted.user_id = user or ""
        found = await (await self._runs_stub()).ListRuns(wanted, **_call(caller))
        return api.ListRunsResponse(runs=found.runs, next_page_token=found.next_page_token)

    async def ListSteps(self, request: api.ListStepsRequest, context: Any) -> api.ListStepsResponse:
        """See the proto."""
        caller = caller_of(context)
        await self._run(request.run_id, caller)
        found = await (await self._runs_stub()).ListSteps(
            orchestrator.ListStepsRequest(
                run_id=request.run_id,
                step_id=request.step_id,
                page_size=request.page_size,
                page_token=request.page_token,
                include_payloads=request.include_payloads,
            ),
            **_call(caller),
        )
        return api.ListStepsResponse(steps=found.steps, next_page_token=found.next_page_token)

    async def ListLogs(self, request: api.ListLogsRequest, context: Any) -> api.ListLogsResponse:
        """See the proto."""
        caller = caller_of(context)
        await self._run(request.run_id, caller)
        found = await (await self._runs_stub()).ListLogs(
            orchestrator.ListLogsRequest(run_id=request.run_id, step_id=request.step_id), **_call(caller)
        )
        return api.ListLogsResponse(attempts=found.attempts)

    async def ListExecutors(self, request: api.ListExecutorsRequest, context: Any) -> api.ListExecutorsResponse:
        """See the proto."""
        caller = caller_of(context)
        found = await (await self._runs_stub()).ListExecutors(orchestrator.ListExecutorsRequest(), **_call(caller))
        return api.ListExecutorsResponse(executors=found.executors)

    async def run_queue(self) -> orchestrator.GetRunQueueResponse:
        """How many runs are under way. Raises FailureError."""
        try:
            counted: orchestrator.GetRunQueueResponse = await (await self._runs_stub()).GetRunQueue(
                orchestrator.GetRunQueueRequest(), timeout=CALL_TIMEOUT
            )
        except grpc.RpcError as error:
            raise FailureError(failure_of(error)) from error
        return counted

    async def _run(self, run_id: str, caller: Caller) -> Any:
        """A run, if the caller may see it."""
        check_id("run_id", run_id)
        found = await (await self._runs_stub()).GetRun(orchestrator.GetRunRequest(run_id=run_id), **_call(caller))
        owner = found.run.context
        self._access.check(caller, owner.tenant, owner.user_id, what=f"run {run_id}")
        return found.run

    async def _run_events(self, request: api.ListEventsRequest, swarm: Swarm, limit: int) -> api.ListEventsResponse:
        if request.run_id not in swarm.run_ids:
            raise FailureError(
                failure(
                    "NOT_FOUND", f"Swarm {swarm.swarm_id} has no run {request.run_id[:60]}.", operation="ListEvents"
                )
            )
        found = await (await self._runs_stub()).ListRunEvents(
            orchestrator.ListRunEventsRequest(run_id=request.run_id, after_seq=request.after_seq, limit=limit),
            timeout=CALL_TIMEOUT,
        )
        return api.ListEventsResponse(batch=found.batch, more=found.more)

    async def _signal(self, request: api.SignalSwarmRequest, swarm: Swarm, caller: Caller) -> api.SignalSwarmResponse:
        """Hands a signal to the swarm's run. One that Tier 2 does not know yet is going to be there: the caller may try again."""
        if swarm.run is None:
            raise FailureError(failure("NOT_FOUND", f"Swarm {swarm.swarm_id} has no run.", operation="SignalSwarm"))
        message = orchestrator.SignalRunRequest(
            run_id=swarm.run.run_id, name=request.name, signal_id=request.signal_id, actor=caller.user_id
        )
        if request.HasField("payload"):
            message.payload.CopyFrom(request.payload)
        try:
            done = await (await self._runs_stub()).SignalRun(message, **_call(caller))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                text = "The run has not been taken by an orchestrator yet; try again."
                raise FailureError(failure("UNAVAILABLE", text, operation="SignalSwarm")) from error
            raise
        return api.SignalSwarmResponse(applied=done.applied, state=done.state, signal_id=done.signal_id)

    # --- flows ---

    async def RegisterFlow(self, request: api.RegisterFlowRequest, context: Any) -> api.RegisterFlowResponse:
        """See the proto."""
        caller = caller_of(context)
        stored = await (await self._flows_stub()).RegisterFlow(
            orchestrator.RegisterFlowRequest(source=request.source), **_call(caller)
        )
        self._flows.forget_newest(stored.flow.name, caller.tenant)
        return api.RegisterFlowResponse(flow=stored.flow, created=stored.created)

    async def CheckFlow(self, request: api.CheckFlowRequest, context: Any) -> api.CheckFlowResponse:
        """See the proto."""
        caller = caller_of(context)
        wanted = orchestrator.CheckFlowRequest(flow=request.flow)
        wanted.context.tenant, wanted.context.user_id = caller.tenant, caller.user_id
        wanted.context.roles.extend(caller.roles)
        found = await (await self._flows_stub()).CheckFlow(wanted, **_call(caller))
        return api.CheckFlowResponse(check=found.check)

    async def GetFlow(self, request: api.GetFlowRequest, context: Any) -> api.GetFlowResponse:
        """See the proto."""
        found = await (await self._flows_stub()).GetFlow(
            orchestrator.GetFlowRequest(flow=request.flow), **_call(caller_of(context))
        )
        return api.GetFlowResponse(flow=found.flow)

    async def ListFlows(self, request: api.ListFlowsRequest, context: Any) -> api.ListFlowsResponse:
        """See the proto."""
        found = await (await self._flows_stub()).ListFlows(
            orchestrator.ListFlowsRequest(
                name=request.name, page_size=request.page_size, page_token=request.page_token
            ),
            **_call(caller_of(context)),
        )
        return api.ListFlowsResponse(flows=found.flows, next_page_token=found.next_page_token)

    # --- large values ---

    async def ReadBlob(self, request: api.ReadBlobRequest, context: Any) -> AsyncIterator[api.ReadBlobResponse]:
        """See the proto."""
        caller = caller_of(context)
        stub = stubs.BlobServiceStub(await self._orchestrators.channel())
        async for part in stub.GetBlob(orchestrator.GetBlobRequest(sha256=request.sha256), metadata=_metadata(caller)):
            yield api.ReadBlobResponse(chunk=part.chunk)

    def _call(self, caller: Caller) -> dict[str, Any]:
        return _call(caller)

    async def _runs_stub(self) -> Any:
        return stubs.OrchestratorServiceStub(await self._orchestrators.channel())

    async def _flows_stub(self) -> Any:
        return stubs.FlowServiceStub(await self._orchestrators.channel())


async def read_blob(orchestrators: Orchestrators, ref: BlobRef) -> bytes:
    """A stored value, whole, to be checked as an input.

    Raises:
        FailureError: NOT_FOUND, PAYLOAD_TOO_LARGE, UNAVAILABLE.
    """
    if ref.size > LARGEST_INPUT:
        raise FailureError(
            failure("PAYLOAD_TOO_LARGE", f"An input has at most {LARGEST_INPUT} bytes; this one has {ref.size}.")
        )
    stub = stubs.BlobServiceStub(await orchestrators.channel())
    parts: list[bytes] = []
    size = 0
    try:
        async for part in stub.GetBlob(orchestrator.GetBlobRequest(sha256=ref.sha256), timeout=CALL_TIMEOUT):
            parts.append(part.chunk)
            size += len(part.chunk)
            if size > LARGEST_INPUT:
                raise FailureError(failure("PAYLOAD_TOO_LARGE", f"An input has at most {LARGEST_INPUT} bytes."))
    except grpc.RpcError as error:
        raise FailureError(failure_of(error)) from error
    return b"".join(parts)


def _metadata(caller: Caller) -> Sequence[tuple[str, str]]:
    return ((TENANT_KEY, caller.tenant), (USER_KEY, caller.user_id))


def _call(caller: Caller) -> dict[str, Any]:
    return {"timeout": CALL_TIMEOUT, "metadata": grpc.aio.Metadata(*_metadata(caller))}
