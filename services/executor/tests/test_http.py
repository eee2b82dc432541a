"""`http.request` and the small handlers for values, against real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_executor.handlers import http
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request
from tierflow_testing.ports import free_port

Serve = Callable[..., Any]
COMPLETED = state_pb2.STEP_STATE_COMPLETED


def code(result: Any) -> str:
    return ERROR_CODES.name(result.failure.code)


class Site:
    """A small HTTP server: answers as its paths say, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, bytes] = {}
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append((first, headers, body))
            self.asked.set()
            path = first.split()[1].partition("?")[0]
            if path == "/hang":
                await reader.read()
                self.gone.set()
            elif path != "/cut":
                writer.write(self.answers.get(path, answer(404, b"none")))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    http._client.cache_clear()  # the client belongs to the loop of its first use
    site = Site()
    await site.start()
    yield site
    await http._client().aclose()
    http._client.cache_clear()
    site.server.close()


def a_call(url: str, timeout: float = 10.0, **fields: Any) -> Any:
    attempt = {
        name: fields.pop(name) for name in ("traceparent", "idempotency_key", "epoch", "test_mode") if name in fields
    }
    return a_request("http.request", json.dumps({"url": url, **fields}), timeout=timeout, **attempt)


async def test_ids_are_handed_on(serve: Serve, site: Site) -> None:
    """S8, K10, M1: traceparent, a stable Idempotency-Key, the attempt and its epoch reach the other side; also on a retry."""
    site.answers["/order"] = answer(201, b'{"id": 1}', content_type="application/json")
    served = await serve()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with Peer(served.address, "one") as peer:
        for epoch in (3, 4):
            call = a_call(
                f"{site.url}/order",
                method="POST",
                body={"n": 1},
                headers={"X-Mine": "1"},
                traceparent=trace,
                idempotency_key="key-1",
                epoch=epoch,
            )
            result = await peer.run(call)
            assert json.loads(result.output.json)["body"] == {"id": 1}
            first, headers, body = site.requests[-1]
            assert first == "POST /order HTTP/1.1"
            assert json.loads(body) == {"n": 1}
            assert headers["content-type"] == "application/json"
            assert headers["idempotency-key"] == "key-1"
            assert headers["traceparent"] == trace
            assert headers["tierflow-attempt"] == call.context.attempt_id
            assert headers["tierflow-epoch"] == str(epoch)
            assert headers["x-mine"] == "1"


STATUSES = [
    (400, "UPSTREAM_ERROR", False),
    (401, "UPSTREAM_ERROR", False),
    (404, "UPSTREAM_ERROR", False),
    (408, "CONNECTION_TIMEOUT", True),
    (429, "RATE_LIMITED", True),
    (500, "UPSTREAM_ERROR", True),
    (503, "UPSTREAM_ERROR", True),
]


@pytest.mark.parametrize(("status", "expected", "retryable"), STATUSES)
async def test_statuses(serve: Serve, site: Site, status: int, expected: str, retryable: bool) -> None:
    """F3, Lesson 13: what can help is decided by the status, whatever the words say; a status that was asked for is no failure."""
    site.answers["/"] = answer(status, b"please retry, permanent failure, timeout")
    served = await serve()
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_call(f"{site.url}/?token=secret"))
        assert (code(result), result.failure.retryable) == (expected, retryable)
        assert "secret" not in str(result.failure.message)
        assert str(status) in result.failure.message
        for more in ({"ok_status": [status]}, {"any_status": True}):
            said = await peer.run(a_call(f"{site.url}/", **more))
            assert json.loads(said.output.json)["status"] == status
        fine = await peer.run(a_call(f"{site.url}/", ok_status=[status]))
        assert json.loads(fine.output.json)["status"] == status


async def test_retry_after_is_honoured(serve: Serve, site: Site) -> None:
    """F12: seconds or a date; the failure carries the least time to wait."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    site.answers = {
        "/a": answer(429, retry_after="7"),
        "/b": answer(503, retry_after=moment),
        "/c": answer(503, retry_after="soon"),
    }
    served = await serve()
    async with Peer(served.address, "one") as peer:
        after = [(await peer.run(a_call(site.url + path))).failure for path in ("/a", "/b", "/c")]
        assert after[0].retry_after.seconds == 7
        assert 50 <= after[1].retry_after.seconds <= 60
        assert not after[2].HasField("retry_after")


async def test_connections_that_fail(serve: Serve, site: Site) -> None:
    """F3: refused, cut, not resolved, unusable: each by the type of its error."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        refused = await peer.run(a_call(f"http://127.0.0.1:{free_port()}/"))
        assert (code(refused), refused.failure.retryable) == ("CONNECTION_FAILED", True)
        cut = await peer.run(a_call(f"{site.url}/cut"))
        assert (code(cut), cut.failure.retryable) == ("CONNECTION_FAILED", True)
        for url in ("ftp://example.org/", "nonsense", "http://"):
            bad = await peer.run(a_call(url))
            assert (code(bad), bad.failure.retryable) == ("HANDLER_REJECTED", False), url


async def test_a_call_is_really_stopped(serve: Serve, site: Site) -> None:
    """F32, G1, Lesson 32: at its timeout, or cancelled, the connection is closed; the other side sees it."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        assert code(await peer.run(a_call(f"{site.url}/hang", timeout=0.3))) == "TIMEOUT"
        await asyncio.wait_for(site.gone.wait(), 60)
        site.gone.clear()
        site.asked.clear()
        call = a_call(f"{site.url}/hang")
        peer.start(call)
        await asyncio.wait_for(site.asked.wait(), 60)
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=call.context.attempt_id)])
        assert (await peer.item("cancelled", call.context.attempt_id)).receipt == pb.CANCEL_RECEIPT_STOPPED
        await asyncio.wait_for(site.gone.wait(), 60)


async def test_answers_are_bounded_and_read(serve: Serve, site: Site) -> None:
    """Q15, Lesson 27, Lesson 28: too large is final; JSON, text and bytes each have their place; NUL does no harm."""
    site.answers = {
        "/large": answer(200, b"x" * 5_000),
        "/text": answer(200, "grün".encode(), content_type="text/plain; charset=utf-8"),
        "/bytes": answer(200, b"\xff\xfe\x00"),
        "/nul": answer(200, b"a\x00b", content_type="text/plain"),
        "/broken": answer(200, b"{", content_type="application/json"),
        "/there": answer(302, location="/text"),
    }
    served = await serve()
    async with Peer(served.address, "one") as peer:
        large = await peer.run(a_call(f"{site.url}/large", max_bytes=1_000))
        assert (code(large), large.failure.retryable) == ("PAYLOAD_TOO_LARGE", False)
        outputs = {
            path: json.loads((await peer.run(a_call(site.url + path))).output.json)
            for path in ("/text", "/bytes", "/nul", "/broken", "/there")
        }
        assert outputs["/text"]["text"] == outputs["/there"]["text"] == "grün"
        assert outputs["/bytes"]["base64"] == "//4A"
        assert outputs["/nul"]["base64"] == "YQBi"
        assert outputs["/broken"]["text"] == "{"
        staying = await peer.run(a_call(f"{site.url}/there", follow_redirects=False, ok_status=[302]))
        assert json.loads(staying.output.json)["headers"]["location"] == "/text"


async def test_a_test_run_changes_nothing(serve: Serve, site: Site) -> None:
    """L12: in test mode what would change something is only pretended; reading is done."""
    site.answers["/"] = answer(200, b"hi")
    served = await serve()
    async with Peer(served.address, "one") as peer:
        posted = await peer.run(a_call(f"{site.url}/", method="POST", test_mode=True))
        assert json.loads(posted.output.json)["pretended"]
        assert site.requests == []
        assert json.loads((await peer.run(a_call(f"{site.url}/", test_mode=True))).output.json)["text"] == "hi"


VALUES = [
    ("json.parse", {"text": "[1, 2]"}, [1, 2]),
    ("json.format", {"value": {"b": 1, "a": [2]}, "sort_keys": True}, '{"a":[2],"b":1}'),
    ("text.join", {"items": ["a", "b"], "separator": "-"}, "a-b"),
    ("text.split", {"text": "a,b,c", "separator": ",", "most": 1}, ["a", "b,c"]),
    ("text.replace", {"text": "aXbX", "old": "X", "new": ""}, "ab"),
]


@pytest.mark.parametrize(("name", "given", "expected"), VALUES)
async def test_values(serve: Serve, name: str, given: dict[str, Any], expected: Any) -> None:
    """B14: small handlers for texts and JSON."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        assert json.loads((await peer.run(a_request(name, json.dumps(given)))).output.json) == expected


async def test_values_refuse_for_good(serve: Serve) -> None:
    """Lesson 13: what can never work is not retried."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        for name, given in (("json.parse", {"text": "{"}), ("text.split", {"text": "a", "separator": ""})):
            assert code(await peer.run(a_request(name, json.dumps(given)))) == "HANDLER_REJECTED"


async def test_a_secret_is_sent_and_in_nothing_else(serve: Serve, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """L16: the request names the secret; its value reaches the host that it is released for, and is in no result."""
    monkeypatch.setenv("TIERFLOW_SECRETS", f"THE_KEY@{site.url.removeprefix('http://')}")
    monkeypatch.setenv("THE_KEY", "s3cret-value")
    site.answers["/"] = answer(200, b"{}", content_type="application/json")
    served = await serve()
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_call(f"{site.url}/", bearer="THE_KEY"))
        assert result.state == COMPLETED
        assert site.requests[-1][1]["authorization"] == "Bearer s3cret-value"
        assert b"s3cret-value" not in result.SerializeToString()
        refused = await peer.run(a_call(f"{site.url}/", bearer="PATH"))
        assert code(refused) == "PERMISSION_DENIED"
        assert len(site.requests) == 1
