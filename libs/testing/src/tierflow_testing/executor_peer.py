"""The orchestrator's side of an executor's stream, from the contract alone: for tests of executors in any language."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext, ExecutionOptions, ResourceAllocation
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1.executor_service_pb2_grpc import ExecutorServiceStub
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest, StepExecutionResult, StepInput

from tierflow_testing.waiting import PATIENCE

RUN = "0197a000-0000-7000-8000-000000000001"
_numbers = itertools.count(1)


def a_request(
    handler: str,
    json: str = "null",
    *,
    attempt_id: str = "",
    step_id: str = "step",
    timeout: float | None = PATIENCE,
    **more: Any,
) -> StepExecutionRequest:
    """A sound request for an attempt, the only thing of its kind that is built outside the request builder: executors must be testable alone.

    Args:
        handler: Its handler.
        json: Its input.
        attempt_id: Its id; a fresh one where empty.
        step_id: Its step.
        timeout: Seconds it may take; None leaves that to the executor.
        more: Fields of the allocation, options, input or context by name; durations in seconds.
    """
    number = next(_numbers)
    context = ExecutionContext(
        tenant="default", user_id="dev", swarm_id=RUN, run_id=RUN, step_id=step_id, attempt=1, attempt_id=attempt_id or f"attempt-{number}",
        idempotency_key=f"key-{number}", epoch=1, root_id=RUN, labels={"colour": "blue"},
    )  # fmt: skip
    request = StepExecutionRequest(
        context=context,
        input=StepInput(handler=handler, input=Payload(json=json)),
        allocation=ResourceAllocation(),
        options=ExecutionOptions(timeout=_seconds(timeout)),
    )
    for name, value in more.items():
        part = next(part for part in _parts(request) if name in part.DESCRIPTOR.fields_by_name)
        if part.DESCRIPTOR.fields_by_name[name].message_type is not None:
            value = _seconds(value) if isinstance(value, int | float) else value
            getattr(part, name).CopyFrom(value)
        else:
            setattr(part, name, value)
    return request


def _parts(request: StepExecutionRequest) -> tuple[Any, ...]:
    return request.allocation, request.options, request.input, request.context


def _seconds(length: float | None) -> Duration | None:
    if length is None:
        return None
    return Duration(seconds=int(length), nanos=round((length % 1) * 1e9))


class Peer:
    """One stream to an executor, as the orchestrator instance `instance`. Keeps everything that comes, in order.

    Usage: `async with Peer(address, "one") as peer: ...`

    Attributes:
        hello: The executor's hello.
        frames: Every frame that came.
        error: How the stream ended, where it was not by closing.
    """

    def __init__(
        self, address: str, instance: str, *, replaces: Iterable[str] = (), blobs: str = "", first: Any = None
    ) -> None:
        self.instance = instance
        self.hello = pb.ExecutorHello()
        self.frames: list[pb.ExecuteStepsResponse] = []
        self.error: grpc.aio.AioRpcError | None = None
        self._address = address
        self._first = first or pb.ExecuteStepsRequest(
            hello=pb.OrchestratorHello(instance_id=instance, name=instance, address=blobs, replaces=replaces)
        )
        self._out: asyncio.Queue[pb.ExecuteStepsRequest | None] = asyncio.Queue()
        self._changed = asyncio.Condition()
        self._ended = False

    async def __aenter__(self) -> Self:
        self.channel = grpc.aio.insecure_channel(self._address)
        self.stub = ExecutorServiceStub(self.channel)
        self._call = self.stub.ExecuteSteps(self._requests())
        self._reader = asyncio.create_task(self._read())
        await self.until(lambda: self._ended or any(frame.HasField("hello") for frame in self.frames), "the hello")
        self.hello = next((frame.hello for frame in self.frames if frame.HasField("hello")), self.hello)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.break_off()

    async def break_off(self) -> None:
        """Ends the connection as a crash would, without closing the stream."""
        self._call.cancel()
        await asyncio.wait((self._reader,))
        await self.channel.close(None)

    def close(self) -> None:
        """Closes this side of the stream, in order."""
        self._out.put_nowait(None)

    def send(self, **fields: Any) -> None:
        """Sends a frame."""
        self._out.put_nowait(pb.ExecuteStepsRequest(**fields))

    def start(self, *requests: StepExecutionRequest) -> None:
        """Asks for attempts."""
        self.send(execute=requests)

    def acknowledge(self, *attempt_ids: str) -> None:
        """Says that results are committed."""
        self.send(acknowledge=attempt_ids)

    def results(self, attempt_id: str = "") -> list[StepExecutionResult]:
        """The results that came, of one attempt or of all."""
        return [each for frame in self.frames for each in frame.results if attempt_id in ("", each.context.attempt_id)]

    def items(self, field: str, attempt_id: str = "") -> list[Any]:
        """The items of a field of all frames, of one attempt or of all."""
        found = [each for frame in self.frames for each in getattr(frame, field)]
        return [each for each in found if not attempt_id or each.attempt_id == attempt_id]

    async def result(self, attempt_id: str, count: int = 1) -> StepExecutionResult:
        """The result of an attempt, once it is there, or the `count`-th that came of it."""
        await self.until(lambda: len(self.results(attempt_id)) >= count, f"result {count} of {attempt_id}")
        return self.results(attempt_id)[count - 1]

    async def run(self, request: StepExecutionRequest) -> StepExecutionResult:
        """Runs one attempt and acknowledges its result."""
        self.start(request)
        result = await self.result(request.context.attempt_id)
        self.acknowledge(request.context.attempt_id)
        return result

    async def item(self, field: str, attempt_id: str, count: int = 1) -> Any:
        """The `count`-th item of a field that is about an attempt, once it is there."""
        await self.until(lambda: len(self.items(field, attempt_id)) >= count, f"{field} of {attempt_id}")
        return self.items(field, attempt_id)[count - 1]

    async def settled(self) -> None:
        """Everything that was sent before has been looked at: an adoption of an unknown id comes back after it."""
        probe = f"probe-{next(_numbers)}"
        self.send(adopt=[probe])
        await self.item("statuses", probe)

    async def until(self, fact: Any, what: str = "a fact") -> None:
        """Waits until something that depends on what came is true."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(fact), PATIENCE)
            except TimeoutError:
                last = [frame for frame in self.frames if not frame.HasField("hello")][-3:]
                raise AssertionError(
                    f"not within {PATIENCE:g} s: {what}; last frames: {last}; error: {self.error}"
                ) from None

    @property
    def ended(self) -> bool:
        """Whether the executor has ended the stream."""
        return self._ended

    async def _requests(self) -> AsyncIterator[pb.ExecuteStepsRequest]:
        yield self._first
        while (frame := await self._out.get()) is not None:
            yield frame

    async def _read(self) -> None:
        try:
            async for frame in self._call:
                self.frames.append(frame)
                async with self._changed:
                    self._changed.notify_all()
        except grpc.aio.AioRpcError as error:
            self.error = error
        except asyncio.CancelledError:
            pass
        finally:
            self._ended = True
            async with self._changed:
                self._changed.notify_all()
