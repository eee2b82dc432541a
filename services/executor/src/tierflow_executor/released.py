"""Secrets that `http.request` may send, each to the hosts that the operator has named: `TIERFLOW_SECRETS=OPENAI_API_KEY@api.openai.com`.

A flow names a secret and never holds it: its value stays in this process's environment, and is in no request, no journal, no event and no log (L16).
"""

from __future__ import annotations

import functools
import os
import re
from urllib.parse import urlsplit

from tierflow import HandlerFailed

SECRET_AT_HOST = re.compile(r"[A-Za-z_][A-Za-z0-9_]*@[A-Za-z0-9.\-\[\]:]+")
"""A variable of the environment, and the host (with its port where it has one) that may receive it."""


def token(name: str, url: str) -> str:
    """The secret of that name, for a request to that URL. Raises `HandlerFailed` (PERMISSION_DENIED) where it may not be sent there."""
    parts = urlsplit(url)
    hosts = (
        {parts.netloc.rpartition("@")[2].lower(), (parts.hostname or "").lower()}
        if _safe(parts.scheme, parts.hostname)
        else set()
    )
    if (value := os.environ.get(name)) and any(
        f"{name}@{host}" in _released(os.environ.get("TIERFLOW_SECRETS", "")) for host in hosts
    ):
        return value
    raise HandlerFailed(
        f"the secret {name} may not be sent to {parts.hostname}: this executor's TIERFLOW_SECRETS does not say {name}@{parts.hostname}, "
        "or the variable is empty, or the connection is neither encrypted nor local",
        code="PERMISSION_DENIED",
        retryable=False,
    )


def _safe(scheme: str, host: str | None) -> bool:
    return scheme == "https" or host in ("localhost", "127.0.0.1", "::1")


@functools.cache
def _released(text: str) -> frozenset[str]:
    """Names with the hosts they may go to; hosts in lower case, as they are the same in any."""
    pairs = (part.strip().partition("@") for part in text.split(",") if part.strip())
    return frozenset(f"{name}@{host.lower()}" for name, _, host in pairs)
