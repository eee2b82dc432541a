"""How attempts end: typed failures, outputs, logs, usage; and that nothing of it harms anybody else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from pydantic import BaseModel
from tierflow import BudgetExhausted, Context, Degraded, HandlerFailed, Rejected
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.payload_pb2 import BlobRef, Payload
from tierflow_contracts.executor.v1.executor_service_pb2_grpc import ExecutorServiceStub
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as blobs_pb
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import (
    BlobServiceServicer,
    add_BlobServiceServicer_to_server,
)
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


class Order(BaseModel):
    item: str
    count: int


class Receipt(BaseModel):
    total: float


async def _charge(context: Context, order: Order) -> Receipt:
    return Receipt(total=order.count * 2.5)


def _add(a: int, b: int = 1) -> int:
    return a + b


async def test_typed_handlers(serve: Serve) -> None:
    """B14: input is prepared by the handler's types, async or plain, whole or by name; what it returns is JSON."""
    served = await serve({"charge": _charge, "add": _add})
    async with Peer(served.address, "one") as peer:
        assert json.loads((await peer.run(a_request("charge", '{"item": "tea", "count": 2}'))).output.json) == {
            "total": 5.0
        }
        assert (await peer.run(a_request("add", '{"a": 2}'))).output.json == "3"
        offered = {each.name: each for each in peer.hello.handlers}
        assert json.loads(offered["charge"].input_schema_json)["required"] == ["item", "count"]
        assert json.loads(offered["charge"].output_schema_json)["properties"]["total"]["type"] == "number"


async def test_input_that_does_not_match(serve: Serve) -> None:
    """F22, Lesson 13: INPUT_INVALID with every violation and its path, not retryable; the handler is not called."""
    served = await serve({"charge": _charge})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("charge", '{"count": "many"}'))
        assert code(result) == "INPUT_INVALID"
        assert not result.failure.retryable
        assert {each.field for each in result.failure.violations} == {"input.item", "input.count"}


def _raising(error: BaseException) -> Callable[..., Any]:
    async def fail(context: Context) -> None:
        raise error

    return fail


class Declined(Exception):
    """A user's own error."""


RAISED = [
    (Declined("retryable? no: rejected for good"), "HANDLER_FAILED", True),
    (HandlerFailed("later", retry_after=2.5), "HANDLER_FAILED", True),
    (HandlerFailed("busy", code="RATE_LIMITED"), "RATE_LIMITED", True),
    (Rejected("connection timed out"), "HANDLER_REJECTED", False),
    (MemoryError(), "MEMORY_EXCEEDED", False),
    (SystemExit(3), "HANDLER_FAILED", True),
    (KeyboardInterrupt(), "HANDLER_FAILED", True),
    (GeneratorExit(), "HANDLER_FAILED", True),
    (asyncio.CancelledError(), "HANDLER_FAILED", True),
    (RecursionError("deep"), "HANDLER_FAILED", True),
]


@pytest.mark.parametrize(("error", "expected", "retryable"), RAISED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("plain", [False, True])
async def test_whatever_is_raised_is_a_typed_failure(
    serve: Serve, error: BaseException, expected: str, retryable: bool, plain: bool
) -> None:
    """F22, F27, F28, Lesson 13: decided by type, never by words; SystemExit and the like end nothing but their own attempt."""

    def fail_plainly(context: Context) -> None:
        raise error

    served = await serve({"fail": fail_plainly if plain else _raising(error)})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("fail"))
        assert (result.state, code(result), result.failure.retryable) == (FAILED, expected, retryable)
        assert result.failure.component == "fail"
        assert result.failure.step_id == "step"
        assert result.failure.attempt == 1
        assert "Traceback" not in result.failure.message
        assert (await peer.run(a_request("echo", "1"))).state == COMPLETED


async def test_the_cause_is_kept(serve: Serve) -> None:
    """F22, F23: what caused a failure goes with it, and retry_after as well."""

    async def fail(context: Context) -> None:
        try:
            raise Declined("first")
        except Declined as error:
            raise HandlerFailed("second", retry_after=2.5) from error

    served = await serve({"fail": fail})
    async with Peer(served.address, "one") as peer:
        failure = (await peer.run(a_request("fail"))).failure
        assert failure.message == "second"
        assert failure.retry_after.ToMilliseconds() == 2500
        assert "first" in failure.cause.message


class Unreal(BaseModel):
    number: float


BAD_OUTPUTS: dict[str, Callable[..., Any]] = {
    "nan": lambda: math.nan,
    "infinity": lambda: {"deep": [1, -math.inf]},
    "nan in a model": lambda: Unreal(number=math.nan),
    "nul": lambda: {"text": "a\0b"},
    "surrogate": lambda: "\ud800",
    "object": lambda: object(),
    "set of sets": lambda: {frozenset({1}): 2},
}


@pytest.mark.parametrize("name", BAD_OUTPUTS)
async def test_output_that_is_not_json(serve: Serve, name: str) -> None:
    """Lesson 28: NaN, NUL, broken text and things that are not JSON are OUTPUT_INVALID, for good; nothing stays RUNNING."""
    function = BAD_OUTPUTS[name]

    def give() -> Any:
        return function()

    served = await serve({"give": give})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("give"))
        assert (code(result), result.failure.retryable) == ("OUTPUT_INVALID", False)


async def test_output_that_is_not_as_declared(serve: Serve) -> None:
    """F22: a handler that returns something else than it declares has failed with OUTPUT_INVALID."""

    async def give(context: Context) -> Receipt:
        return "no receipt"  # type: ignore[return-value]

    served = await serve({"give": give})
    async with Peer(served.address, "one") as peer:
        assert code(await peer.run(a_request("give"))) == "OUTPUT_INVALID"


async def test_a_text_that_only_looks_like_nul_is_fine(serve: Serve) -> None:
    """Lesson 28: a backslash before `u0000` that is itself escaped is a text, not a NUL."""
    served = await serve({"give": lambda: "\\u0000 None null NaN"})
    async with Peer(served.address, "one") as peer:
        assert json.loads((await peer.run(a_request("give"))).output.json) == "\\u0000 None null NaN"


async def test_a_fallback_is_not_a_success(serve: Serve) -> None:
    """F18: a result that a fallback made has outcome DEGRADED."""

    async def guess(context: Context) -> int | Degraded[int]:
        return Degraded(7)

    served = await serve({"guess": guess})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("guess"))
        assert (result.state, result.outcome, result.output.json) == (COMPLETED, state_pb2.OUTCOME_DEGRADED, "7")


async def test_one_poisonous_attempt_among_a_hundred(serve: Serve) -> None:
    """F27: 99 complete."""

    async def maybe(context: Context, x: dict[str, int]) -> int:
        if x["n"] == 50:
            raise SystemExit
        return x["n"]

    served = await serve({"maybe": maybe}, slots=10)
    async with Peer(served.address, "one") as peer:
        requests = [a_request("maybe", json.dumps({"n": number})) for number in range(100)]
        peer.start(*requests)
        await peer.until(lambda: len(peer.results()) == 100)
        assert sorted(each.state for each in peer.results()) == [COMPLETED] * 99 + [FAILED]


async def test_logs_are_kept(serve: Serve, capture: Callable[[], None]) -> None:
    """Q27: `context.log`, `print` and `logging`, of async and plain handlers, each with its own attempt; only the last 32 KiB."""
    import logging

    def speak(context: Context, name: str) -> None:
        context.log.info("hello %s", name)
        print("printed", name)
        logging.getLogger("mine").warning("warned %s", name)
        print("without an end", end="")

    async def speak_async(context: Context, name: str) -> None:
        await asyncio.sleep(0)
        speak(context, name)

    async def much(context: Context) -> None:
        for number in range(2_000):
            context.log.info("line %05d %s", number, "x" * 50)

    capture()
    served = await serve({"speak": speak, "speak.async": speak_async, "much": much})
    async with Peer(served.address, "one") as peer:
        for name in ("speak", "speak.async"):
            requests = [a_request(name, json.dumps({"name": each})) for each in ("ann", "bob")]
            peer.start(*requests)
            for each, request in zip(("ann", "bob"), requests, strict=True):
                result = await peer.result(request.context.attempt_id)
                assert [(line.stream, line.text) for line in result.logs] == [
                    ("info", f"hello {each}"),
                    ("stdout", f"printed {each}"),
                    ("warning", f"warned {each}"),
                    ("stdout", "without an end"),
                ]
        lines = (await peer.run(a_request("much"))).logs
        assert "line 01999" in lines[-1].text
        assert sum(len(line.text) for line in lines) <= 32 * 1024
        assert "earlier lines were cut" in lines[0].text


async def test_spending_is_booked_and_bounded(serve: Serve) -> None:
    """D5, F22: what was spent is in the usage, also of a failed attempt; more than was granted ends it with BUDGET_EXHAUSTED; the rest goes back."""

    async def spend(context: Context, n: int) -> None:
        for _ in range(n):
            context.spend(2**53 + 1, input_tokens=10, output_tokens=5, tool_calls=1, pages=0.5)
        raise Declined

    served = await serve({"spend": spend})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("spend", '{"n": 2}', credits=2**62, tokens=100, tool_calls=2))
        assert code(result) == "HANDLER_FAILED"
        assert result.usage.credits == 2 * (2**53 + 1)
        assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.tool_calls) == (20, 10, 2)
        assert result.usage.metrics["pages"] == 1.0
        assert result.allocation_returned.credits == 2**62 - result.usage.credits
        assert result.allocation_returned.tokens == 70
        assert result.allocation_returned.tool_calls == 0
        over = await peer.run(a_request("spend", '{"n": 3}', tool_calls=2))
        assert (code(over), over.failure.retryable) == ("BUDGET_EXHAUSTED", False)
        assert over.usage.tool_calls == 3
        assert BudgetExhausted.default_code == "BUDGET_EXHAUSTED"


async def test_forbidden_without_a_grant(serve: Serve) -> None:
    """B3: a side-effecting handler refuses to run without Tier 2's grant token, and runs with it."""
    served = await serve({"pay": lambda: "paid"}, {"pay": {"side_effecting": True}})
    async with Peer(served.address, "one") as peer:
        assert next(each for each in peer.hello.handlers if each.name == "pay").side_effecting
        assert code(await peer.run(a_request("pay"))) == "PERMISSION_DENIED"
        assert (await peer.run(a_request("pay", grant_token="gate-1"))).state == COMPLETED


async def test_a_request_that_breaks_the_contract(serve: Serve) -> None:
    """A1, A5: on the stream it ends as INVALID_REQUEST with all violations, and nothing is started."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        request = a_request("echo")
        request.ClearField("options")
        request.context.ClearField("epoch")
        result = await peer.run(request)
        assert code(result) == "INVALID_REQUEST"
        assert {each.field for each in result.failure.violations} == {"options", "context.epoch"}
        assert not result.HasField("started_at")


class Blobs(BlobServiceServicer):
    """An orchestrator's blob service: content in memory, as bytes by their hash."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.away = False
        self.asked = asyncio.Event()

    async def PutBlob(  # noqa: N802 - named by the contract
        self, requests: Any, context: Any
    ) -> blobs_pb.PutBlobResponse:
        self.asked.set()
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        parts = [part async for part in requests]
        content = b"".join(part.chunk for part in parts[1:])
        assert all(len(part.chunk) <= 256 * 1024 for part in parts)
        assert hashlib.sha256(content).hexdigest() == parts[0].sha256
        self.content[parts[0].sha256] = content
        return blobs_pb.PutBlobResponse(size=len(content), created=True)

    async def GetBlob(  # noqa: N802 - named by the contract
        self, request: Any, context: Any
    ) -> Any:
        if request.sha256 not in self.content:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        content = self.content[request.sha256]
        for start in range(0, len(content), 256 * 1024):
            yield blobs_pb.GetBlobResponse(chunk=content[start : start + 256 * 1024])


@pytest.fixture
async def blobs() -> Any:
    server = grpc.aio.server()
    service = Blobs()
    add_BlobServiceServicer_to_server(service, server)
    service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"  # type: ignore[attr-defined]
    await server.start()
    yield service
    await server.stop(None)


async def test_large_outputs_go_by_reference(serve: Serve, blobs: Any) -> None:
    """Q15, Lesson 27: over 64 KB an output is stored at its orchestrator and named by its hash; it comes back as input, checked."""
    served = await serve({"big": lambda n: "x" * n, "length": lambda x: len(x["text"])}, slots=4)
    async with Peer(served.address, "one", blobs=blobs.address) as peer:
        result = await peer.run(a_request("big", "3000000"))
        assert result.output.WhichOneof("kind") == "ref"
        assert result.output.ref.size == 3_000_002
        assert json.loads(blobs.content[result.output.ref.sha256]) == "x" * 3_000_000
        text = json.dumps({"text": "y" * 100_000}).encode()
        sha256 = hashlib.sha256(text).hexdigest()
        blobs.content[sha256] = text
        ref = Payload(ref=BlobRef(sha256=sha256, size=len(text)))
        for handler in ("length", "echo"):
            request = a_request(handler)
            request.input.input.CopyFrom(ref)
            result = await peer.run(request)
            assert result.state == COMPLETED, result.failure
        assert result.output.ref.sha256 == sha256, "echo gives the same content back"


async def test_a_blob_that_is_not_what_it_says(serve: Serve, blobs: Any) -> None:
    """Q15: content that does not match its name never reaches a handler."""
    seen = []
    served = await serve({"see": lambda x: seen.append(x)})
    blobs.content["a" * 64] = b'"something else"'
    async with Peer(served.address, "one", blobs=blobs.address) as peer:
        request = a_request("see")
        request.input.input.CopyFrom(Payload(ref=BlobRef(sha256="a" * 64, size=5)))
        peer.start(request)
        await peer.item("started", request.context.attempt_id)
        peer.send(cancel=[{"attempt_id": request.context.attempt_id}])
        assert (await peer.result(request.context.attempt_id)).state == CANCELLED
        request = a_request("see")
        request.input.input.CopyFrom(Payload(ref=BlobRef(sha256="b" * 64, size=5)))
        assert code(await peer.run(request)) == "NOT_FOUND"
        assert seen == []


async def test_a_result_waits_for_its_blob_store(serve: Serve, blobs: Any) -> None:
    """R27, Lesson 27: while the orchestrator is away a large result is not thrown away: it is stored when it is back, and the work is not repeated."""
    calls = []

    async def big(context: Context) -> str:
        calls.append(1)
        return "x" * 100_000

    served = await serve({"big": big})
    blobs.away = True
    async with Peer(served.address, "one", blobs=blobs.address) as peer:
        request = a_request("big")
        peer.start(request)
        await blobs.asked.wait()
        blobs.away = False
        result = await peer.result(request.context.attempt_id)
        assert result.output.ref.size == 100_002
        assert calls == [1]


async def test_too_large_is_final(serve: Serve, blobs: Any) -> None:
    """Q15, Lesson 27: over 64 MiB the producer fails, typed and for good."""
    served = await serve({"huge": lambda: "x" * (65 << 20)})
    async with Peer(served.address, "one", blobs=blobs.address) as peer:
        result = await peer.run(a_request("huge", timeout=60))
        assert (code(result), result.failure.retryable) == ("PAYLOAD_TOO_LARGE", False)
        assert blobs.content == {}


async def test_handlers_stream_blobs(serve: Serve, blobs: Any) -> None:
    """Q15: a handler reads and writes large values in pieces."""

    async def double(context: Context, blob: dict[str, Any]) -> dict[str, Any]:
        from tierflow import Blob

        async def pieces() -> Any:
            async for chunk in context.blob(Blob(**blob)):
                yield chunk * 2

        return (await context.store(pieces(), "text/plain")).model_dump()

    content = b"ab" * 200_000
    sha256 = hashlib.sha256(content).hexdigest()
    blobs.content[sha256] = content
    served = await serve({"double": double})
    async with Peer(served.address, "one", blobs=blobs.address) as peer:
        result = await peer.run(a_request("double", json.dumps({"sha256": sha256, "size": len(content)})))
        named = json.loads(result.output.json)
        assert (named["size"], named["media_type"]) == (800_000, "text/plain")
        assert len(blobs.content[named["sha256"]]) == 800_000


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
    name, trace_id, span_id, parent_id, started, ended, attributes, status = spans.recorded[0]
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
        await asyncio.wait_for(stopped.wait(), 10)
