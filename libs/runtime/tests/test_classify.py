"""Exceptions as failures: by type and SQLSTATE; the words in them are chosen to mislead."""

import asyncio

import asyncpg
import httpx
import nats.errors
import pytest
from tierflow_runtime.classify import database_trouble, failure_of_exception
from tierflow_runtime.errors import CATALOGUE, failure
from tierflow_runtime.values import FailureError

MISLEADING = "permanent fatal error, do not retry: invalid"
SECRET = "SELECT password FROM account"


def of(error: BaseException, *, database: bool = False):
    """The failure of an exception that was caught in a test."""
    return failure_of_exception(error, "journal", "append", database=database)


@pytest.mark.parametrize(
    ("error", "trouble", "code", "retryable"),
    [
        (asyncpg.ConnectionDoesNotExistError(MISLEADING), "connection", "DATABASE_UNAVAILABLE", True),
        (asyncpg.CannotConnectNowError(MISLEADING), "connection", "DATABASE_UNAVAILABLE", True),
        (asyncpg.AdminShutdownError(MISLEADING), "connection", "DATABASE_UNAVAILABLE", True),
        (asyncpg.InterfaceError("connection is closed"), "connection", "DATABASE_UNAVAILABLE", True),
        (asyncpg.TooManyConnectionsError(MISLEADING), "pool", "DATABASE_UNAVAILABLE", True),
        (asyncpg.QueryCanceledError(MISLEADING), "timeout", "DATABASE_UNAVAILABLE", True),
        (asyncpg.LockNotAvailableError(MISLEADING), "timeout", "DATABASE_UNAVAILABLE", True),
        (asyncpg.DiskFullError(MISLEADING), "resources", "DATABASE_UNAVAILABLE", True),
        (asyncpg.SerializationError(MISLEADING), "conflict", "DATABASE_UNAVAILABLE", True),
        (asyncpg.DeadlockDetectedError(MISLEADING), "conflict", "DATABASE_UNAVAILABLE", True),
        (asyncpg.InvalidPasswordError("try again later"), "auth", "DATABASE_UNAVAILABLE", False),
        (asyncpg.InFailedSQLTransactionError("timeout"), "rollback", "INTERNAL", False),
        (asyncpg.UndefinedTableError("temporarily unavailable"), "sql", "INTERNAL", False),
        (asyncpg.InternalClientError("timeout"), "sql", "INTERNAL", False),
        (asyncpg.NotNullViolationError("timeout"), "data", "INTERNAL", False),
        (asyncpg.UniqueViolationError("timeout"), "data", "ALREADY_EXISTS", False),
        (asyncpg.CharacterNotInRepertoireError("timeout"), "data", "INVALID_REQUEST", False),
        (asyncpg.UntranslatableCharacterError("timeout"), "data", "INVALID_REQUEST", False),
        (asyncpg.ProgramLimitExceededError("timeout"), "data", "PAYLOAD_TOO_LARGE", False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_database_errors(error: Exception, trouble: str, code: str, retryable: bool) -> None:
    """F4, F21, Lesson 13: each kind of database error has its category, code and answer to whether a retry can help."""
    assert database_trouble(error) == trouble
    seen = of(error)
    assert (seen.code, seen.retryable) == (code, retryable)
    assert seen.detail.startswith(f"{trouble}: ")


@pytest.mark.parametrize(
    ("error", "trouble"),
    [(ConnectionRefusedError(111, "x"), "connection"), (TimeoutError(), "timeout"), (OSError(5, "x"), "connection")],
)
def test_bare_errors_while_connecting_to_the_database(error: Exception, trouble: str) -> None:
    """F4: what asyncpg lets through while it connects - refused, timed out - is the database's, and can pass."""
    assert database_trouble(error, database=True) == trouble
    assert (of(error, database=True).code, of(error, database=True).retryable) == ("DATABASE_UNAVAILABLE", True)
    assert database_trouble(error) is None


async def test_real_refused_connection() -> None:
    """F4: a real attempt to connect where nobody listens is DATABASE_UNAVAILABLE and can be retried."""
    with pytest.raises(OSError) as caught:
        await asyncpg.connect("postgresql://u@127.0.0.1:9/x", timeout=5)
    assert of(caught.value, database=True).code == "DATABASE_UNAVAILABLE"


async def test_real_errors_of_postgres(database: str) -> None:
    """F4, F21: errors that a real server makes are classified by what it says in numbers."""
    connection = await asyncpg.connect(database)
    seen = {}
    try:
        for name, statement in {
            "sql": "SELECT * FROM nowhere",
            "timeout": "SET statement_timeout = 1; SELECT pg_sleep(5)",
            "data": "SELECT 1/0",
        }.items():
            with pytest.raises(asyncpg.PostgresError) as caught:
                await connection.execute(statement)
            seen[name] = database_trouble(caught.value)
        await connection.execute("SET statement_timeout = 0")
        with pytest.raises(asyncpg.PostgresError) as caught:
            await connection.execute("SELECT $1::text", "a\0b")
        assert of(caught.value).code == "INVALID_REQUEST"
        with pytest.raises(asyncpg.DataError) as wrong:
            await connection.execute("SELECT $1::int", "x")
        assert database_trouble(wrong.value) == "data"
    finally:
        await connection.close()
    assert seen == {name: name for name in seen}


def response_error(status: int, headers: dict[str, str] | None = None) -> httpx.HTTPStatusError:
    """What httpx raises for a status."""
    request = httpx.Request("GET", "http://model")
    return httpx.HTTPStatusError(
        MISLEADING, request=request, response=httpx.Response(status, headers=headers, request=request)
    )


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (429, "RATE_LIMITED", True),
        (503, "UPSTREAM_ERROR", True),
        (502, "UPSTREAM_ERROR", True),
        (529, "UPSTREAM_ERROR", True),
        (408, "CONNECTION_TIMEOUT", True),
        (400, "UPSTREAM_ERROR", False),
        (401, "UPSTREAM_ERROR", False),
        (404, "UPSTREAM_ERROR", False),
    ],
)
def test_http_statuses(status: int, code: str, retryable: bool) -> None:
    """F3, Lesson 13: rate limits and 503 of a model's provider can pass, a bad request cannot, whatever its words."""
    assert (of(response_error(status)).code, of(response_error(status)).retryable) == (code, retryable)


def test_retry_after_of_http() -> None:
    """F12: the wait that the other side asks for is kept; what is not a number of seconds is not guessed at."""
    assert of(response_error(429, {"retry-after": "2.5"})).retry_after == 2_500_000
    assert of(response_error(429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})).retry_after is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (httpx.ReadTimeout(MISLEADING), "CONNECTION_TIMEOUT"),
        (httpx.ConnectTimeout(MISLEADING), "CONNECTION_TIMEOUT"),
        (httpx.ConnectError(MISLEADING), "CONNECTION_FAILED"),
        (TimeoutError(MISLEADING), "TIMEOUT"),
        (TimeoutError(), "TIMEOUT"),
        (ConnectionResetError(), "CONNECTION_FAILED"),
        (nats.errors.ConnectionClosedError(), "EVENTS_UNAVAILABLE"),
        (nats.errors.TimeoutError(), "EVENTS_UNAVAILABLE"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_errors_that_can_pass(error: Exception, code: str) -> None:
    """F3, F4, F5: timeouts and broken connections have their codes and can be retried."""
    assert (of(error).code, of(error).retryable) == (code, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncio.CancelledError(), "CANCELLED"),
        (MemoryError(), "MEMORY_EXCEEDED"),
        (NotImplementedError(), "UNSUPPORTED"),
        (nats.errors.MaxPayloadError(), "PAYLOAD_TOO_LARGE"),
        (ValueError("timeout, please retry, 503"), "INTERNAL"),
        (RuntimeError("connection refused"), "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_errors_that_cannot_pass(error: BaseException, code: str) -> None:
    """Lesson 13: an error that only talks of timeouts and refused connections is no such thing."""
    assert (of(error).code, of(error).retryable) == (code, False)


def test_public_messages_have_no_internals() -> None:
    """F29: what an exception says goes to the detail, never to the message."""
    for error in (ValueError(SECRET), asyncpg.UndefinedTableError(SECRET), response_error(500), TimeoutError(SECRET)):
        seen = of(error)
        assert seen.message == CATALOGUE[seen.code].meaning
        assert seen.detail
        assert (seen.component, seen.operation) == ("journal", "append")


def test_a_carried_failure_stays_as_it_is() -> None:
    """F23: a failure that was raised is never relabelled."""
    carried = failure("BUDGET_EXHAUSTED", "empty", component="ledger")
    assert of(FailureError(carried)) is carried
