"""A scripted Tier 2 on a real gRPC port: for tests of the coordinator, which need answers, refusals and broken streams to order.

It keeps runs in memory and echoes their input as output. Like Tier 2 it repeats results until they are acknowledged, leaves a tombstone for a cancel of what it does
not know, and answers a command twice with the same state. It is no stand-in for the engine of Tier 2.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tierflow_contracts.common.v1 import blackboard_pb2, failure_pb2, flow_pb2, state_pb2
from tierflow_contracts.common.v1.execution_pb2 import Usage
from tierflow_contracts.events.v1 import event_pb2
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2_grpc as servicers
from tierflow_contracts.orchestrator.v1.run_pb2 import Run, RunExecutionRequest, RunExecutionResult, Step

_ENDED = (state_pb2.RUN_STATE_COMPLETED, state_pb2.RUN_STATE_FAILED, state_pb2.RUN_STATE_CANCELLED)


class FakeRun:
    """A run that was accepted: what was asked, where it is, what became of it."""

    def __init__(self, request: RunExecutionRequest) -> None:
        self.request = request
        self.run_id = request.context.run_id
        self.state: int = state_pb2.RUN_STATE_RUNNING
        self.result: RunExecutionResult | None = None
        self.acknowledged = 0
        self.pause: api.CommandRunRequest | None = None
        self.events = [event_pb2.Event(seq=1, run_created=event_pb2.RunCreated(context=request.context))]

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self.state in _ENDED


class _Stream:
    """One coordinator's stream."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[api.ExecuteRunsResponse | None] = asyncio.Queue()
        self.coordinator = ""

    def send(self, **fields: Any) -> None:
        self.frames.put_nowait(api.ExecuteRunsResponse(**fields))


class FakeOrchestrator(
    servicers.OrchestratorServiceServicer, servicers.FlowServiceServicer, servicers.BlobServiceServicer
):
    """Tier 2 as a script. Set its attributes to order what it does.

    Attributes:
        mode: `complete` accepts and ends runs at once; `accept` only accepts; `silent` answers nothing to requests.
        pauses: `at_once` answers a pause PAUSED; `later` answers PAUSING until `paused` is called.
        refusal: A failure with which requests for runs are refused.
        redirect: An address to which requests for runs are redirected.
        missing_handlers: What CheckFlow says is missing.
        input_schema: JSON Schema that CheckFlow tells for each flow.
        problems: What CheckFlow and RegisterFlow find wrong.
        acknowledging: Whether acknowledgements are taken; if not, results are repeated for ever.
        cancels_at_once: Whether a cancelled run ends at once.
    """

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.mode = "complete"
        self.pauses = "at_once"
        self.refusal: failure_pb2.Failure | None = None
        self.redirect = ""
        self.missing_handlers: list[str] = []
        self.input_schema: dict[str, Any] | None = None
        self.problems: list[failure_pb2.Violation] = []
        self.acknowledging = True
        self.cancels_at_once = True
        self.runs: dict[str, FakeRun] = {}
        self.requests: list[RunExecutionRequest] = []
        self.commands: list[api.CommandRunRequest] = []
        self.acknowledgements: list[str] = []
        self.tombstones: set[str] = set()
        self.context_answers: dict[str, blackboard_pb2.ContextAnswer] = {}
        self.flows: dict[str, flow_pb2.Flow] = {}
        self.blobs: dict[str, bytes] = {}
        self.checks = 0
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.port = 0
        self._server: grpc.aio.Server | None = None
        self._streams: list[_Stream] = []
        self._changed = asyncio.Condition()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def connected(self) -> int:
        """Streams of coordinators."""
        return len(self._streams)

    async def start(self) -> None:
        """Listens, again on the port it had before where it had one."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        servicers.add_OrchestratorServiceServicer_to_server(self, self._server)
        servicers.add_FlowServiceServicer_to_server(self, self._server)
        servicers.add_BlobServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Breaks all connections at once; what it knows is kept for the next start."""
        if self._server is not None:
            for stream in self._streams:
                stream.frames.put_nowait(None)
            await self._server.stop(0)
            self._server = None
            self._streams.clear()

    def add_flow(self, name: str, version: str = "1") -> flow_pb2.Flow:
        """Registers a flow."""
        digest = hashlib.sha256(f"{name}@{version}".encode()).hexdigest()
        flow = flow_pb2.Flow(name=name, version=version, hash=digest, handlers=["echo"], steps=1)
        self.flows[digest] = flow
        return flow

    async def finish(
        self, run_id: str, state: str = "COMPLETED", failure: failure_pb2.Failure | None = None, output: str = ""
    ) -> None:
        """Ends a run and tells every coordinator that is connected."""
        run = self.runs[run_id]
        run.state = state_pb2.RunState.Value(f"RUN_STATE_{state}")
        request = run.request
        run.result = RunExecutionResult(
            context=request.context,
            state=run.state,
            outcome={
                "COMPLETED": state_pb2.OUTCOME_SUCCESS,
                "FAILED": state_pb2.OUTCOME_FAILURE,
                "CANCELLED": state_pb2.OUTCOME_CANCELLED,
            }[state],
            usage=Usage(steps=1, attempts=1),
            failure=failure,
        )
        if state == "COMPLETED":
            run.result.output.json = output or request.input.input.json or "{}"
        run.events.append(event_pb2.Event(seq=len(run.events) + 1, run_ended=event_pb2.RunEnded(to=run.state)))
        for stream in self._streams[:1]:
            stream.send(results=[run.result])
        await self._tell()

    async def repeat_results(self) -> None:
        """Sends every result that is not acknowledged again, to every coordinator."""
        for run in self.runs.values():
            if run.result is not None and not run.acknowledged:
                for stream in self._streams:
                    stream.send(results=[run.result])

    async def add_event(self, run_id: str, event: event_pb2.Event) -> None:
        """Adds an event to a run's journal."""
        run = self.runs[run_id]
        event.seq = len(run.events) + 1
        run.events.append(event)
        await self._tell()

    def paused(self, run_id: str) -> None:
        """A run that was told to pause has nothing running any more."""
        run = self.runs[run_id]
        run.state = state_pb2.RUN_STATE_PAUSED
        if run.pause is not None:
            self._answer_all(run, run.pause)

    def send(self, **fields: Any) -> None:
        """Sends a frame to every coordinator."""
        for stream in self._streams:
            stream.send(**fields)

    # --- the stream ---

    async def ExecuteRuns(  # noqa: N802 - names of RPCs
        self, request: AsyncIterator[api.ExecuteRunsRequest], context: Any
    ) -> AsyncIterator[api.ExecuteRunsResponse]:
        """Answers as the script says."""
        stream = _Stream()
        reader = asyncio.create_task(self._read(stream, request))
        try:
            while (frame := await stream.frames.get()) is not None:
                yield frame
        finally:
            reader.cancel()
            if stream in self._streams:
                self._streams.remove(stream)

    async def _read(self, stream: _Stream, frames: AsyncIterator[api.ExecuteRunsRequest]) -> None:
        async for frame in frames:
            if frame.HasField("hello"):
                self._welcome(stream, frame.hello)
            for acknowledgement in frame.acknowledge:
                self.acknowledgements.append(acknowledgement.run_id)
                if self.acknowledging and acknowledgement.run_id in self.runs:
                    self.runs[acknowledgement.run_id].acknowledged += 1
            for command in frame.commands:
                self.commands.append(command)
                await self._command(stream, command)
            for request in frame.execute:
                self.requests.append(request)
                await self._execute(stream, request)
            self.context_answers.update({answer.call_id: answer for answer in frame.context_answers})
            await self._tell()

    def _welcome(self, stream: _Stream, hello: api.CoordinatorHello) -> None:
        stream.coordinator = hello.instance_id
        self._streams.append(stream)
        stream.send(hello=api.OrchestratorInfo(instance_id=self.name, name=self.name, address=self.address))
        for run in self.runs.values():
            if run.result is not None and not run.acknowledged:
                stream.send(results=[run.result])

    async def _execute(self, stream: _Stream, request: RunExecutionRequest) -> None:
        run_id = request.context.run_id
        known = self.runs.get(run_id)
        if known is not None:
            stream.send(accepted=[api.StartRunResponse(run_id=run_id, state=known.state, created=False)])  # type: ignore[arg-type]
            if known.result is not None:
                stream.send(results=[known.result])
        elif run_id in self.tombstones:
            refusal = failure_pb2.Failure(code=failure_pb2.ERROR_CODE_CANCELLED, tier=failure_pb2.TIER_2)
            stream.send(refused=[api.RunRefused(run_id=run_id, failure=refusal)])
        elif self.refusal is not None:
            stream.send(refused=[api.RunRefused(run_id=run_id, failure=self.refusal)])
        elif self.redirect:
            stream.send(redirects=[api.RunRedirect(run_id=run_id, address=self.redirect)])
        elif self.mode != "silent":
            run = self.runs[run_id] = FakeRun(request)
            stream.send(accepted=[api.StartRunResponse(run_id=run_id, state=run.state, created=True)])  # type: ignore[arg-type]
            if self.mode == "complete":
                await self.finish(run_id)

    async def _command(self, stream: _Stream, command: api.CommandRunRequest) -> None:
        run = self.runs.get(command.run_id)
        if run is None:
            if command.command == api.RUN_COMMAND_CANCEL and command.context.run_id == command.run_id:
                self.tombstones.add(command.run_id)
            answer = api.CommandRunResponse(run_id=command.run_id, command_id=command.command_id)
            if command.run_id in self.tombstones:
                answer.applied, answer.state = True, state_pb2.RUN_STATE_CANCELLED
            else:
                answer.failure.code, answer.failure.tier = failure_pb2.ERROR_CODE_NOT_FOUND, failure_pb2.TIER_2
            stream.send(commands=[answer])
            return
        if not run.ended:
            await self._apply(run, command)
        self._answer_all(run, command)

    async def _apply(self, run: FakeRun, command: api.CommandRunRequest) -> None:
        if command.command == api.RUN_COMMAND_PAUSE and run.state == state_pb2.RUN_STATE_RUNNING:
            at_once = self.pauses == "at_once"
            run.state = state_pb2.RUN_STATE_PAUSED if at_once else state_pb2.RUN_STATE_PAUSING
            run.pause = command
        elif command.command == api.RUN_COMMAND_RESUME:
            run.state = state_pb2.RUN_STATE_RUNNING
        elif command.command == api.RUN_COMMAND_CANCEL:
            run.state = state_pb2.RUN_STATE_CANCELLING
            if self.cancels_at_once:
                await self.finish(run.run_id, "CANCELLED")

    def _answer_all(self, run: FakeRun, command: api.CommandRunRequest) -> None:
        answer = api.CommandRunResponse(
            run_id=run.run_id,
            command_id=command.command_id,
            applied=True,
            state=run.state,  # type: ignore[arg-type]
        )
        self.send(commands=[answer])

    # --- reads ---

    async def GetRun(self, request: api.GetRunRequest, context: Any) -> api.GetRunResponse:  # noqa: N802
        """A run."""
        self._note("GetRun", context)
        run = await self._run(request.run_id, context)
        return api.GetRunResponse(run=Run(context=run.request.context, state=run.state))  # type: ignore[arg-type]

    async def ListRuns(self, request: api.ListRunsRequest, context: Any) -> api.ListRunsResponse:  # noqa: N802
        """Runs of a tenant and user."""
        self._note("ListRuns", context)
        found = [
            Run(context=run.request.context, state=run.state)  # type: ignore[arg-type]
            for run in self.runs.values()
            if run.request.context.tenant == request.tenant
            and request.user_id in ("", run.request.context.user_id)
            and request.swarm_id in ("", run.request.context.swarm_id)
        ]
        return api.ListRunsResponse(runs=found)

    async def ListSteps(self, request: api.ListStepsRequest, context: Any) -> api.ListStepsResponse:  # noqa: N802
        """One step."""
        run = await self._run(request.run_id, context)
        return api.ListStepsResponse(steps=[Step(run_id=run.run_id, step_id="echo")])

    async def GetRunQueue(self, request: api.GetRunQueueRequest, context: Any) -> api.GetRunQueueResponse:  # noqa: N802
        """Counts."""
        alive = sum(not run.ended for run in self.runs.values())
        return api.GetRunQueueResponse(
            runs=[api.RunStateCount(state=state_pb2.RUN_STATE_RUNNING, count=alive)], slots=7
        )

    async def ListRunEvents(  # noqa: N802
        self, request: api.ListRunEventsRequest, context: Any
    ) -> api.ListRunEventsResponse:
        """A run's events."""
        run = await self._run(request.run_id, context)
        events = [event for event in run.events if event.seq > request.after_seq]
        batch = event_pb2.EventBatch(source=self._source(run), events=events[: request.limit])
        return api.ListRunEventsResponse(batch=batch, more=len(events) > request.limit)

    async def WatchRun(  # noqa: N802
        self, request: api.WatchRunRequest, context: Any
    ) -> AsyncIterator[api.WatchRunResponse]:
        """A run's events as they come."""
        run = await self._run(request.run_id, context)
        after = request.after_seq
        yield api.WatchRunResponse(ready_after_seq=after)
        while True:
            events = run.events[after:]
            if events:
                batch = event_pb2.EventBatch(source=self._source(run), events=events)
                yield api.WatchRunResponse(batch=batch)
                after = events[-1].seq
            if run.ended and after == len(run.events):
                return
            async with self._changed:
                if after == len(run.events):
                    await self._changed.wait()

    # --- flows and blobs ---

    async def CheckFlow(self, request: api.CheckFlowRequest, context: Any) -> api.CheckFlowResponse:  # noqa: N802
        """What the script says of a flow."""
        self.checks += 1
        if self.problems:
            return api.CheckFlowResponse(check=flow_pb2.FlowCheck(problems=self.problems))
        flow = await self._flow(request.flow, context)
        return api.CheckFlowResponse(
            check=flow_pb2.FlowCheck(flow=flow, missing_handlers=self.missing_handlers),
            input_schema_json=json.dumps(self.input_schema) if self.input_schema is not None else "",
        )

    async def RegisterFlow(  # noqa: N802
        self, request: api.RegisterFlowRequest, context: Any
    ) -> api.RegisterFlowResponse:
        """Stores a flow."""
        flow = self._of_source(request.source)
        created = flow.hash not in self.flows
        self.flows[flow.hash] = flow
        return api.RegisterFlowResponse(flow=flow, created=created)

    async def GetBlob(self, request: api.GetBlobRequest, context: Any) -> AsyncIterator[api.GetBlobResponse]:  # noqa: N802
        """A stored value."""
        if request.sha256 not in self.blobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such value")
        yield api.GetBlobResponse(chunk=self.blobs[request.sha256])

    async def _flow(self, ref: flow_pb2.FlowRef, context: Any) -> flow_pb2.Flow:
        if ref.HasField("source"):
            return self._of_source(ref.source)
        for flow in reversed(self.flows.values()):
            if ref.hash == flow.hash or (not ref.hash and ref.name == flow.name and ref.version in ("", flow.version)):
                return flow
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such flow")
        raise AssertionError

    @staticmethod
    def _of_source(source: flow_pb2.FlowSource) -> flow_pb2.Flow:
        text = source.yaml or source.json
        return flow_pb2.Flow(name="brought", version="1", hash=hashlib.sha256(text.encode()).hexdigest())

    async def _run(self, run_id: str, context: Any) -> FakeRun:
        if run_id not in self.runs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such run")
        return self.runs[run_id]

    def _source(self, run: FakeRun) -> event_pb2.EventSource:
        context = run.request.context
        return event_pb2.EventSource(
            kind="run", entity_id=run.run_id, tenant=context.tenant, swarm_id=context.swarm_id, run_id=run.run_id
        )

    def _note(self, name: str, context: Any) -> None:
        self.calls.append((name, {str(key): str(value) for key, value in context.invocation_metadata() or ()}))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
