"""What kind of failure an exception is: by its type, SQLSTATE or status code, never by the words in it (F3, F4, F21, Lesson 13).

Libraries are looked up among what is loaded: an exception of asyncpg can only arise where asyncpg is, and an executor need not have it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final, Literal, TypeAlias

import grpc

from tierflow_runtime.catalogue import info
from tierflow_runtime.errors import failure, failure_of
from tierflow_runtime.values import Failure, FailureError

DatabaseTrouble: TypeAlias = Literal[
    "connection", "pool", "timeout", "auth", "conflict", "rollback", "resources", "data", "sql"
]
"""How a database call failed; a label for metrics, logs and spans (F25)."""

_BY_SQLSTATE: Final[dict[str, DatabaseTrouble]] = {
    "08": "connection",
    "57P01": "connection",
    "57P02": "connection",
    "57P03": "connection",
    "57P05": "connection",
    "25P03": "connection",
    "57014": "timeout",
    "55P03": "timeout",
    "25P04": "timeout",
    "53300": "pool",
    "53": "resources",
    "58": "resources",
    "28": "auth",
    "40": "conflict",
    "25": "rollback",
    "22": "data",
    "23": "data",
    "54": "data",
}
_TROUBLES: Final[dict[DatabaseTrouble, tuple[str, bool]]] = {
    "connection": ("DATABASE_UNAVAILABLE", True),
    "pool": ("DATABASE_UNAVAILABLE", True),
    "timeout": ("DATABASE_UNAVAILABLE", True),
    "resources": ("DATABASE_UNAVAILABLE", True),
    "conflict": ("DATABASE_UNAVAILABLE", True),
    "auth": ("DATABASE_UNAVAILABLE", False),
    "rollback": ("INTERNAL", False),
    "data": ("INTERNAL", False),
    "sql": ("INTERNAL", False),
}
_DATA: Final = {
    "54": "PAYLOAD_TOO_LARGE",
    "22021": "INVALID_REQUEST",
    "22P05": "INVALID_REQUEST",
    "22P02": "INVALID_REQUEST",
    "23505": "ALREADY_EXISTS",
}
_RETRYABLE_HTTP: Final = frozenset({425, 500, 502, 503, 504, 529})


def failure_of_exception(error: BaseException, component: str, operation: str, *, database: bool = False) -> Failure:
    """The failure that an exception stands for.

    Args:
        error: The exception.
        component: Where it was caught.
        operation: What was being done.
        database: Whether that was talking to the database, so that bare timeouts and connection errors (asyncpg raises them while it connects) are its.

    Returns:
        The failure: a carried one as it is; the public message says what kind of thing happened, the detail has the exception's own words.
    """
    if isinstance(error, FailureError):
        return error.failure
    if isinstance(error, grpc.RpcError):
        return failure_of(error)
    detail = f"{type(error).__name__}: {error}"
    trouble = database_trouble(error, database=database)
    if trouble is not None:
        code, retryable = _database_code(error, trouble)
        return failure(
            code,
            info(code).meaning,
            component=component,
            operation=operation,
            retryable=retryable,
            detail=f"{trouble}: {detail}",
        )
    code, says, retry_after = _http(error) or (_by_type(error), None, None)
    retryable = info(code).retryable if says is None else says
    return failure(
        code,
        info(code).meaning,
        component=component,
        operation=operation,
        retryable=retryable,
        retry_after=retry_after,
        detail=detail,
    )


def database_trouble(error: BaseException, *, database: bool = False) -> DatabaseTrouble | None:
    """How a database call failed; None where the exception is not the database's. Argument `database` as in `failure_of_exception`."""
    if _is(error, "asyncpg", "PostgresError"):
        sqlstate: str = getattr(error, "sqlstate", None) or ""
        return _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE.get(sqlstate[:2]) or "sql"
    if _is(error, "asyncpg", "InterfaceError"):
        return "data" if isinstance(error, ValueError) else "connection"
    if _is(error, "asyncpg", "InternalClientError"):
        return "sql"
    return _bare_trouble(error) if database else None


def _bare_trouble(error: BaseException) -> DatabaseTrouble | None:
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, OSError) else None


def _database_code(error: BaseException, trouble: DatabaseTrouble) -> tuple[str, bool]:
    sqlstate = getattr(error, "sqlstate", None) or ""
    special = _DATA.get(sqlstate) or _DATA.get(sqlstate[:2])
    return (special, False) if special else _TROUBLES[trouble]


def _http(error: BaseException) -> tuple[str, bool | None, int | None] | None:
    """Code, retryable and retry_after of an error that brings an HTTP response (httpx and its kin), or of httpx's transport."""
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        wait = _retry_after(response)
        if status == 429:
            return "RATE_LIMITED", True, wait
        if status == 408:
            return "CONNECTION_TIMEOUT", True, wait
        return "UPSTREAM_ERROR", status in _RETRYABLE_HTTP, wait
    if _is(error, "httpx", "TimeoutException"):
        return "CONNECTION_TIMEOUT", True, None
    if _is(error, "httpx", "TransportError"):
        return "CONNECTION_FAILED", True, None
    return None


def _retry_after(response: Any) -> int | None:
    """Microseconds that a `Retry-After` in seconds asks to wait."""
    value = getattr(response, "headers", {}).get("retry-after")
    try:
        return max(0, int(float(value) * 1_000_000)) if value else None
    except (ValueError, OverflowError):
        return None


def _by_type(error: BaseException) -> str:
    if _is(error, "nats.errors", "MaxPayloadError"):
        return "PAYLOAD_TOO_LARGE"
    if _is(error, "nats.errors", "Error"):
        return "EVENTS_UNAVAILABLE"
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED"
    if isinstance(error, TimeoutError):
        return "TIMEOUT"
    if isinstance(error, ConnectionError):
        return "CONNECTION_FAILED"
    if isinstance(error, NotImplementedError):
        return "UNSUPPORTED"
    if isinstance(error, MemoryError):
        return "MEMORY_EXCEEDED"
    return "INTERNAL"


def _is(error: BaseException, module: str, name: str) -> bool:
    """Whether the exception is of a library's class, or of one derived from it."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
