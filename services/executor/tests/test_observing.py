"""What operators and handlers see: spans, counts, ids; and the unary form."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import grpc
from tierflow import Context, Degraded
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1.executor_service_pb2_grpc import ExecutorServiceStub
from tierflow_runtime.telemetry import Telemetry
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request

Serve = Callable[..., Any]
COMPLETED, FAILED, CANCELLED = (
    state_pb2.STEP_STATE_COMPLETED,
    state_pb2.STEP_STATE_FAILED,
    state_pb2.STEP_STATE_CANCELLED,
)


def code(result: Any) -> str:
    return ERROR_CODES.name(result.failure.code)


class Spans(Telemetry):
    """Keeps what is recorded."""

    enabled = True

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[tuple[Any, ...]] = []

    def record_span(self, *args: Any, **named: Any) -> None:
        self.recorded.append(args)


async def test_a_span_per_traced_attempt(serve: Serve) -> None:
    """M1, Lesson 36: one span per sampled attempt, below the caller's, with an id that handlers hand on."""
    spans = Spans()

    async def tell(context: Context) -> str:
        return context.traceparent

    served = await serve({"tell": tell}, telemetry=spans)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("tell", traceparent=f"00-{trace}-{parent}-01"))
        unsampled = await peer.run(a_request("tell", traceparent=f"00-{trace}-{parent}-00"))
    assert len(spans.recorded) == 1
    name, trace_id, span_id, parent_id, started, ended, attributes, status, links = spans.recorded[0]
    assert links == []
    assert (name, trace_id, parent_id, status) == ("step tell", trace, parent, "")
    assert json.loads(result.output.json) == f"00-{trace}-{span_id}-01"
    assert started <= ended
    assert attributes["tierflow.attempt_id"] == result.context.attempt_id
    assert json.loads(unsampled.output.json) == f"00-{trace}-{parent}-00"


async def test_attempts_are_counted(serve: Serve) -> None:
    """M4, F18: by handler and outcome; a degraded result is not a success."""
    served = await serve({"guess": lambda: Degraded(1)})
    async with Peer(served.address, "one") as peer:
        await peer.run(a_request("guess"))
        await peer.run(a_request("echo"))
    text = served.metrics.text()
    assert 'tierflow_attempts_total{handler="guess",outcome="DEGRADED"} 1.0' in text
    assert 'tierflow_attempts_total{handler="echo",outcome="SUCCESS"} 1.0' in text


async def test_the_same_key_on_each_attempt(serve: Serve) -> None:
    """K10, S8: a handler sees its step's idempotency key, the attempt and the epoch."""

    async def ids(context: Context) -> list[Any]:
        return [
            context.idempotency_key,
            context.attempt_id,
            context.epoch,
            context.tenant,
            context.user_id,
            context.run_id,
        ]

    served = await serve({"ids": ids})
    async with Peer(served.address, "one") as peer:
        first = a_request("ids", idempotency_key="order-1", epoch=4)
        second = a_request("ids", idempotency_key="order-1", epoch=5)
        given = [json.loads((await peer.run(each)).output.json) for each in (first, second)]
        assert [each[0] for each in given] == ["order-1", "order-1"]
        assert [each[2] for each in given] == [4, 5]
        assert given[0][1] != given[1][1]


async def test_unary_refusals(serve: Serve) -> None:
    """B3, A1, Lesson 34: what is not taken has its own status and reason."""
    gate = threading.Event()
    served = await serve({"wait": gate.wait}, {"wait": {}}, slots=1)
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub: Any = ExecutorServiceStub(channel)
        assert await stub.ExecuteStep(a_request("nobody")).code() is grpc.StatusCode.FAILED_PRECONDITION
        call = stub.ExecuteStep(a_request("wait"))
        async with Peer(served.address, "one") as peer:
            await peer.settled()
            full = stub.ExecuteStep(a_request("echo"))
            assert await full.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "slots" in await full.details()
        gate.set()
        assert (await call).output.json == "true"


async def test_a_gone_caller_cancels_its_attempt(serve: Serve) -> None:
    """G1, Lesson 32: a unary call that is cancelled cancels the attempt."""
    stopped = asyncio.Event()

    async def wait(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    served = await serve({"wait": wait})
    async with grpc.aio.insecure_channel(served.address) as channel:
        call: Any = ExecutorServiceStub(channel).ExecuteStep(a_request("wait"))
        async with Peer(served.address, "one") as peer:
            await peer.until(lambda: True)
            while not served.engine.runner.busy:
                await peer.settled()
        call.cancel()
        await asyncio.wait_for(stopped.wait(), 60)
