"""A hostile executor: it speaks the protocol of executors, and lies about what it was given, about what others were given, and about itself.

It offers one handler for each lie; `lie.others` says untrue things of the attempt of step `s1` of the same run, which an honest executor has. Whatever is untrue holds
the text LIE, so that one can look for it in the journals. What it was asked for a second time it does honestly.
"""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext, Usage
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import executor_service_pb2_grpc as rpc
from tierflow_contracts.executor.v1.step_pb2 import LogLine, StepExecutionRequest, StepExecutionResult

COMPLETED = state_pb2.STEP_STATE_COMPLETED
Send = Callable[..., None]

UNSOUND: dict[str, dict[str, Any]] = {
    "no_json": {"output": Payload(json='{"n": "LIE')},
    "not_finite": {"output": Payload(json='{"LIE": NaN}')},
    "nul": {"output": Payload(json='{"LIE": "\\u0000"}')},
    "deep": {"output": Payload(json='{"LIE": ' * 3000 + "1" + "}" * 3000)},
    "large": {"output": Payload(json='"LIE' + "x" * 2_000_000 + '"')},
    "debt": {"output": Payload(json='"LIE"'), "usage": Usage(credits=-1_000_000_000)},
    "story": {"output": Payload(json='"LIE"'), "logs": [LogLine(text="LIE" * 50_000)]},
    "nul_failure": {
        "state": state_pb2.STEP_STATE_FAILED,
        "failure": failure_pb2.Failure(code=failure_pb2.ERROR_CODE_HANDLER_FAILED, message="LIE\0LIE"),
    },
}
"""Results that the contract does not allow: their steps fail for good."""

HARMLESS = ("others", "twice", "progress", "late", "huge")
"""Lies after which the run ends as if nothing had been."""


class Liar(rpc.ExecutorServiceServicer):
    """One hostile executor. Counts its lies by kind."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.lies: collections.Counter[str] = collections.Counter()
        self._server: Any = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
        self._seen: dict[str, StepExecutionRequest] = {}
        rpc.add_ExecutorServiceServicer_to_server(self, self._server)

    async def __aenter__(self) -> "Liar":
        self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def ExecuteSteps(  # noqa: N802 - named by the proto
        self, requests: AsyncIterator[pb.ExecuteStepsRequest], context: Any
    ) -> AsyncIterator[pb.ExecuteStepsResponse]:
        """Answers each request with a lie."""
        frames: asyncio.Queue[pb.ExecuteStepsResponse] = asyncio.Queue()
        names = [*(f"lie.{name}" for name in HARMLESS), *(f"lie.{name}" for name in UNSOUND)]
        hello = pb.ExecutorHello(
            executor_id="1", name="liar", slots=500, handlers=[pb.HandlerInfo(name=name) for name in names]
        )
        yield pb.ExecuteStepsResponse(hello=hello)

        def send(**frame: Any) -> None:
            frames.put_nowait(pb.ExecuteStepsResponse(**frame))

        listening = asyncio.ensure_future(self._listen(requests, send))
        try:
            while True:
                yield await frames.get()
        finally:
            listening.cancel()

    async def _listen(self, requests: AsyncIterator[pb.ExecuteStepsRequest], send: Send) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for frame in requests:
                for request in frame.execute:
                    self._execute(request, send)
                for attempt_id in frame.adopt:  # whatever it is asked, it says that it is at it
                    send(statuses=[pb.AttemptStatus(attempt_id=attempt_id, state=state_pb2.STEP_STATE_RUNNING)])

    def _execute(self, request: StepExecutionRequest, send: Send) -> None:
        name = request.input.handler.removeprefix("lie.")
        step = f"{request.context.run_id}/{request.context.step_id}"
        before = self._seen.get(step)
        self._seen[step] = request
        if name in UNSOUND:
            self.lies[name] += 1
            send(results=[_result(request, **UNSOUND[name])])
        elif before is None:
            self.lies[name] += 1
            getattr(self, f"_{name}")(request, send)
        else:  # asked again: the first answer comes late, the second is honest
            if name == "late":
                send(results=[_result(before, output=Payload(json='"LIE"'), usage=Usage(credits=7, attempts=1))])
            send(results=[_honest(request)])

    def _others(self, request: StepExecutionRequest, send: Send) -> None:
        context = ExecutionContext()
        context.CopyFrom(request.context)
        context.step_id = "s1"
        victim = context.attempt_id = f"{context.run_id}/s1/1"
        of = {"attempt_id": victim, "run_id": context.run_id}
        lie = StepExecutionResult(context=context, state=COMPLETED, output=Payload(json='{"n": "LIE"}'))
        send(progress=[pb.AttemptProgress(**of, step_id="s1", message="LIE", heartbeat=Payload(json='"LIE"'))])
        send(cancelled=[pb.CancelStepResponse(**of, receipt=pb.CANCEL_RECEIPT_UNKNOWN)])
        send(results=[lie], started=[pb.AttemptStarted(**of)])
        own = request.context.attempt_id  # and under its own attempt, the name of another step
        send(progress=[pb.AttemptProgress(attempt_id=own, run_id=context.run_id, step_id="s1", message="LIE")])
        send(results=[_honest(request)])

    def _twice(self, request: StepExecutionRequest, send: Send) -> None:
        send(results=[_honest(request)])
        send(results=[_result(request, output=Payload(json='{"n": "LIE"}')), _honest(request)])

    def _progress(self, request: StepExecutionRequest, send: Send) -> None:
        context = request.context
        of = {"attempt_id": context.attempt_id, "run_id": context.run_id, "step_id": context.step_id}
        send(results=[_honest(request)])
        for _ in range(3):
            send(progress=[pb.AttemptProgress(**of, message="LIE", heartbeat=Payload(json='"LIE"'))])

    def _late(self, request: StepExecutionRequest, send: Send) -> None:
        """Accepted, begun, and never answered until it is too late."""
        send(started=[pb.AttemptStarted(attempt_id=request.context.attempt_id, run_id=request.context.run_id)])

    def _huge(self, request: StepExecutionRequest, send: Send) -> None:
        """More than any message may have: it breaks the stream on which it comes."""
        send(results=[_result(request, output=Payload(json='"LIE' + "x" * 5_000_000 + '"'))])


def _result(request: StepExecutionRequest, **fields: Any) -> StepExecutionResult:
    context = ExecutionContext()
    context.CopyFrom(request.context)
    context.ClearField("labels")
    result = StepExecutionResult(context=context, state=COMPLETED, outcome=state_pb2.OUTCOME_SUCCESS)
    result.MergeFrom(StepExecutionResult(**fields))
    return result


def _honest(request: StepExecutionRequest) -> StepExecutionResult:
    """It returns its input."""
    return _result(request, output=request.input.input, usage=Usage(attempts=1))
