"""What every executor must do, whatever it is written in: the rules of docs/executors.md, each as a check over the wire.

An executor under test offers the handlers `echo` (returns its input) and `sleep` (input `{"seconds": n}`, waits that long) and has at least 4 slots. Run it
against any address with `python -m tierflow_testing.executor_conformance HOST:PORT`.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_contracts.executor.v1.executor_service_pb2_grpc import ExecutorServiceStub
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest

from tierflow_testing.executor_peer import Peer, a_request
from tierflow_testing.waiting import eventually

COMPLETED, FAILED, CANCELLED = (
    state_pb2.STEP_STATE_COMPLETED,
    state_pb2.STEP_STATE_FAILED,
    state_pb2.STEP_STATE_CANCELLED,
)


def _id(name: str) -> str:
    return f"{name}-{uuid.uuid4()}"


async def says_hello_first(address: str) -> None:
    """The first frame answers with a hello: who it is, its handlers and slots (R24)."""
    async with Peer(address, _id("hello")) as peer:
        assert peer.frames[0].HasField("hello")
        assert peer.hello.executor_id
        assert peer.hello.name
        assert {"echo", "sleep"} <= {handler.name for handler in peer.hello.handlers}
        assert peer.hello.slots >= 1


async def refuses_a_stream_without_hello(address: str) -> None:
    """A first frame without hello ends the stream with INVALID_ARGUMENT."""
    first = pb.ExecuteStepsRequest(execute=[a_request("echo")])
    async with Peer(address, "", first=first) as peer:
        await peer.until(lambda: peer.ended, "the end of the stream")
        assert peer.error is not None
        assert peer.error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def runs_an_attempt(address: str) -> None:
    """An attempt is run, and its result has its context without labels, its output, usage and times (A1, A8)."""
    async with Peer(address, _id("run")) as peer:
        request = a_request("echo", '{"a": [1, 9007199254740993]}')
        result = await peer.run(request)
        assert result.state == COMPLETED, result
        assert result.outcome == state_pb2.OUTCOME_SUCCESS
        assert result.output.json.replace(" ", "") == '{"a":[1,9007199254740993]}'
        expected = StepExecutionRequest.FromString(request.SerializeToString()).context
        expected.ClearField("labels")
        assert result.context == expected
        assert result.usage.attempts == 1
        assert result.started_at.seconds > 0
        assert (result.ended_at.seconds, result.ended_at.nanos) >= (result.started_at.seconds, result.started_at.nanos)


async def runs_an_id_once(address: str) -> None:
    """An id that is known is not started again; a result is sent again when it is asked for again (R24)."""
    async with Peer(address, _id("once")) as peer:
        request = a_request("sleep", '{"seconds": 0.2}', attempt_id=_id("once"))
        attempt_id = request.context.attempt_id
        peer.start(request, request)
        peer.start(request)
        first = await peer.result(attempt_id)
        peer.start(request)
        second = await peer.result(attempt_id, 2)
        assert first == second
        peer.acknowledge(attempt_id)


async def keeps_results_until_acknowledged(address: str) -> None:
    """A result is repeated on each new stream of its instance until it is acknowledged, and then no more (R27)."""
    instance, attempt_id = _id("keep"), _id("kept")
    async with Peer(address, instance) as peer:
        peer.start(a_request("echo", "1", attempt_id=attempt_id))
        first = await peer.result(attempt_id)
    async with Peer(address, instance) as peer:
        assert [status.state for status in peer.hello.attempts if status.attempt_id == attempt_id] == [COMPLETED]
        assert await peer.result(attempt_id) == first
        peer.acknowledge(attempt_id)
        await peer.settled()
    async with Peer(address, instance) as peer:
        assert attempt_id not in {status.attempt_id for status in peer.hello.attempts}
        await peer.settled()
        assert peer.results(attempt_id) == []


async def goes_on_without_its_orchestrator(address: str) -> None:
    """An attempt goes on while its orchestrator is away, and its result waits (R27, S7)."""
    instance, attempt_id = _id("away"), _id("alone")
    async with Peer(address, instance) as peer:
        peer.start(a_request("sleep", '{"seconds": 0.3}', attempt_id=attempt_id))
        await peer.settled()
    async with Peer(address, instance) as peer:
        assert (await peer.result(attempt_id)).state == COMPLETED
        peer.acknowledge(attempt_id)


async def hands_attempts_to_a_successor(address: str) -> None:
    """A successor adopts by id: it is told the state, and the result comes on its stream (R25, S7)."""
    old, new, attempt_id = _id("old"), _id("new"), _id("adopted")
    async with Peer(address, old) as first:
        first.start(a_request("sleep", '{"seconds": 0.3}', attempt_id=attempt_id))
        await first.settled()
        async with Peer(address, new, replaces=[old]) as second:
            assert old in second.items("replaced")
            assert attempt_id in {status.attempt_id for status in second.hello.attempts}
            second.send(adopt=[attempt_id])
            status = await second.item("statuses", attempt_id)
            assert status.state in (state_pb2.STEP_STATE_SCHEDULED, state_pb2.STEP_STATE_RUNNING, COMPLETED)
            assert (await second.result(attempt_id)).state == COMPLETED
            second.acknowledge(attempt_id)
        assert first.results(attempt_id) == []


async def drops_requests_of_the_replaced(address: str) -> None:
    """Once an instance is replaced nothing of it is started, and its stream is ended (R25)."""
    old, new, attempt_id = _id("old"), _id("new"), _id("late")
    async with Peer(address, old) as first, Peer(address, new, replaces=[old]) as second:
        first.start(a_request("echo", "1", attempt_id=attempt_id))
        await first.until(lambda: first.ended, "the end of the replaced stream")
        second.send(adopt=[attempt_id])
        status = await second.item("statuses", attempt_id)
        assert status.state == state_pb2.STEP_STATE_UNSPECIFIED
        second.start(a_request("echo", "2", attempt_id=attempt_id))
        assert (await second.result(attempt_id)).output.json == "2"
        second.acknowledge(attempt_id)
    async with Peer(address, old) as first:
        await first.until(lambda: first.ended, "the end of a stream of a replaced instance")


async def answers_unknown_ids(address: str) -> None:
    """An id that it does not know is answered as UNSPECIFIED (R25)."""
    async with Peer(address, _id("ask")) as peer:
        attempt_id = _id("unknown")
        peer.send(adopt=[attempt_id])
        assert (await peer.item("statuses", attempt_id)).state == state_pb2.STEP_STATE_UNSPECIFIED


async def cancels_a_running_attempt(address: str) -> None:
    """A cancel really stops an attempt, soon, and is answered with a receipt (G1, Lesson 5)."""
    async with Peer(address, _id("cancel")) as peer:
        request = a_request("sleep", '{"seconds": 60}', timeout=90)
        attempt_id = request.context.attempt_id
        peer.start(request)
        await peer.item("started", attempt_id)
        loop = asyncio.get_running_loop()
        began = loop.time()
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=attempt_id, reason="enough")])
        result = await peer.result(attempt_id)
        assert loop.time() - began < 2.0
        assert result.state == CANCELLED
        assert result.outcome == state_pb2.OUTCOME_CANCELLED
        assert (await peer.item("cancelled", attempt_id)).receipt == pb.CANCEL_RECEIPT_STOPPED
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=attempt_id)])
        assert (await peer.item("cancelled", attempt_id, 2)).receipt == pb.CANCEL_RECEIPT_ENDED
        peer.acknowledge(attempt_id)


async def refuses_what_was_cancelled_before(address: str) -> None:
    """A cancel of an unknown id is answered so, and the attempt is not run should it come later (R29)."""
    async with Peer(address, _id("early")) as peer:
        request = a_request("sleep", '{"seconds": 60}', attempt_id=_id("early"))
        attempt_id = request.context.attempt_id
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=attempt_id)])
        assert (await peer.item("cancelled", attempt_id)).receipt == pb.CANCEL_RECEIPT_UNKNOWN
        peer.start(request)
        result = await peer.result(attempt_id)
        assert result.state == CANCELLED
        assert not result.HasField("started_at")
        peer.acknowledge(attempt_id)


async def stops_at_the_timeout(address: str) -> None:
    """An attempt over its timeout is stopped and fails with TIMEOUT, retryable (F5, F32)."""
    async with Peer(address, _id("timeout")) as peer:
        result = await peer.run(a_request("sleep", '{"seconds": 60}', timeout=0.2))
        assert result.state == FAILED
        assert result.failure.code == failure_pb2.ERROR_CODE_TIMEOUT
        assert result.failure.retryable
        assert result.failure.tier == failure_pb2.TIER_3
        assert result.failure.step_id == "step"
        assert result.failure.attempt == 1


async def does_not_start_what_is_late(address: str) -> None:
    """An attempt whose deadline has passed is not started (DEADLINE_EXCEEDED)."""
    async with Peer(address, _id("late")) as peer:
        request = a_request("echo", "1")
        request.context.time_remaining.SetInParent()
        result = await peer.run(request)
        assert result.failure.code == failure_pb2.ERROR_CODE_DEADLINE_EXCEEDED
        assert not result.HasField("started_at")


async def refuses_unknown_handlers(address: str) -> None:
    """A handler that it does not have is a typed failure of the attempt."""
    async with Peer(address, _id("handler")) as peer:
        result = await peer.run(a_request(_id("no.such.handler")))
        assert result.state == FAILED
        assert result.failure.code == failure_pb2.ERROR_CODE_HANDLER_NOT_FOUND


async def names_what_is_missing(address: str) -> None:
    """Each of the four parts is required; a request without one is refused naming it (A1)."""
    async with Peer(address, _id("parts")) as peer:
        for part in ("context", "input", "allocation", "options"):
            request = a_request("echo")
            request.ClearField(part)
            call = peer.stub.ExecuteStep(request)
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT, part
            assert part in await call.details()


async def announces_slots(address: str) -> None:
    """Slots are shared among those connected, at least one each, and announced again when somebody comes or goes."""
    async with Peer(address, _id("slots")) as first:
        alone = first.hello.slots
        async with Peer(address, _id("slots")) as second:
            assert second.hello.slots >= 1
            await first.until(lambda: any(frame.HasField("slots") for frame in first.frames), "fewer slots")
            fewer = next(frame.slots for frame in first.frames if frame.HasField("slots"))
            assert 1 <= fewer < alone
        await first.until(lambda: [f.slots for f in first.frames if f.HasField("slots")][-1] > fewer, "slots again")


async def serves_the_unary_form(address: str) -> None:
    """ExecuteStep, CancelStep and DescribeExecutor answer as the streams do."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = ExecutorServiceStub(channel)
        result = await stub.ExecuteStep(a_request("echo", '"hi"'))
        assert result.output.json == '"hi"'
        attempt_id = _id("unary")
        running = stub.ExecuteStep(a_request("sleep", '{"seconds": 60}', attempt_id=attempt_id, timeout=90))

        async def is_known() -> bool:  # a cancel before that would keep it from starting
            return bool((await stub.DescribeExecutor(pb.DescribeExecutorRequest())).slots_used)

        known: Callable[[], Awaitable[bool]] = is_known
        await eventually(known)
        receipt = await stub.CancelStep(pb.CancelStepRequest(attempt_id=attempt_id))
        assert receipt.receipt == pb.CANCEL_RECEIPT_STOPPED
        assert (await running).state == CANCELLED
        unknown = stub.CancelStep(pb.CancelStepRequest(attempt_id=_id("nobody")))
        assert await unknown.code() is grpc.StatusCode.NOT_FOUND
        answer = await stub.DescribeExecutor(pb.DescribeExecutorRequest())
        assert answer.executor.executor_id
        assert answer.slots >= 1


CHECKS: tuple[Callable[[str], Awaitable[None]], ...] = (
    says_hello_first,
    refuses_a_stream_without_hello,
    runs_an_attempt,
    runs_an_id_once,
    keeps_results_until_acknowledged,
    goes_on_without_its_orchestrator,
    hands_attempts_to_a_successor,
    drops_requests_of_the_replaced,
    answers_unknown_ids,
    cancels_a_running_attempt,
    refuses_what_was_cancelled_before,
    stops_at_the_timeout,
    does_not_start_what_is_late,
    refuses_unknown_handlers,
    names_what_is_missing,
    announces_slots,
    serves_the_unary_form,
)
"""All of it."""


async def check_all(address: str) -> int:
    """Runs all checks against an executor and prints how each went; returns how many failed."""
    failed = 0
    for check in CHECKS:
        try:
            await check(address)
        except Exception:  # noqa: BLE001 - a check that breaks has failed; the others still run
            failed += 1
            print(f"FAILED  {check.__name__}: {check.__doc__}")
            traceback.print_exc()
        else:
            print(f"ok      {check.__name__}")
    return failed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(check_all(sys.argv[1])) else 0)
