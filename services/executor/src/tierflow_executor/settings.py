"""What an executor can be told, by `TIERFLOW_*` variables."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field
from tierflow_runtime.settings import Modules, Port, Read, ServiceSettings, Unfit, parts_of

from tierflow_executor.released import SECRET_AT_HOST


def _labels(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in parts_of(text)]
    if any(not key.strip() or not sign for key, sign, _ in pairs):
        raise Unfit("key=value pairs, separated by commas")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _secrets(text: str) -> tuple[str, ...]:
    pairs = parts_of(text)
    if not all(SECRET_AT_HOST.fullmatch(pair) for pair in pairs):
        raise Unfit("NAME@host pairs, separated by commas")
    return tuple(pairs)


class ExecutorSettings(ServiceSettings, frozen=True, kw_only=True):
    """Settings of Tier 3. Times are seconds."""

    port: Annotated[Port, Meta(description="a port; 0 takes any that is free")] = 7703
    drain_timeout: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="seconds that attempts under way are given when the executor is told to stop",
        ),
    ] = 600.0
    drain_under_way: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="seconds after being told to stop in which requests that were under way are still taken",
        ),
    ] = 0.5
    handlers: Annotated[Modules, Meta(description="names of Python modules with handlers, separated by commas")] = ()
    labels: Annotated[
        dict[str, str], Meta(description="labels for routing, key=value, separated by commas"), Read(_labels)
    ] = field(default_factory=dict)
    secrets: Annotated[
        tuple[str, ...],
        Meta(
            description="variables of this environment that http.request may send as bearer tokens, each as NAME@host, separated by commas"
        ),
        Read(_secrets),
    ] = ()
    slots: Annotated[int, Meta(ge=1, le=100_000, description="attempts that may run at once")] = 256
    threads: Annotated[
        int, Meta(ge=1, le=1_000, description="plain functions that may run at once, each in a thread")
    ] = 32
    default_timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="seconds that an attempt may take where neither flow nor handler says",
        ),
    ] = 30.0
    grace: Annotated[
        float,
        Meta(ge=0, le=600, description="seconds that a stopped attempt has to end before it counts as unconfirmed"),
    ] = 5.0
    held_seconds: Annotated[
        int, Meta(ge=1, le=86_400, description="seconds for which a result is held without acknowledgement")
    ] = 3_600
    held_bytes: Annotated[
        int, Meta(ge=1 << 10, description="bytes of results held, beyond which no slots are granted")
    ] = 256 << 20
