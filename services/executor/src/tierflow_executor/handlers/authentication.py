"""How `http.request` says who asks: basic, bearer, digest, OAuth 2 and OpenID Connect.

Tokens of OAuth 2 are asked for once and kept in this process until shortly before they expire; one that is answered 401 is forgotten. What was a secret, and every
token, is masked in whatever the attempt returns or writes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import httpx
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tierflow import HandlerFailed, Rejected

from tierflow_executor.logs import CURRENT
from tierflow_executor.running import Running

How: TypeAlias = Any
"""What httpx takes as `auth`; the type of its default has no public name."""
_EARLY_SECONDS: Final = 30.0
"""So long before it expires a token is not used any more."""
_DEFAULT_SECONDS: Final = 300.0
"""How long a token is kept whose life nobody says."""
_MOST_TOKENS: Final = 1_000
_MOST_DETAIL: Final = 500
_WELL_KNOWN: Final = "/.well-known/openid-configuration"


class Client(BaseModel):
    """Who asks for tokens."""

    model_config = ConfigDict(extra="forbid")

    id: str = ""
    secret: str = ""
    authentication: Literal["client_secret_basic", "client_secret_post", "none"] = "client_secret_post"


class Credentials(BaseModel):
    """Which way, and with what. With `secret` the rest may be in it: a JSON object with these keys, or a bearer token."""

    model_config = ConfigDict(extra="forbid")

    scheme: Literal["basic", "bearer", "digest", "oauth2", "oidc"]
    secret: Annotated[
        str, Field(description="The rest, as JSON text: for values that are a secret of the executor.")
    ] = ""
    username: str = ""
    password: str = ""
    token: str = ""
    authority: Annotated[str, Field(description="URL of whoever gives tokens.")] = ""
    endpoints: Annotated[dict[str, str], Field(description="`token`: path or URL of its endpoint.")] = {}
    grant: Literal["client_credentials", "password"] = "client_credentials"
    client: Client = Client()
    scopes: list[str] = []
    audiences: list[str] = []
    encoding: Literal["application/x-www-form-urlencoded", "application/json"] = "application/x-www-form-urlencoded"


class Tokens:
    """The tokens that this process has, by what they were asked for with."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, float]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def get(self, client: httpx.AsyncClient, who: Credentials) -> str:
        """A token that is good for a while. Raises `HandlerFailed`."""
        key = _key(who)
        async with self._asking.setdefault(key, asyncio.Lock()):
            token, until = self._kept.get(key, ("", 0.0))
            if time.monotonic() >= until:
                token, seconds = await _ask(client, who)
                if len(self._kept) >= _MOST_TOKENS:
                    self._kept.clear()
                    self._asking.clear()
                self._kept[key] = (token, time.monotonic() + seconds - _EARLY_SECONDS)
        return token

    def forget(self, who: Credentials) -> None:
        """A token was refused."""
        self._kept.pop(_key(who), None)


TOKENS: Final = Tokens()


def unsealed(given: Credentials) -> Credentials:
    """The credentials with what is in their secret. Raises `Rejected`."""
    if not given.secret:
        return given
    _hide(given.secret)
    found: Any = {}
    if given.secret.lstrip().startswith("{"):
        try:
            found = orjson.loads(given.secret)
            who = Credentials.model_validate({**found, "scheme": given.scheme})
        except (orjson.JSONDecodeError, ValidationError) as error:
            raise Rejected(f"the secret is no credentials for {given.scheme}: {type(error).__name__}") from None
    elif given.scheme == "bearer":
        who = Credentials(scheme="bearer", token=given.secret)
    else:
        raise Rejected(f"the secret is no credentials for {given.scheme}: it is no JSON object")
    for value in (who.password, who.token, who.client.secret):
        _hide(value)
    return who


async def authenticate(client: httpx.AsyncClient, who: Credentials | None, sent: httpx.Request) -> How:
    """Says in a request who asks; what is returned has to go with it. Raises `HandlerFailed`, `Rejected`."""
    if who is None:
        return httpx.USE_CLIENT_DEFAULT
    if who.scheme == "basic":
        return httpx.BasicAuth(who.username, who.password)
    if who.scheme == "digest":
        return httpx.DigestAuth(who.username, who.password)
    token = who.token if who.scheme == "bearer" else await TOKENS.get(client, who)
    _hide(token)
    sent.headers["authorization"] = f"Bearer {token}"
    return httpx.USE_CLIENT_DEFAULT


def _hide(value: str) -> None:
    """Masks a value in whatever leaves this attempt."""
    attempt = CURRENT.get()
    if isinstance(attempt, Running):
        attempt.hide(value)


def _key(who: Credentials) -> str:
    return hashlib.sha256(orjson.dumps(who.model_dump(), option=orjson.OPT_SORT_KEYS)).hexdigest()


async def _ask(client: httpx.AsyncClient, who: Credentials) -> tuple[str, float]:
    """A new token, and for how many seconds it is good."""
    form = _form(who)
    basic: How = httpx.USE_CLIENT_DEFAULT
    if who.client.authentication == "client_secret_basic":
        basic = httpx.BasicAuth(who.client.id, who.client.secret)
    elif who.client.id:
        form["client_id"] = who.client.id
        if who.client.authentication == "client_secret_post" and who.client.secret:
            form["client_secret"] = who.client.secret
    sent: dict[str, Any] = {"json": form} if who.encoding == "application/json" else {"data": form}
    answer = await client.post(await _endpoint(client, who), auth=basic, **sent)
    found = _read(answer, "tokens")
    token = found.get("access_token")
    if not isinstance(token, str) or not token:
        raise HandlerFailed(
            f"{answer.request.url.host} answered without an access_token", code="UNAUTHENTICATED", retryable=False
        )
    seconds = found.get("expires_in")
    return token, float(seconds) if isinstance(seconds, int | float) else _DEFAULT_SECONDS


def _form(who: Credentials) -> dict[str, str]:
    form: dict[str, str] = {"grant_type": who.grant}
    if who.grant == "password":
        form |= {"username": who.username, "password": who.password}
    if who.scopes:
        form["scope"] = " ".join(who.scopes)
    if who.audiences:
        form["audience"] = " ".join(who.audiences)
    return form


async def _endpoint(client: httpx.AsyncClient, who: Credentials) -> str:
    """Where tokens are asked for: said, as OAuth 2 has it below the authority, or as OpenID Connect says of itself."""
    authority, said = who.authority.rstrip("/"), who.endpoints.get("token", "")
    if "://" in said:
        return said
    if not authority:
        raise Rejected("authentication: authority is missing")
    if said or who.scheme == "oauth2":
        return f"{authority}/{(said or 'oauth2/token').lstrip('/')}"
    found = _read(await client.get(authority + _WELL_KNOWN), "its configuration").get("token_endpoint")
    if not isinstance(found, str):
        raise Rejected(f"{authority}{_WELL_KNOWN} names no token_endpoint")
    return found


def _read(answer: httpx.Response, what: str) -> Mapping[str, Any]:
    """The object in an answer. Raises `HandlerFailed` where it is none; what can help is decided by the status alone."""
    try:
        found = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        found = None
    if answer.is_success and isinstance(found, dict):
        return found
    code, later = "UNAUTHENTICATED", answer.status_code == 429 or answer.status_code >= 500
    if later:
        code = "UPSTREAM_ERROR"
    text = f"{answer.request.url.host} answered {answer.status_code} when it was asked for {what}"
    raise HandlerFailed(text, code=code, retryable=later, detail=answer.text[:_MOST_DETAIL])
