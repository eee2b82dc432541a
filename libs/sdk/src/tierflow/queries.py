"""What a client can read: swarms, runs, steps, logs, flows, executors, the queue."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import grpc
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.explanation_pb2 import Explanation
from tierflow_contracts.common.v1.flow_pb2 import Flow, FlowCheck
from tierflow_contracts.common.v1.history_pb2 import HistoryCheck
from tierflow_contracts.common.v1.payload_pb2 import BlobRef
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1.swarm_pb2 import Swarm
from tierflow_contracts.events.v1.event_pb2 import EventBatch
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as runs_api
from tierflow_contracts.orchestrator.v1.run_pb2 import Run, Step

from tierflow.calls import Calls
from tierflow.errors import NotFound, TierflowError, call_error, invalid, made
from tierflow.submission import FlowLike, flow_ref, flow_source


class Queries:
    """The reading half of a client. What it returns are the messages of the public contract."""

    _calls: Calls

    async def get(self, swarm_id: str) -> Swarm:
        """One swarm, as it is stored. Raises `NotFound`."""
        response: api.GetSwarmResponse = await self._calls.call("GetSwarm", api.GetSwarmRequest(swarm_id=swarm_id))
        return response.swarm

    def list(
        self,
        *,
        states: Iterable[str] = (),
        flow: str = "",
        labels: Mapping[str, str] | None = None,
        user: str = "",
        trace_id: str = "",
        after: datetime | None = None,
        before: datetime | None = None,
        limit: int | None = 100,
    ) -> AsyncIterator[Swarm]:
        """Swarms that match all that is given, newest first, without input and output; `limit` None gives all. States by name, such as `RUNNING`."""
        request = api.ListSwarmsRequest(
            user_id=user,
            states=[_number(state_pb2.SwarmState, "SWARM_STATE_", name) for name in states],
            flow_name=flow,
            labels=dict(labels or {}),
            trace_id=trace_id,
        )
        _between(request, after, before)
        return self._calls.pages("ListSwarms", request, "swarms", limit)

    async def explain(self, entity_id: str, step_id: str = "") -> Sequence[Explanation]:
        """Why a swarm (itself, then its run), a run, or a step waits. Raises `NotFound`."""
        response: api.ExplainResponse = await self._calls.call(
            "Explain", api.ExplainRequest(id=entity_id, step_id=step_id)
        )
        return response.explanations

    async def verify(self, entity_id: str) -> Sequence[HistoryCheck]:
        """Whether the history of a swarm and of its runs, or that of one run, is as it was written. Raises `NotFound`."""
        try:
            whole: api.VerifySwarmResponse = await self._calls.call(
                "VerifySwarm", api.VerifySwarmRequest(swarm_id=entity_id)
            )
        except NotFound as missing:
            try:
                one: api.VerifyRunResponse = await self._calls.call("VerifyRun", api.VerifyRunRequest(run_id=entity_id))
            except NotFound:
                raise missing from None
            return [one.check]
        return [whole.swarm, *whole.runs]

    async def get_run(self, run_id: str) -> Run:
        """One run, as it is stored. Raises `NotFound`."""
        response: api.GetRunResponse = await self._calls.call("GetRun", api.GetRunRequest(run_id=run_id))
        return response.run

    def runs(
        self,
        *,
        swarm_id: str = "",
        states: Iterable[str] = (),
        flow: str = "",
        labels: Mapping[str, str] | None = None,
        user: str = "",
        trace_id: str = "",
        after: datetime | None = None,
        before: datetime | None = None,
        limit: int | None = 100,
    ) -> AsyncIterator[Run]:
        """Runs that match all that is given, newest first, without input and output; `limit` None gives all."""
        condition = runs_api.ListRunsRequest(
            swarm_id=swarm_id,
            user_id=user,
            states=[_number(state_pb2.RunState, "RUN_STATE_", name) for name in states],
            flow_name=flow,
            labels=dict(labels or {}),
            trace_id=trace_id,
        )
        _between(condition, after, before)
        return self._calls.pages(
            "ListRuns", api.ListRunsRequest(filter=condition), "runs", limit, lambda request: request.filter
        )

    def steps(
        self, run_id: str, step_id: str = "", *, payloads: bool = False, limit: int | None = None
    ) -> AsyncIterator[Step]:
        """Steps of a run in the order in which they became known; all, or one and those below it."""
        request = api.ListStepsRequest(run_id=run_id, step_id=step_id, include_payloads=payloads)
        return self._calls.pages("ListSteps", request, "steps", limit)

    async def logs(self, run_id: str, step_id: str = "") -> tuple[runs_api.AttemptLog, ...]:
        """What the attempts of a run (or of one step) wrote, in order. Raises `NotFound`."""
        response: api.ListLogsResponse = await self._calls.call(
            "ListLogs", api.ListLogsRequest(run_id=run_id, step_id=step_id)
        )
        return tuple(response.attempts)

    async def events(
        self, swarm_id: str, run_id: str = "", *, after_seq: int = 0, limit: int | None = None
    ) -> EventBatch:
        """The history of a swarm, or of one of its runs, from the journal, in order; `limit` None gives all of it."""
        batch = EventBatch()
        while True:
            wanted = 10_000 if limit is None else min(limit - len(batch.events), 10_000)
            request = api.ListEventsRequest(swarm_id=swarm_id, run_id=run_id, after_seq=after_seq, limit=wanted)
            response: api.ListEventsResponse = await self._calls.call("ListEvents", request)
            batch.source.CopyFrom(response.batch.source)
            batch.events.extend(response.batch.events)
            if not response.more or not response.batch.events or len(batch.events) == limit:
                return batch
            after_seq = batch.events[-1].seq

    async def queue(self) -> api.GetQueueResponse:
        """How much is under way in the whole engine."""
        response: api.GetQueueResponse = await self._calls.call("GetQueue", api.GetQueueRequest())
        return response

    async def executors(self) -> tuple[runs_api.ConnectedExecutor, ...]:
        """The executors that are connected, with their handlers and slots."""
        response: api.ListExecutorsResponse = await self._calls.call("ListExecutors", api.ListExecutorsRequest())
        return tuple(response.executors)

    def flows(self, name: str = "", *, limit: int | None = 100) -> AsyncIterator[Flow]:
        """Registered flows, all or those of one name, without definitions."""
        return self._calls.pages("ListFlows", api.ListFlowsRequest(name=name), "flows", limit)

    async def get_flow(self, flow: FlowLike) -> Flow:
        """One flow with its definition. Raises `NotFound`."""
        response: api.GetFlowResponse = await self._calls.call("GetFlow", api.GetFlowRequest(flow=flow_ref(flow)))
        return response.flow

    async def check_flow(self, flow: FlowLike) -> FlowCheck:
        """Everything that is wrong with a flow, and the handlers that nobody offers now; stores nothing."""
        response: api.CheckFlowResponse = await self._calls.call("CheckFlow", api.CheckFlowRequest(flow=flow_ref(flow)))
        return response.check

    async def register_flow(self, flow: FlowLike) -> tuple[Flow, bool]:
        """Stores a flow and returns it, and whether it is new. Raises `InvalidRequest` with all problems, `Conflict` for other content under its version."""
        response: api.RegisterFlowResponse = await self._calls.call(
            "RegisterFlow", api.RegisterFlowRequest(source=flow_source(flow))
        )
        return response.flow, response.created

    async def read_blob(self, ref: BlobRef) -> bytes:
        """A large value by its reference, checked against it. Raises `NotFound`."""
        calls = self._calls
        try:
            stream = calls.stub.ReadBlob(
                api.ReadBlobRequest(sha256=ref.sha256), metadata=calls.metadata(), timeout=calls.timeout
            )
            content = b"".join([part.chunk async for part in stream])
        except grpc.aio.AioRpcError as broken:
            raise call_error(broken, calls.address) from broken
        if hashlib.sha256(content).hexdigest() != ref.sha256:
            raise TierflowError(
                made(
                    "INTERNAL",
                    f"The stored value {ref.sha256} came with other content; read it again, and report it if that lasts.",
                )
            )
        return content


def _number(enum: type[state_pb2.SwarmState] | type[state_pb2.RunState], prefix: str, name: str) -> Any:
    """Number of a state given by its short name, in any case."""
    try:
        return enum.Value(prefix + name.upper().removeprefix(prefix))
    except ValueError:
        known = ", ".join(known.removeprefix(prefix) for known, _ in enum.items() if not known.endswith("UNSPECIFIED"))
        raise invalid("states", f"{name!r} is no state; there are {known}") from None


def _between(
    request: api.ListSwarmsRequest | runs_api.ListRunsRequest, after: datetime | None, before: datetime | None
) -> None:
    if after is not None:
        request.created_after.FromDatetime(after)
    if before is not None:
        request.created_before.FromDatetime(before)
