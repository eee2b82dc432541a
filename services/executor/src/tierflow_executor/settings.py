"""What an executor can be told, by `TIERFLOW_*` variables."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode
from tierflow_runtime.settings import Modules, Port, ServiceSettings

from tierflow_executor.released import SECRET_AT_HOST


def _labels(text: object) -> object:
    if not isinstance(text, str):
        return text
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if any(not key.strip() or not sign for key, sign, _ in pairs):
        raise PydanticCustomError("labels", "key=value pairs, separated by commas")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _secrets(text: object) -> object:
    if not isinstance(text, str):
        return text
    pairs = [part.strip() for part in text.split(",") if part.strip()]
    if not all(SECRET_AT_HOST.fullmatch(pair) for pair in pairs):
        raise PydanticCustomError("secrets", "NAME@host pairs, separated by commas")
    return tuple(pairs)


class ExecutorSettings(ServiceSettings):
    """Settings of Tier 3. Times are seconds."""

    port: Port = Field(default=7703, description="a port; 0 takes any that is free")
    drain_timeout: float = Field(
        default=600.0,
        ge=0,
        le=86_400,
        description="seconds that attempts under way are given when the executor is told to stop",
    )
    drain_under_way: float = Field(
        default=0.5,
        ge=0,
        le=60,
        description="seconds after being told to stop in which requests that were under way are still taken",
    )
    handlers: Modules = Field(default=(), description="names of Python modules with handlers, separated by commas")
    labels: Annotated[dict[str, str], NoDecode, BeforeValidator(_labels)] = Field(
        default={}, description="labels for routing, key=value, separated by commas"
    )
    secrets: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_secrets)] = Field(
        default=(),
        description="variables of this environment that http.request may send as bearer tokens, each as NAME@host, separated by commas",
    )
    slots: int = Field(default=256, ge=1, le=100_000, description="attempts that may run at once")
    threads: int = Field(
        default=32, ge=1, le=1_000, description="plain functions that may run at once, each in a thread"
    )
    default_timeout: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="seconds that an attempt may take where neither flow nor handler says",
    )
    grace: float = Field(
        default=5.0,
        ge=0,
        le=600,
        description="seconds that a stopped attempt has to end before it counts as unconfirmed",
    )
    held_seconds: int = Field(
        default=3_600, ge=1, le=86_400, description="seconds for which a result is held without acknowledgement"
    )
    held_bytes: int = Field(
        default=256 << 20, ge=1 << 10, description="bytes of results held, beyond which no slots are granted"
    )
