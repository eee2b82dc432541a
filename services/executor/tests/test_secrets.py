"""Secrets by handle: values take their place here, and leave with nothing that an attempt returns, reports or writes."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Context, HandlerFailed
from tierflow_runtime.secrets import handle
from tierflow_testing.executor_peer import Peer, a_request

Serve = Callable[..., Any]
CANARY = 'can"ary-7c1f\\e'
"""With characters that look otherwise within JSON."""


def request(handler: str, given: dict[str, Any], *names: str, tenant: str = "") -> Any:
    made = a_request(handler, json.dumps(given))
    made.input.secrets.extend(names)
    if tenant:
        made.context.tenant = tenant
    return made


SEEN: list[Any] = []


async def _chatty(context: Context, auth: str, mode: str = "") -> dict[str, str]:
    SEEN.append(auth)
    context.log.info("the header is %s", auth)
    context.progress(10, f"sending {auth}")
    context.heartbeat({"at": auth})
    print("printed", auth)
    if mode == "fail":
        raise HandlerFailed(f"{auth} was refused", detail=f"sent {auth}") from ValueError(auth)
    if mode == "break":
        raise RuntimeError(auth)
    return {"echo": auth, "plain": auth.removeprefix("Bearer ")}


def _typed(auth: int) -> int:
    return auth


@pytest.fixture(autouse=True)
def value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERFLOW_SECRET_API_KEY", CANARY)
    SEEN.clear()


@pytest.mark.parametrize("mode", ["", "fail", "break"])
async def test_a_value_reaches_the_handler_and_nothing_else(serve: Serve, mode: str) -> None:
    """L16, E15, Lesson 10: not the result, not a failure with its causes, not what was written or reported."""
    served = await serve({"chatty": _chatty})
    async with Peer(served.address, "one") as peer:
        given = {"auth": f"Bearer {handle('API_KEY')}", "mode": mode}
        result = await peer.run(request("chatty", given, "API_KEY"))
    assert [f"Bearer {CANARY}"] == SEEN
    told = str(result)
    for form in (CANARY, json.dumps(CANARY)[1:-1], "7c1f"):
        assert form not in told
        assert form.encode() not in result.SerializeToString()
    assert "***" in told
    if not mode:
        assert json.loads(result.output.json) == {"echo": "Bearer ***", "plain": "***"}


async def test_an_input_that_does_not_match_does_not_tell_it(serve: Serve) -> None:
    """L16: nor does the refusal of it."""
    served = await serve({"typed": _typed})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(request("typed", {"auth": handle("API_KEY")}, "API_KEY"))
    assert "7c1f" not in str(result)
    assert "INPUT_INVALID" in str(result)


async def test_only_names_of_the_request_are_filled(serve: Serve) -> None:
    """L16: what merely looks like a handle stays what it is."""
    served = await serve({"chatty": _chatty})
    async with Peer(served.address, "one") as peer:
        await peer.run(request("chatty", {"auth": handle("API_KEY")}))
        await peer.run(request("chatty", {"auth": handle("OTHER") + handle("API_KEY")}, "API_KEY"))
    assert [handle("API_KEY"), handle("OTHER") + CANARY] == SEEN


async def test_a_secret_that_is_not_there(serve: Serve) -> None:
    """E15: the attempt fails for good and says what to set; the handler is not called."""
    served = await serve({"chatty": _chatty})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(request("chatty", {"auth": handle("NOPE")}, "NOPE"))
    assert not SEEN
    assert not result.failure.retryable
    assert "TIERFLOW_SECRET_NOPE" in result.failure.message


async def test_files_by_tenant(serve: Serve, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L4, L16: a tenant's own file comes before everybody's, and no other tenant gets it."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "API_KEY").write_text("acmes own\n")
    (tmp_path / "SHARED").write_text("shared value")
    monkeypatch.setenv("TIERFLOW_SECRETS_DIR", str(tmp_path))
    served = await serve({"chatty": _chatty})
    async with Peer(served.address, "one") as peer:
        for tenant in ("acme", "beta", "../acme"):
            await peer.run(request("chatty", {"auth": handle("API_KEY")}, "API_KEY", tenant=tenant))
        await peer.run(request("chatty", {"auth": handle("SHARED")}, "SHARED", tenant="beta"))
    assert SEEN[:2] == ["acmes own", CANARY]
    assert SEEN[-1] == "shared value"
    assert "acmes own" not in SEEN[1:]
