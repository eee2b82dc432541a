"""The gRPC face of the executor: frames in and out, and the unary form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1 import step_pb2
from tierflow_runtime.errors import failure
from tierflow_runtime.logs import get_log
from tierflow_runtime.values import FailureError

from tierflow_executor import unary
from tierflow_executor.engine import Engine
from tierflow_executor.streams import Stream

NAME = "tierflow.executor.v1.ExecutorService"
log = get_log(__name__)
Call = grpc.aio.ServicerContext[Any, Any]


class ExecutorService:
    """Serves `ExecutorService`. Frames go out as the bytes that the engine has coded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def execute_steps(self, requests: AsyncIterator[pb.ExecuteStepsRequest], _: Call) -> AsyncIterator[bytes]:
        """One orchestrator's stream."""
        first = await anext(aiter(requests), None)
        if first is None or not first.hello.instance_id:
            text = "the first frame has no hello with an instance_id"
            raise FailureError(failure("INVALID_REQUEST", text, tier=3, component="executor", operation="ExecuteSteps"))
        stream = self._engine.connect(first.hello)
        first.ClearField("hello")
        reader = asyncio.create_task(self._read(stream, first, requests))
        try:
            while (frame := await stream.outbox.next()) is not None:
                yield frame
        finally:
            self._engine.disconnect(stream)
            reader.cancel()
        if stream.unreadable is not None:
            raise stream.unreadable
        if stream.refused:
            text = f"instance {stream.instance} was replaced; nothing of it is taken any more"
            raise FailureError(failure("FENCED", text, tier=3, component="executor", operation="ExecuteSteps"))

    async def _read(
        self, stream: Stream, first: pb.ExecuteStepsRequest, requests: AsyncIterator[pb.ExecuteStepsRequest]
    ) -> None:
        try:
            self._engine.receive(stream, first)
            async for frame in requests:
                self._engine.receive(stream, frame)
        except grpc.RpcError as error:
            log.info("stream lost", instance_id=stream.instance, detail=str(error))
        except FailureError as error:
            stream.unreadable = error
        except Exception as error:  # a defect ends this stream, visibly, and not the process (F27)
            self._engine.note_defect(error)
            raise
        finally:
            stream.close()

    async def execute_step(self, request: step_pb2.StepExecutionRequest, _: Call) -> step_pb2.StepExecutionResult:
        """One attempt."""
        return await unary.execute(self._engine, request)

    async def cancel_step(self, request: pb.CancelStepRequest, _: Call) -> pb.CancelStepResponse:
        """Stops an attempt."""
        return await unary.cancel(self._engine, request)

    async def describe_executor(self, _: pb.DescribeExecutorRequest, __: Call) -> pb.DescribeExecutorResponse:
        """Says who this is."""
        return unary.describe(self._engine)


def _as_it_is(frame: bytes) -> bytes:
    return frame


def add_to_server(service: Any, server: Any) -> None:
    """Registers the service. By hand, since the frames of the stream are coded already."""
    handlers = {
        "ExecuteSteps": grpc.stream_stream_rpc_method_handler(
            service.execute_steps,
            request_deserializer=pb.ExecuteStepsRequest.FromString,
            response_serializer=_as_it_is,
        ),
        "ExecuteStep": grpc.unary_unary_rpc_method_handler(
            service.execute_step,
            request_deserializer=step_pb2.StepExecutionRequest.FromString,
            response_serializer=step_pb2.StepExecutionResult.SerializeToString,
        ),
        "CancelStep": grpc.unary_unary_rpc_method_handler(
            service.cancel_step,
            request_deserializer=pb.CancelStepRequest.FromString,
            response_serializer=pb.CancelStepResponse.SerializeToString,
        ),
        "DescribeExecutor": grpc.unary_unary_rpc_method_handler(
            service.describe_executor,
            request_deserializer=pb.DescribeExecutorRequest.FromString,
            response_serializer=pb.DescribeExecutorResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
