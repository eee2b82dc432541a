"""Settings: one validated object per service, from `TIERFLOW_*` variables. A bad one stops the start, by name and with what is expected (L5)."""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX: Final = "TIERFLOW_"
EXIT_CONFIGURATION: Final = 78
"""The exit code of a process that is configured wrongly (EX_CONFIG): starting it again does not help."""
_EXPLAINED: Final = frozenset({"address", "url", "module"})
_BOUNDS: Final = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


def _split(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text.removeprefix("dns:///"))
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise PydanticCustomError("address", "host:port or dns:///name:port")
    return text


def _advertised(text: str) -> str:
    return _address(text) if text else text


def _url(*schemes: str) -> Any:
    def check(text: str) -> str:
        parts = urlsplit(text)
        try:
            sound = (
                parts.scheme in schemes
                and (bool(parts.hostname) or "host=" in parts.query)
                and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            sound = False
        if not sound:
            raise PydanticCustomError("url", " or ".join(f"{scheme}://host:port…" for scheme in schemes[:1]))
        return text

    return AfterValidator(check)


def _module(text: str) -> str:
    if not all(part.isidentifier() for part in text.split(".")):
        raise PydanticCustomError("module", "names of Python modules, separated by commas")
    return text


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


Port = Annotated[int, Field(ge=0, le=65535)]
Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[tuple[Address, ...], NoDecode, BeforeValidator(_split)]
Modules = Annotated[tuple[Annotated[str, AfterValidator(_module)], ...], NoDecode, BeforeValidator(_split)]
DatabaseUrl = Annotated[str, _url("postgresql", "postgres"), Field(repr=False)]
NatsUrl = Annotated[str, _url("nats", "tls"), Field(repr=False)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]


class ServiceSettings(BaseSettings):
    """What every service can be told. Subclasses add their own; times are seconds here, where people write them."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._:-]{0,100}$",
        description="a name that is stable over restarts and unique within the tier",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="an address to listen on")
    port: Port = Field(default=0, description="a port; 0 takes any that is free")
    advertise: Annotated[str, AfterValidator(_advertised)] = Field(
        default="", description="host:port under which others reach this process"
    )
    admin_port: Port | None = Field(
        default=None, description="a port for channelz, health and reflection, on loopback; 0 takes any that is free"
    )
    admin_host: str = Field(default="127.0.0.1", min_length=1, description="an address for the admin port")
    metrics_port: Port | None = Field(default=None, description="a port for Prometheus; 0 takes any that is free")
    metrics_host: str = Field(default="127.0.0.1", min_length=1, description="an address for the metrics port")
    log_level: LogLevel = Field(default="info", description="debug, info, warning or error")
    development: bool | None = Field(
        default=None, description="true or false; true lets everybody in, on loopback only"
    )
    insecure: bool = Field(
        default=False,
        description="true or false; true allows development mode beyond loopback: whoever reaches the port may do anything",
    )
    drain_timeout: float = Field(
        default=30.0,
        ge=0,
        le=86_400,
        description="seconds that work under way is given when the service is told to stop",
    )
    lease_seconds: PositiveFloat = Field(default=10.0, le=600, description="seconds")
    heartbeat_seconds: PositiveFloat = Field(default=2.0, le=60, description="seconds")
    max_message_bytes: int = Field(
        default=4 * 1024 * 1024, ge=64 * 1024, le=64 * 1024 * 1024, description="bytes of the largest gRPC message"
    )
    most_calls: int = Field(
        default=10_000, ge=1, description="calls and streams at once, above which further ones are refused"
    )
    otel_endpoint: str = Field(
        default="",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="the address of an OpenTelemetry collector (gRPC)",
    )
    trace_ratio: float = Field(default=1.0, ge=0, le=1, description="the share of traces that are recorded, 0 to 1")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise PydanticCustomError("lease_seconds", "at least three times TIERFLOW_HEARTBEAT_SECONDS")
        if self.development and not self.insecure and self.host not in _LOOPBACK:
            raise PydanticCustomError(
                "development",
                "false unless TIERFLOW_HOST is loopback: development mode lets everybody in (TIERFLOW_INSECURE=true allows that)",
            )
        return self

    @property
    def is_development(self) -> bool:
        """Whether everybody is let in: as set; by default on loopback, and beyond it where that is allowed."""
        if self.development is not None:
            return self.development
        return self.insecure or self.host in _LOOPBACK

    @property
    def instance_name(self) -> str:
        """The name that is stable over restarts; by default of host and port. Where any free port is taken, of the process: two of one name would fence each other."""
        return self.name or f"{socket.gethostname()}:{self.port or f'process-{os.getpid()}'}"

    def advertised(self, port: int) -> str:
        """The address under which others reach this process, given the port that it really listens on."""
        return self.advertise or f"{self.host}:{port}"


class StatefulSettings(ServiceSettings):
    """Settings of the tiers that hold state (1 and 2)."""

    database_url: DatabaseUrl = Field(description="postgresql://user:password@host:port/database")
    nats_url: NatsUrl = Field(
        default="", validate_default=False, description="nats://host:port; without it nobody can watch"
    )
    most_commits_waiting: int = Field(
        default=10_000, ge=1, description="how many swarms or runs may wait for a commit before new ones are refused"
    )


class MigrationSettings(BaseSettings):
    """What the `migrate` command of a stateful tier needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: DatabaseUrl = Field(description="postgresql://user:password@host:port/database")


SettingsType = TypeVar("SettingsType", bound=BaseSettings)


def load_settings(cls: type[SettingsType], **given: object) -> SettingsType:
    """The settings from the environment.

    Where something is missing or wrong: writes one line per problem to standard error, naming the variable and what is expected, and ends the process with
    exit code 78. Values are not shown: some are secrets.

    Args:
        cls: The settings' class.
        given: Values that take precedence over the environment, by field name.
    """
    try:
        return cls(**given)  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        print_problems(*(problem(cls, item) for item in error.errors(include_url=False, include_input=True)))
        raise SystemExit(EXIT_CONFIGURATION) from None


def print_problems(*problems: str) -> None:
    """Writes one line per problem of the configuration to standard error."""
    for line in problems:
        print(f"configuration: {line}", file=sys.stderr)


def problem(cls: type[BaseSettings], item: ErrorDetails) -> str:
    """One line about what is wrong with one setting: its variable and what is expected. Never its value."""
    name = str(item["loc"][0]) if item["loc"] else item["type"]
    variable = name if name.isupper() else PREFIX + name.upper()
    if item["type"] == "missing":
        return f"{variable} is not set; expected {_expected(cls, name) or 'a value'}"
    if not item["loc"] or item["type"] in _EXPLAINED:
        expected = item["msg"]
    else:
        expected = _expected(cls, name) or item["msg"]
        if item["type"] in _BOUNDS:
            expected += f" ({item['msg'].lower()})"
    if str(item.get("input", "")).startswith("tcp://"):
        expected += " - this looks like a Kubernetes service link: set enableServiceLinks to false"
    return f"{variable} is not valid; expected {expected}"


def _expected(cls: type[BaseSettings], name: str) -> str:
    """What the description of a setting, by its name or its variable, says that it is."""
    aliases = {str(field.validation_alias): field for field in cls.model_fields.values()}
    field = cls.model_fields.get(name) or aliases.get(name)
    return (field.description if field is not None else None) or ""
