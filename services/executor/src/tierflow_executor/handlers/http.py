"""`http.request`: one HTTP call, with the ids that let the other side recognise a repetition (S8, K10)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field
from tierflow import Context, HandlerFailed, Rejected, handler

from tierflow_executor import released
from tierflow_executor.handlers.authentication import TOKENS, Credentials, authenticate, unsealed
from tierflow_executor.logs import CURRENT
from tierflow_executor.running import Running

MOST_BYTES = 16 << 20
_SAFE = ("GET", "HEAD", "OPTIONS")
_UNAUTHENTICATED = 401
_CONNECT_SECONDS = 10.0
_TIMEOUTS: tuple[type[Exception], ...] = (httpx.TimeoutException,)
_BROKEN: tuple[type[Exception], ...] = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
_WRONG: tuple[type[Exception], ...] = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class Request(BaseModel):
    """What to send."""

    model_config = ConfigDict(extra="forbid")

    url: str
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = {}
    bearer: Annotated[
        str,
        Field(
            description="Name of a secret of the executor that is sent as bearer token; TIERFLOW_SECRETS there says to which hosts."
        ),
    ] = ""
    authentication: Annotated[
        Credentials | None, Field(description="Who asks; instead of a header `authorization`.")
    ] = None
    query: Annotated[dict[str, str | int | float | bool], Field(description="Parameters added to the URL.")] = {}
    body: Annotated[Any, Field(description="Sent as JSON.")] = None
    text: Annotated[str | None, Field(description="Sent as it is, instead of `body`.")] = None
    ok_status: Annotated[list[int], Field(description="Statuses besides 2xx that are not failures.")] = []
    any_status: Annotated[
        bool, Field(description="Whether no status is a failure: what it means is for whoever asks.")
    ] = False
    follow_redirects: bool = True
    max_bytes: Annotated[int, Field(ge=0, le=MOST_BYTES, description="The largest answer that is accepted.")] = 1 << 20


class Response(BaseModel):
    """What came back: `body` where it is JSON, `text` where it is text, `base64` where it is neither."""

    status: int
    headers: dict[str, str] = {}
    body: Any = None
    text: str | None = None
    base64: str | None = None
    pretended: bool = False


@handler("http.request", tool=True)
async def request(context: Context, asked: Request) -> Response:
    """Sends an HTTP request. Hands on `traceparent`, and an `Idempotency-Key` that is the same for all attempts of the step."""
    if context.test_mode and asked.method not in _SAFE:
        return Response(status=0, pretended=True)
    who = None if asked.authentication is None else unsealed(asked.authentication)
    with _mapped_errors(asked.url):
        sent = _client().build_request(
            asked.method,
            asked.url,
            params=asked.query or None,
            headers=_headers(context, asked),
            content=_content(asked),
        )
    with _mapped_errors(who.authority if who is not None else asked.url):
        auth = await authenticate(_client(), who, sent)
    with _mapped_errors(asked.url):
        answer = await _client().send(sent, stream=True, auth=auth, follow_redirects=asked.follow_redirects)
        try:
            data = await _read(answer, asked.max_bytes)
        finally:
            await answer.aclose()
    if who is not None and answer.status_code == _UNAUTHENTICATED:
        TOKENS.forget(who)
    _check(answer, asked, data)
    return _response(answer, data)


@functools.cache
def _client() -> httpx.AsyncClient:
    """One client per process: connections are kept. The time limit is the attempt's."""
    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
    limits = httpx.Limits(max_connections=1_000, max_keepalive_connections=100)
    return httpx.AsyncClient(timeout=timeout, limits=limits, max_redirects=10)


def _headers(context: Context, asked: Request) -> dict[str, str]:
    given = {name.lower(): value for name, value in asked.headers.items()}
    headers = {"idempotency-key": context.idempotency_key, "user-agent": "tierflow"}
    if asked.text is None and asked.body is not None:
        headers["content-type"] = "application/json"
    headers |= given
    if asked.bearer:
        headers["authorization"] = f"Bearer {released.token(asked.bearer, asked.url)}"
    headers["tierflow-attempt"] = context.attempt_id
    headers["tierflow-epoch"] = str(context.epoch)
    if context.traceparent:
        headers["traceparent"] = context.traceparent
        if context.tracestate:
            headers["tracestate"] = context.tracestate
    return headers


def _content(asked: Request) -> bytes | None:
    if asked.text is not None:
        return asked.text.encode()
    return None if asked.body is None else orjson.dumps(asked.body)


async def _read(answer: httpx.Response, most: int) -> bytes:
    attempt = CURRENT.get()
    parts = []
    size = 0
    async for chunk in _chunks(answer):
        if isinstance(attempt, Running):
            attempt.alive()  # what comes in is a sign of life
        size += len(chunk)
        if size > most:
            text = f"the answer is larger than max_bytes ({most}); raise it (up to {MOST_BYTES}) or ask for less"
            raise HandlerFailed(text, code="PAYLOAD_TOO_LARGE", retryable=False)
        parts.append(chunk)
    return b"".join(parts)


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    async for chunk in answer.aiter_bytes(64 * 1024):
        yield chunk


def _check(answer: httpx.Response, asked: Request, data: bytes) -> None:
    """Raises where the status is not one that was asked for. What can help is decided by the status alone."""
    status = answer.status_code
    if asked.any_status or 200 <= status < 300 or status in asked.ok_status:
        return
    code, retryable = "UPSTREAM_ERROR", status >= 500
    if status == 429:
        code, retryable = "RATE_LIMITED", True
    elif status == 408:
        code, retryable = "CONNECTION_TIMEOUT", True
    raise HandlerFailed(
        f"{asked.method} {answer.request.url.copy_with(query=None, userinfo=b'')} answered {status}",
        code=code,
        retryable=retryable,
        retry_after=_retry_after(answer) if retryable else None,
        detail=data[:2_000].decode("utf-8", "replace"),
    )


def _retry_after(answer: httpx.Response) -> float | None:
    """The seconds that the other side wants to be left alone: a number or a date."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(min(int(text), 86_400))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(86_400.0, max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def _response(answer: httpx.Response, data: bytes) -> Response:
    found = Response(status=answer.status_code, headers=dict(answer.headers))
    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
    if kind == "application/json" or kind.endswith("+json"):
        with contextlib.suppress(orjson.JSONDecodeError):
            found.body = orjson.loads(data)
            return found
    try:
        found.text = data.decode(answer.charset_encoding or "utf-8")
    except (UnicodeDecodeError, LookupError):
        found.base64 = base64.b64encode(data).decode()
    if found.text is not None and "\0" in found.text:
        found.text, found.base64 = None, base64.b64encode(data).decode()
    return found


@contextlib.contextmanager
def _mapped_errors(url: str) -> Any:
    """Failures of the connection by their type."""
    try:
        yield
    except asyncio.CancelledError:
        raise
    except _TIMEOUTS as error:
        raise HandlerFailed(
            f"{_shown(url)} did not answer in time", code="CONNECTION_TIMEOUT", retryable=True
        ) from error
    except _BROKEN as error:
        raise HandlerFailed(
            f"the connection to {_shown(url)} failed", code="CONNECTION_FAILED", retryable=True
        ) from error
    except _WRONG as error:
        raise Rejected(f"the request to {_shown(url)} cannot be sent: {error}") from error
    except (httpx.TooManyRedirects, httpx.DecodingError) as error:
        raise HandlerFailed(f"{_shown(url)}: {type(error).__name__}", code="UPSTREAM_ERROR", retryable=False) from error


def _shown(url: str) -> str:
    """The URL without what may be secret in it."""
    try:
        return str(httpx.URL(url).copy_with(query=None, userinfo=b"", fragment=None))
    except (httpx.InvalidURL, TypeError, ValueError):
        return "the URL"
