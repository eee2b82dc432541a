"""Large values: by reference, checked, and never lost on the way."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tierflow import Context
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.common.v1.payload_pb2 import BlobRef, Payload
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as blobs_pb
from tierflow_contracts.orchestrator.v1.orchestrator_service_pb2_grpc import (
    BlobServiceServicer,
    add_BlobServiceServicer_to_server,
)
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


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
async def test_stored_values_hold_no_secrets(
    serve: Serve, blobs: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """L16: whatever a handler stores by itself is without the values of its secrets, also where one is spread over pieces."""
    monkeypatch.setenv("TIERFLOW_SECRET_KEY", "canary-71f0c3")

    async def keeps(context: Context, key: str) -> dict[str, Any]:
        content = f"<{key}> and {key}{key}, canary-71f0".encode()

        async def pieces() -> Any:
            for start in range(0, len(content), size):
                yield content[start : start + size]

        return (await context.store(pieces() if size < 1_000 else content, "text/plain")).model_dump()

    served = await serve({"keeps": keeps})
    request = a_request("keeps", json.dumps({"key": "{{secret:KEY}}"}))
    request.input.secrets.append("KEY")
    async with Peer(served.address, "one", blobs=blobs.address) as peer:
        result = await peer.run(request)
    stored = blobs.content[json.loads(result.output.json)["sha256"]]
    assert stored == b"<***> and ******, canary-71f0"
