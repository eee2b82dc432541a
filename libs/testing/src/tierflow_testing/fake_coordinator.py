"""A scripted Tier 1 on a real gRPC port: for tests of clients, which need answers, refusals and broken connections to order.

It keeps swarms in memory, echoes their input as output, and can be stopped and started again on the same port with what it knows. It is no stand-in for the
engine: whatever depends on durability is tested against the real services.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.common.v1.execution_pb2 import Usage
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2_grpc
from tierflow_contracts.coordinator.v1.swarm_pb2 import Swarm, SwarmExecutionRequest, SwarmExecutionResult

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_DETAILS = "grpc-status-details-bin"
_ENDED = (state_pb2.SWARM_STATE_COMPLETED, state_pb2.SWARM_STATE_FAILED, state_pb2.SWARM_STATE_STOPPED)


class FakeCoordinator(coordinator_service_pb2_grpc.CoordinatorServiceServicer):
    """Tier 1 as a script. Set its attributes to order what it does.

    Attributes:
        hold: While true, swarms are accepted and do not end.
        silent: While true, nothing is answered.
        bare_results: While true, results leave their output out, as those that are too large for the stream do.
        refusals: Failures to answer with, taken from the front, one per submission; None accepts.
        cut_after: Ends the stream of submissions with UNAVAILABLE after that many frames, once each time it is set.
        errors: Rich errors by RPC name, raised once each.
        watches: Scripts of watches: each connection takes the first, sends its messages and breaks, or ends where it is the last.
    """

    def __init__(self) -> None:
        self.hold = False
        self.silent = False
        self.bare_results = False
        self.refusals: list[failure_pb2.Failure | None] = []
        self.cut_after: int | None = None
        self.errors: dict[str, status_pb2.Status] = {}
        self.watches: list[list[api.WatchSwarmResponse]] = []
        self.watch_requests: list[api.WatchSwarmRequest] = []
        self.frames: list[api.ExecuteSwarmsRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.blobs: dict[str, bytes] = {}
        self.swarms: dict[str, Swarm] = {}
        self.by_request: dict[str, tuple[SwarmExecutionRequest, str]] = {}
        self.keep_frames = True
        self.port = 0
        self._server: grpc.aio.Server | None = None
        self._ended = asyncio.Condition()
        self._streams: set[asyncio.Queue[list[str]]] = set()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens, again on the port it had before where it had one."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        coordinator_service_pb2_grpc.add_CoordinatorServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Breaks all connections at once; what it knows is kept for the next start."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def finish(self, swarm_id: str, state: str = "COMPLETED", failure: failure_pb2.Failure | None = None) -> None:
        """Ends a swarm that was held."""
        swarm = self.swarms[swarm_id]
        swarm.state = state_pb2.SwarmState.Value(f"SWARM_STATE_{state}")
        swarm.outcome = state_pb2.OUTCOME_SUCCESS if state == "COMPLETED" else state_pb2.OUTCOME_FAILURE
        if failure is not None:
            swarm.failure.CopyFrom(failure)
        if state == "COMPLETED" and not swarm.output.WhichOneof("kind"):
            swarm.output.CopyFrom(swarm.input)
        swarm.usage.CopyFrom(Usage(steps=1, attempts=1))
        swarm.duration.FromMilliseconds(12)
        for queue in self._streams:
            queue.put_nowait([swarm_id])
        async with self._ended:
            self._ended.notify_all()

    # The hot path

    async def ExecuteSwarms(  # noqa: N802 - names of RPCs
        self, requests: AsyncIterator[api.ExecuteSwarmsRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[api.ExecuteSwarmsResponse]:
        """Answers and results as the script says."""
        self._note_caller(context)
        mine: set[str] = set()
        queue: asyncio.Queue[list[str]] = asyncio.Queue()
        self._streams.add(queue)
        reader = asyncio.create_task(self._read(requests, queue, mine))
        try:
            while (signs := await _all_of(queue)) != ["cut"]:
                response = self._response(signs, mine)
                if (response.answers or response.results) and not self.silent:
                    yield response
            self.cut_after = None
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut by the script")
        finally:
            reader.cancel()
            self._streams.discard(queue)

    async def _read(
        self, requests: AsyncIterator[api.ExecuteSwarmsRequest], queue: asyncio.Queue[list[str]], mine: set[str]
    ) -> None:
        async for frame in requests:
            if self.keep_frames:
                self.frames.append(frame)
            signs = [self._sign_of(request, mine) for request in frame.execute]
            signs += [f"gone:{swarm_id}" for swarm_id in frame.attach if swarm_id not in self.swarms]
            mine.update(swarm_id for swarm_id in frame.attach if swarm_id in self.swarms)
            if self._is_cut():
                queue.put_nowait(["cut"])
                return
            queue.put_nowait(signs)

    def _sign_of(self, request: SwarmExecutionRequest, mine: set[str]) -> str:
        request_id = request.context.request_id
        if not self._accept(request):
            return f"refuse:{request_id}"
        mine.add(self.by_request[request_id][1])
        return f"answer:{request_id}"

    def _is_cut(self) -> bool:
        if self.cut_after is None:
            return False
        self.cut_after -= 1
        return self.cut_after <= 0

    def _note_caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.metadata.append({str(key): str(value) for key, value in context.invocation_metadata() or ()})

    def _accept(self, request: SwarmExecutionRequest) -> bool:
        request_id = request.context.request_id
        if request_id in self.by_request:
            return True
        if self.refusals and self.refusals[0] is not None:
            return False
        if self.refusals:
            self.refusals.pop(0)
        swarm_id = f"swarm-{len(self.swarms) + 1}"
        self.by_request[request_id] = (request, swarm_id)
        swarm = Swarm(context=request.context, state=state_pb2.SWARM_STATE_RUNNING, input=request.input.flow.input)
        swarm.context.swarm_id = swarm_id
        swarm.context.traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
        swarm.flow_name = request.input.flow.flow.name
        self.swarms[swarm_id] = swarm
        if not self.hold:
            self._end_at_once(swarm)
        return True

    @staticmethod
    def _end_at_once(swarm: Swarm) -> None:
        swarm.state = state_pb2.SWARM_STATE_COMPLETED
        swarm.outcome = state_pb2.OUTCOME_SUCCESS
        swarm.output.CopyFrom(swarm.input)

    def _response(self, signs: list[str], mine: set[str]) -> api.ExecuteSwarmsResponse:
        response = api.ExecuteSwarmsResponse()
        for sign in signs:
            kind, _, request_id = sign.partition(":")
            if kind == "answer":
                response.answers.append(self._answer(request_id))
            elif kind == "refuse":
                response.answers.append(api.SubmitSwarmAnswer(refused=self.refusals.pop(0), request_id=request_id))
            elif kind == "gone":
                gone = failure_pb2.Failure(
                    code=failure_pb2.ERROR_CODE_NOT_FOUND, message=f"There is no swarm {request_id}."
                )
                response.answers.append(api.SubmitSwarmAnswer(refused=gone, swarm_id=request_id))
        for swarm_id in [swarm_id for swarm_id in mine if swarm_id in self.swarms]:
            swarm = self.swarms[swarm_id]
            if swarm.state in _ENDED:
                mine.discard(swarm_id)
                response.results.append(self._bare(swarm) if self.bare_results else _result(swarm))
        return response

    @staticmethod
    def _bare(swarm: Swarm) -> SwarmExecutionResult:
        result = _result(swarm)
        result.ClearField("output")
        result.failure.code = failure_pb2.ERROR_CODE_MESSAGE_TOO_LARGE
        return result

    def _answer(self, request_id: str) -> api.SubmitSwarmAnswer:
        _, swarm_id = self.by_request[request_id]
        accepted = api.SubmitSwarmResponse(
            swarm_id=swarm_id,
            state=state_pb2.SWARM_STATE_RUNNING,
            created=True,
            trace_id=TRACE,
            run_id=f"run-{swarm_id}",
        )
        return api.SubmitSwarmAnswer(accepted=accepted, request_id=request_id)

    # Everything else

    async def _scripted(self, name: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        self.calls.append((name, request))
        self._note_caller(context)
        error = self.errors.pop(name, None)
        if error is not None:
            context.set_trailing_metadata(((_DETAILS, error.SerializeToString()),))
            await context.abort(next(code for code in grpc.StatusCode if code.value[0] == error.code), error.message)
        if name not in self.answers:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"the script has no {name}")
        return self.answers[name]

    async def GetSwarm(self, request: api.GetSwarmRequest, context: Any) -> Any:  # noqa: N802
        """A swarm it knows."""
        if request.swarm_id in self.swarms:
            return api.GetSwarmResponse(swarm=self.swarms[request.swarm_id])
        return await self._scripted("GetSwarm", request, context)

    async def WaitSwarm(self, request: api.WaitSwarmRequest, context: Any) -> Any:  # noqa: N802
        """Waits for `finish`."""
        if request.swarm_id not in self.swarms:
            return await self._scripted("WaitSwarm", request, context)
        swarm = self.swarms[request.swarm_id]
        async with self._ended:
            await self._ended.wait_for(lambda: swarm.state in _ENDED)
        return api.WaitSwarmResponse(swarm=swarm, ended=True)

    async def WatchSwarm(  # noqa: N802
        self, request: api.WatchSwarmRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[api.WatchSwarmResponse]:
        """Sends the next script; breaks the connection after all but the last."""
        self.watch_requests.append(request)
        if not self.watches:
            await self._scripted("WatchSwarm", request, context)
        script = self.watches.pop(0)
        for response in script:
            yield response
        if self.watches:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut by the script")

    async def ReadBlob(self, request: api.ReadBlobRequest, context: Any) -> AsyncIterator[api.ReadBlobResponse]:  # noqa: N802
        """A blob in chunks."""
        if request.sha256 not in self.blobs:
            await self._scripted("ReadBlob", request, context)
        content = self.blobs[request.sha256]
        for start in range(0, len(content), 65536):
            yield api.ReadBlobResponse(chunk=content[start : start + 65536])


async def _all_of(queue: asyncio.Queue[list[str]]) -> list[str]:
    """What waits in a queue, all of it where nothing cuts it; waits for the first."""
    signs = await queue.get()
    while signs != ["cut"] and not queue.empty():
        more = queue.get_nowait()
        signs = more if more == ["cut"] else signs + more
    return signs


def _unary(name: str) -> Any:
    async def answer(self: FakeCoordinator, request: Any, context: Any) -> Any:
        return await self._scripted(name, request, context)

    answer.__doc__ = f"{name} as scripted in `answers` and `errors`."
    return answer


for _name in (
    *(
        "PauseSwarm",
        "ResumeSwarm",
        "CancelSwarm",
        "StopSwarm",
        "ListSwarms",
        "ListEvents",
        "GetQueue",
        "GetRun",
        "ListRuns",
        "ListSteps",
        "ListLogs",
    ),
    *("ListExecutors", "RegisterFlow", "CheckFlow", "GetFlow", "ListFlows"),
):
    setattr(FakeCoordinator, _name, _unary(_name))


def rich(
    code: grpc.StatusCode,
    message: str,
    reason: str = "",
    violations: dict[str, str] | None = None,
    retry_after: float | None = None,
) -> status_pb2.Status:
    """A `google.rpc.Status` with the details that services send."""
    status = status_pb2.Status(code=code.value[0], message=message)
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="tierflow")] if reason else []
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations.items():
            bad.field_violations.add(field=field, description=description)
        details.append(bad)
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after * 1000))
        details.append(retry)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _result(swarm: Swarm) -> SwarmExecutionResult:
    return SwarmExecutionResult(
        context=swarm.context,
        state=swarm.state,
        outcome=swarm.outcome,
        output=swarm.output if swarm.HasField("output") else None,
        failure=swarm.failure if swarm.HasField("failure") else None,
        usage=swarm.usage,
        duration=swarm.duration,
    )


async def _serve() -> None:
    fake: FakeCoordinator = cast("Any", FakeCoordinator)()  # most of its methods are made below the class
    fake.keep_frames = False
    await fake.start()
    print(fake.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
