"""`http.request` says who asks: tokens are asked for, kept, renewed; nothing of it leaves."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tierflow_contracts.common.v1 import state_pb2
from tierflow_executor.handlers.authentication import Tokens
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request

from .test_http import Site, answer, site

__all__ = ["site"]
Serve = Callable[..., Any]
COMPLETED = state_pb2.STEP_STATE_COMPLETED
JSON = {"content_type": "application/json"}


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without tokens."""
    tokens = Tokens()
    for module in ("authentication", "http"):
        monkeypatch.setattr(f"tierflow_executor.handlers.{module}.TOKENS", tokens)


def a_call(url: str, **authentication: Any) -> Any:
    return a_request("http.request", json.dumps({"url": url, "any_status": True, "authentication": authentication}))


def oauth2(site: Site, **more: Any) -> dict[str, Any]:
    client = {"id": "me", "secret": "client-s3cret"}
    return {"scheme": "oauth2", "authority": f"{site.url}/realm", "client": client, "scopes": ["a", "b"], **more}


def gives(token: str, **more: Any) -> bytes:
    return answer(200, json.dumps({"access_token": token, "expires_in": 3600, **more}).encode(), **JSON)


async def test_a_token_is_asked_for_once(serve: Serve, site: Site) -> None:
    """L16, Q15: with the client's id and secret, for the scopes; it is kept for the next attempts, and is in no result even where the other side says it."""
    site.answers["/realm/oauth2/token"] = gives("t0ken-value")
    site.answers["/"] = answer(200, b'{"you sent": "Bearer t0ken-value"}', **JSON)
    served = await serve()
    async with Peer(served.address, "one") as peer:
        for _ in range(2):
            result = await peer.run(a_call(f"{site.url}/", **oauth2(site)))
            assert result.state == COMPLETED
            assert b"t0ken-value" not in result.SerializeToString()
        paths = [first.split()[1] for first, _, _ in site.requests]
        assert paths == ["/realm/oauth2/token", "/", "/"]
        assert (
            site.requests[0][2] == b"grant_type=client_credentials&scope=a+b&client_id=me&client_secret=client-s3cret"
        )
        assert site.requests[2][1]["authorization"] == "Bearer t0ken-value"


async def test_many_at_once_ask_for_one_token(serve: Serve, site: Site) -> None:
    """K10: who needs the same token waits for it."""
    site.answers["/realm/oauth2/token"] = gives("t0ken-value")
    site.answers["/"] = answer(200, b"{}", **JSON)
    served = await serve()
    async with Peer(served.address, "one") as peer:
        calls = [a_call(f"{site.url}/", **oauth2(site)) for _ in range(5)]
        assert {result.state for result in await asyncio.gather(*map(peer.run, calls))} == {COMPLETED}
    assert sum("/token" in first for first, _, _ in site.requests) == 1


async def test_a_token_that_is_over_or_refused_is_asked_for_anew(serve: Serve, site: Site) -> None:
    """K10: shortly before it expires, and after a 401."""
    site.answers["/realm/oauth2/token"] = gives("short", expires_in=5)
    site.answers["/"] = answer(401, b"{}", **JSON)
    served = await serve()
    async with Peer(served.address, "one") as peer:
        for _ in range(2):
            await peer.run(a_call(f"{site.url}/", **oauth2(site)))
        site.answers["/realm/oauth2/token"] = gives("long")
        for _ in range(2):
            await peer.run(a_call(f"{site.url}/", **oauth2(site)))
    assert sum("/token" in first for first, _, _ in site.requests) == 4


async def test_openid_connect_says_where_tokens_are(serve: Serve, site: Site) -> None:
    """L16: its configuration names the endpoint; the client may say who it is in a header."""
    there = {"token_endpoint": f"{site.url}/there"}
    site.answers["/realm/.well-known/openid-configuration"] = answer(200, json.dumps(there).encode(), **JSON)
    site.answers["/there"] = gives("t0ken-value")
    site.answers["/"] = answer(200, b"{}", **JSON)
    served = await serve()
    who = oauth2(site, scheme="oidc", client={"id": "me", "secret": "s", "authentication": "client_secret_basic"})
    async with Peer(served.address, "one") as peer:
        assert (await peer.run(a_call(f"{site.url}/", **who))).state == COMPLETED
    _, headers, body = site.requests[1]
    assert (headers["authorization"], b"client_secret" in body) == ("Basic bWU6cw==", False)


@pytest.mark.parametrize(
    ("status", "expected", "retryable"), [(400, "UNAUTHENTICATED", False), (503, "UPSTREAM_ERROR", True)]
)
async def test_no_token(serve: Serve, site: Site, status: int, expected: str, retryable: bool) -> None:
    """F3, Lesson 13: whether another attempt can help is said by the status; the call itself is not made."""
    site.answers["/realm/oauth2/token"] = answer(status, b'{"error": "invalid_client"}', **JSON)
    served = await serve()
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_call(f"{site.url}/", **oauth2(site)))
    assert (ERROR_CODES.name(result.failure.code), result.failure.retryable) == (expected, retryable)
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("scheme", "secret", "header"),
    [
        ("bearer", "plain-token", "Bearer plain-token"),
        ("bearer", '{"token": "json-token"}', "Bearer json-token"),
        ("basic", '{"username": "u", "password": "passw0rd"}', "Basic dTpwYXNzdzByZA=="),
    ],
)
async def test_a_secret_holds_the_rest(
    serve: Serve, site: Site, monkeypatch: pytest.MonkeyPatch, scheme: str, secret: str, header: str
) -> None:
    """E15, L16: the request holds a handle, the executor puts the secret in; its parts are masked as well."""
    monkeypatch.setenv("TIERFLOW_SECRET_THE_KEY", secret)
    site.answers["/"] = answer(200, json.dumps({"said": "json-token passw0rd"}).encode(), **JSON)
    request = a_call(f"{site.url}/", scheme=scheme, secret="{{secret:THE_KEY}}")
    request.input.secrets.append("THE_KEY")
    served = await serve()
    async with Peer(served.address, "one") as peer:
        result = await peer.run(request)
    assert (result.state, site.requests[0][1]["authorization"]) == (COMPLETED, header)
    for part in ("token", "password"):
        if part in secret and secret.startswith("{"):
            assert json.loads(secret)[part].encode() not in result.SerializeToString()


async def test_a_secret_that_is_none(serve: Serve, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """F3: refused for good, without a word of it."""
    monkeypatch.setenv("TIERFLOW_SECRET_THE_KEY", '{"usr": "u"}')
    request = a_call(f"{site.url}/", scheme="basic", secret="{{secret:THE_KEY}}")
    request.input.secrets.append("THE_KEY")
    served = await serve()
    async with Peer(served.address, "one") as peer:
        result = await peer.run(request)
    assert ERROR_CODES.name(result.failure.code) == "HANDLER_REJECTED"
    assert b"usr" not in result.SerializeToString()


async def test_digest(serve: Serve, site: Site) -> None:
    """L16: the password is proven, not sent."""
    site.answers["/"] = answer(401, b"", www_authenticate='Digest realm="r", nonce="n", qop="auth", algorithm=MD5')
    served = await serve()
    async with Peer(served.address, "one") as peer:
        await peer.run(a_call(f"{site.url}/", scheme="digest", username="u", password="passw0rd"))
    assert len(site.requests) == 2
    said = site.requests[1][1]["authorization"]
    assert said.startswith('Digest username="u", realm="r", nonce="n"')
    assert "passw0rd" not in said
