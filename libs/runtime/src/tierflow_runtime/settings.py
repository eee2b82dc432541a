"""Settings: one validated object per service, from `TIERFLOW_*` variables. A bad one stops the start, by name and with what is expected (L5).

Fields are annotated with `Meta` (bounds, and the description that is shown to people) and, where a text must be read in a way of its own, with `Read`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

PREFIX: Final = "TIERFLOW_"
EXIT_CONFIGURATION: Final = 78
"""The exit code of a process that is configured wrongly (EX_CONFIG): starting it again does not help."""
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


class Unfit(ValueError):
    """A text that a setting cannot be; says what is expected, or nothing where the setting's description says it. Never the text itself."""


@dataclass(frozen=True, slots=True)
class Read:
    """How the text of a setting becomes its value. `secret`: it is not shown.

    Attributes:
        parse: Raises Unfit.
        secret: Whether the value may not be shown to anybody.
    """

    parse: Callable[[str], Any]
    secret: bool = False


def parts_of(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text.removeprefix("dns:///"))
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise Unfit("host:port or dns:///name:port")
    return text


def _addresses(text: str) -> tuple[str, ...]:
    found = tuple(_address(part) for part in parts_of(text))
    if not found:
        raise Unfit
    return found


def _modules(text: str) -> tuple[str, ...]:
    found = tuple(parts_of(text))
    if not all(part.isidentifier() for name in found for part in name.split(".")):
        raise Unfit("names of Python modules, separated by commas")
    return found


def _log_level(text: str) -> str:
    if text.lower() not in LOG_LEVELS:
        raise Unfit
    return text.lower()


def _url(*schemes: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            parts = urlsplit(text)
            sound = (
                parts.scheme in schemes
                and (bool(parts.hostname) or "host=" in parts.query)
                and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            sound = False
        if not sound:
            raise Unfit(f"{schemes[0]}://host:port…")
        return text

    return check


Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[float, Meta(gt=0)]
Address = Annotated[str, Read(_address)]
Addresses = Annotated[tuple[str, ...], Read(_addresses)]
Modules = Annotated[tuple[str, ...], Read(_modules)]
LogLevel = Annotated[str, Read(_log_level)]
DatabaseUrl = Annotated[
    str, Meta(description="postgresql://user:password@host:port/database"), Read(_url("postgresql", "postgres"), True)
]
NatsUrl = Annotated[str, Read(_url("nats", "tls"), True)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Something that can be told by variables. Made by hand it is taken as it is; `load_settings` checks."""

    def inconsistency(self) -> tuple[str, str] | None:
        """The first setting that does not go with the others, and what is expected of it."""
        return None

    def __repr__(self) -> str:
        shown = (f"{one.name}={getattr(self, one.name)!r}" for one in described(type(self)) if not one.secret)
        return f"{type(self).__name__}({', '.join(shown)})"


class ServiceSettings(Settings, frozen=True, kw_only=True):
    """What every service can be told. Subclasses add their own; times are seconds here, where people write them."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._:-]{0,100}$",
            description="a name that is stable over restarts and unique within the tier",
        ),
    ] = ""
    host: Annotated[str, Meta(description="an address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="a port; 0 takes any that is free")] = 0
    advertise: Annotated[Address, Meta(description="host:port under which others reach this process")] = ""
    admin_port: Annotated[
        Port | None,
        Meta(description="a port for channelz, health and reflection, on loopback; 0 takes any that is free"),
    ] = None
    admin_host: Annotated[str, Meta(description="an address for the admin port")] = "127.0.0.1"
    metrics_port: Annotated[Port | None, Meta(description="a port for Prometheus; 0 takes any that is free")] = None
    metrics_host: Annotated[str, Meta(description="an address for the metrics port")] = "127.0.0.1"
    log_level: Annotated[LogLevel, Meta(description="debug, info, warning or error")] = "info"
    development: Annotated[bool | None, Meta(description="true or false; true lets everybody in, on loopback only")] = (
        None
    )
    insecure: Annotated[
        bool,
        Meta(
            description="true or false; true allows development mode beyond loopback: whoever reaches the port may do anything"
        ),
    ] = False
    drain_timeout: Annotated[
        float,
        Meta(ge=0, le=86_400, description="seconds that work under way is given when the service is told to stop"),
    ] = 30.0
    lease_seconds: Annotated[Positive, Meta(le=600, description="seconds")] = 10.0
    heartbeat_seconds: Annotated[Positive, Meta(le=60, description="seconds")] = 2.0
    max_message_bytes: Annotated[
        int, Meta(ge=64 * 1024, le=64 * 1024 * 1024, description="bytes of the largest gRPC message")
    ] = 4 * 1024 * 1024
    most_calls: Annotated[
        int, Meta(ge=1, description="calls and streams at once, above which further ones are refused")
    ] = 10_000
    otel_endpoint: Annotated[str, Meta(description="the address of an OpenTelemetry collector (gRPC)")] = msgspec.field(
        name="OTEL_EXPORTER_OTLP_ENDPOINT", default=""
    )
    trace_ratio: Annotated[float, Meta(ge=0, le=1, description="the share of traces that are recorded, 0 to 1")] = 1.0

    def inconsistency(self) -> tuple[str, str] | None:
        """See `Settings`."""
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            return "lease_seconds", "at least three times TIERFLOW_HEARTBEAT_SECONDS"
        if self.development and not self.insecure and self.host not in _LOOPBACK:
            return (
                "development",
                "false unless TIERFLOW_HOST is loopback: development mode lets everybody in (TIERFLOW_INSECURE=true allows that)",
            )
        return None

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


class StatefulSettings(ServiceSettings, frozen=True, kw_only=True):
    """Settings of the tiers that hold state (1 and 2)."""

    database_url: DatabaseUrl
    nats_url: Annotated[NatsUrl, Meta(description="nats://host:port; without it nobody can watch")] = ""
    most_commits_waiting: Annotated[
        int, Meta(ge=1, description="how many swarms or runs may wait for a commit before new ones are refused")
    ] = 10_000


class MigrationSettings(Settings, frozen=True, kw_only=True):
    """What the `migrate` command of a stateful tier needs."""

    database_url: DatabaseUrl


SettingsType = TypeVar("SettingsType", bound=Settings)


@dataclass(frozen=True, slots=True)
class Described:
    """A setting, as people see it.

    Attributes:
        name: Of the field.
        variable: Of the environment.
        type: With its annotations.
        required: Whether it must be set.
        default: Where it need not.
        description: What it is.
        read: How its text is read, where `type` alone does not say.
    """

    name: str
    variable: str
    type: Any
    required: bool
    default: Any
    description: str
    read: Read | None

    @property
    def secret(self) -> bool:
        """Whether its value may not be shown."""
        return self.read is not None and self.read.secret


def described(cls: type[Settings]) -> list[Described]:
    """All settings of a class, in their order."""
    return [_described(one) for one in msgspec.structs.fields(cls)]


def _described(one: msgspec.structs.FieldInfo) -> Described:
    notes = getattr(one.type, "__metadata__", ())
    if one.default_factory is not msgspec.NODEFAULT:
        default = typing.cast("Callable[[], Any]", one.default_factory)()
    else:
        default = one.default
    return Described(
        name=one.name,
        variable=one.encode_name if one.encode_name != one.name else PREFIX + one.name.upper(),
        type=one.type,
        required=default is msgspec.NODEFAULT,
        default=default,
        description=next((note.description for note in notes if isinstance(note, Meta) and note.description), ""),
        read=next((note for note in notes if isinstance(note, Read)), None),
    )


def load_settings(cls: type[SettingsType], environment: Mapping[str, str] | None = None) -> SettingsType:
    """The settings from the environment; a variable that is empty counts as not set.

    Where something is missing or wrong: writes one line per problem to standard error, naming the variable and what is expected, and ends the process with
    exit code 78. Values are not shown: some are secrets.

    Args:
        cls: The settings' class.
        environment: By default that of the process.
    """
    variables = os.environ if environment is None else environment
    given: dict[str, Any] = {}
    problems: list[str] = []
    known = {one.name: one for one in described(cls)}
    for one in known.values():
        text = variables.get(one.variable, "")
        if not text:
            if one.required:
                problems.append(f"{one.variable} is not set; expected {one.description or 'a value'}")
            continue
        try:
            given[one.name] = _value(one, text)
        except (Unfit, msgspec.ValidationError) as error:
            problems.append(_problem(one, text, error))
    if not problems:
        settings = cls(**given)
        wrong = settings.inconsistency()
        if wrong is None:
            return settings
        problems.append(f"{known[wrong[0]].variable} is not valid; expected {wrong[1]}")
    print_problems(*problems)
    raise SystemExit(EXIT_CONFIGURATION)


def _value(one: Described, text: str) -> Any:
    return msgspec.convert(text, one.type, strict=False) if one.read is None else one.read.parse(text)


def _problem(one: Described, text: str, error: Exception) -> str:
    """One line about what is wrong with one setting: its variable and what is expected. Never its value."""
    said = str(error)
    if isinstance(error, Unfit):
        expected = said or one.description
    else:
        expected = one.description or said
        if "=" in said or "<" in said or ">" in said:
            expected += f" ({said.replace('`', '').removeprefix('Expected ')})"
    if text.startswith("tcp://"):
        expected += " - this looks like a Kubernetes service link: set enableServiceLinks to false"
    return f"{one.variable} is not valid; expected {expected}"


def print_problems(*problems: str) -> None:
    """Writes one line per problem of the configuration to standard error."""
    for line in problems:
        print(f"configuration: {line}", file=sys.stderr)
