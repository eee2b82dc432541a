"""Logs: one JSON object per line on standard output, with ids, so that a line leads to its run, its trace and its caller (M10).

    log = get_log(__name__)
    log.info("run ended", **ids(context), state="COMPLETED")

The first argument is the event: a fixed text without values, so that lines can be counted by it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TextIO

import orjson

from tierflow_runtime.values import Context

REDACTED: Final = "[redacted]"
_SECRET_WORDS: Final = (
    "password",
    "secret",
    "token",
    "authorization",
    "credential",
    "api_key",
    "apikey",
    "private_key",
)
_NOT_SECRET: Final = frozenset({"resume_token", "page_token", "input_tokens", "output_tokens", "tokens"})
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LONGEST_TEXT: Final = 8192

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_call_fields: ContextVar[Mapping[str, str]] = ContextVar("tierflow_log_fields")


class Log:
    """Writes events of one component."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    @property
    def debugging(self) -> bool:
        """Whether `debug` writes: on the hot path what a line costs to prepare is spent only then."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, /, **fields: object) -> None:
        """For whoever looks for a fault."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """What an operator wants to have seen."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Went wrong and was dealt with."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """Went wrong and somebody must look; with an exception, its stack is written too."""
        self._write(logging.ERROR, event, fields, error)

    def _write(self, level: int, event: str, fields: Mapping[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            info = (type(error), error, error.__traceback__) if error is not None else None
            self._logger.log(level, "%s", event, exc_info=info, extra={"tierflow": fields})


def get_log(name: str) -> Log:
    """The log of a component; `name` is usually `__name__`."""
    return Log(logging.getLogger(name))


def ids(context: Context) -> dict[str, str]:
    """The ids of a context under the names that every line uses; empty ones are left out."""
    named = {
        "tenant": context.tenant,
        "user": context.user_id,
        "swarm_id": context.swarm_id,
        "run_id": context.run_id,
        "step_id": context.step_id,
        "attempt_id": context.attempt_id,
        "correlation_id": context.correlation_id,
        "trace_id": context.trace_id,
    }
    return {name: value for name, value in named.items() if value}


def set_call_fields(fields: Mapping[str, str]) -> None:
    """Adds fields to every line that the present call writes (in its task and those that it starts)."""
    _call_fields.set(fields)


def setup_logs(*, level: str = "info", stream: TextIO | None = None, **fields: str) -> None:
    """Sends everything that is logged in this process to `stream` (standard output) as JSON lines; `fields` are on every line."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonLines(fields))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level.lower()])
    for noisy in ("nats", "grpc", "asyncio", "httpx", "httpcore", "opentelemetry"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, event, component, the process's fields, the call's, the record's own."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "component": record.name,
            **self._fields,
            **_call_fields.get(_NONE),
        }
        line.update(redacted(getattr(record, "tierflow", {})))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            line["stack"] = "".join(traceback.format_exception(record.exc_info[1]))[-_LONGEST_TEXT:]
        return orjson.dumps(line, default=str).decode()


def redacted(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields with the values of those that are secrets by their name replaced, nested ones included, and long texts cut."""
    named = ((str(name), value) for name, value in fields.items())
    return {name: REDACTED if _is_secret(name) and value else _clean(value) for name, value in named}


def _clean(value: object) -> object:
    if isinstance(value, Mapping):
        return redacted(value)
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return value[: _LONGEST_TEXT - 1] + "…"
    return value


def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return lowered not in _NOT_SECRET and any(word in lowered for word in _SECRET_WORDS)
