"""What can go wrong for a caller, and nothing finer: a class exists where a caller can act differently.

All of them are made here, from a `Failure` (the answer to one item of a batch) or from a failed call, whose rich status is first turned into a `Failure`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from tierflow_contracts.common.v1 import failure_pb2
from tierflow_contracts.common.v1.failure_pb2 import Failure, Violation

if TYPE_CHECKING:
    from tierflow.results import Result

_DETAILS = "grpc-status-details-bin"
_PREFIX = "ERROR_CODE_"


class TierflowError(Exception):
    """Something went wrong; the text says what and what to do.

    Attributes:
        code: Name in the catalogue (docs/errors.md), such as `QUEUE_FULL`; empty where the other side gave none.
        failure: All that the other side said, with its causes.
    """

    def __init__(self, failure: Failure, text: str = "") -> None:
        super().__init__(text or failure.message or code_name(failure))
        self.failure = failure
        self.code = code_name(failure)


class InvalidRequest(TierflowError):
    """The request breaks the contract: mend it. `violations` lists everything that is wrong, each with `field` and `description`."""

    def __init__(self, failure: Failure, text: str = "") -> None:
        self.violations: tuple[Violation, ...] = tuple(failure.violations)
        said = text or failure.message
        lines = [f"  {v.field}: {v.description}{f' (line {v.line})' if v.line else ''}" for v in self.violations]
        first = self.violations[0].description if self.violations else ""
        if first and (said.endswith(first) or f"{first} (and " in said):  # the message tells of the first itself
            said = "The request is not valid." if len(lines) > 1 else lines.pop().strip()
        super().__init__(failure, "\n".join([said, *lines]))


class NotFound(TierflowError):
    """What was named does not exist, or is not the caller's."""


class Conflict(TierflowError):
    """It does not fit what is stored: another body under the same request id, another content under the same version, another state."""


class ResourceExhausted(TierflowError):
    """There is too much under way or too little left: try later or ask for less.

    Attributes:
        reason: RATE_LIMITED, QUEUE_FULL, TENANT_LIMIT, BUDGET_EXHAUSTED or MEMORY_EXCEEDED.
        retry_after: Least seconds to wait, where the other side said so.
    """

    def __init__(self, failure: Failure, text: str = "") -> None:
        self.reason = code_name(failure)
        self.retry_after = seconds(failure.retry_after) if failure.HasField("retry_after") else None
        later = f"; try again in {self.retry_after:g} s" if self.retry_after else ""
        super().__init__(failure, (text or failure.message or self.reason) + later)


class Unavailable(TierflowError):
    """Nobody answers now; the same call may be repeated, with the same request id."""


class PermissionDenied(TierflowError):
    """The caller may not do this, or has not shown who it is."""


class ExecutionFailed(TierflowError):
    """The execution itself ended without reaching its goal: failed, cancelled or stopped. `result` has the rest of what is known."""

    def __init__(self, failure: Failure, text: str = "", *, result: Result | None = None) -> None:
        self.result = result
        super().__init__(failure, text)


_NUMBERS = dict(failure_pb2.ErrorCode.items())

_CLASSES: dict[str, type[TierflowError]] = {
    **dict.fromkeys(
        ("INVALID_REQUEST", "FLOW_INVALID", "INPUT_INVALID", "PAYLOAD_TOO_LARGE", "MESSAGE_TOO_LARGE", "UNSUPPORTED"),
        InvalidRequest,
    ),
    **dict.fromkeys(("NOT_FOUND", "FLOW_NOT_FOUND", "HANDLER_NOT_FOUND"), NotFound),
    **dict.fromkeys(("ALREADY_EXISTS", "REQUEST_ID_REUSED", "STATE_CONFLICT", "VERSION_CONFLICT"), Conflict),
    **dict.fromkeys(
        ("RATE_LIMITED", "QUEUE_FULL", "TENANT_LIMIT", "BUDGET_EXHAUSTED", "MEMORY_EXCEEDED"), ResourceExhausted
    ),
    **dict.fromkeys(
        ("UNAVAILABLE", "DATABASE_UNAVAILABLE", "CONNECTION_FAILED", "CONNECTION_TIMEOUT", "FENCED", "NOT_OWNER"),
        Unavailable,
    ),
    **dict.fromkeys(("PERMISSION_DENIED", "UNAUTHENTICATED"), PermissionDenied),
}

_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_REQUEST",
    grpc.StatusCode.OUT_OF_RANGE: "INVALID_REQUEST",
    grpc.StatusCode.NOT_FOUND: "NOT_FOUND",
    grpc.StatusCode.ALREADY_EXISTS: "ALREADY_EXISTS",
    grpc.StatusCode.FAILED_PRECONDITION: "STATE_CONFLICT",
    grpc.StatusCode.ABORTED: "STATE_CONFLICT",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "QUEUE_FULL",
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "UNAVAILABLE",
    grpc.StatusCode.CANCELLED: "UNAVAILABLE",
    grpc.StatusCode.PERMISSION_DENIED: "PERMISSION_DENIED",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.UNIMPLEMENTED: "UNSUPPORTED",
}
"""The code where a status came without details: from a proxy, from gRPC itself, or because nobody is there."""


def error_of(failure: Failure) -> TierflowError:
    """The error for a failure that the other side sent."""
    return _CLASSES.get(code_name(failure), TierflowError)(failure)


def call_error(error: grpc.aio.AioRpcError, address: str) -> TierflowError:
    """The error for a call to `address` that failed."""
    status = error.code()
    details = error.details() or ""
    rich = rich_status(error)
    if rich is not None:
        return error_of(failure_of(rich, _CODES.get(status, "INTERNAL")))
    if status is grpc.StatusCode.UNAVAILABLE:
        return unreachable(address, details)
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(
            made("UNAVAILABLE", f"The coordinator at {address} did not answer in time. The call may be repeated.")
        )
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return InvalidRequest(
            made(
                "MESSAGE_TOO_LARGE", f"A message is too large for gRPC: {details}. Hand large values over by reference."
            )
        )
    return error_of(
        made(_CODES.get(status, "INTERNAL"), details or f"The coordinator at {address} answered {status.name}.")
    )


def unreachable(address: str, details: str = "") -> Unavailable:
    """The error for an address where nobody answers."""
    why = "connection refused" if "refused" in details.lower() else details.split(":")[0].strip() or "no answer"
    return Unavailable(
        made(
            "UNAVAILABLE",
            f"No coordinator can be reached at {address} ({why}). Start one with `tierflow dev`, or say where it is with TIERFLOW_ADDRESS or --address.",
        )
    )


def rich_status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The `google.rpc.Status` that came with a failed call, if one came."""
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key == _DETAILS:
            return status_pb2.Status.FromString(value)
    return None


def failure_of(status: status_pb2.Status, code: str = "INTERNAL") -> Failure:
    """The failure that a rich status describes. `code` is used where the status carries neither a Failure nor a reason of the catalogue."""
    failure = made(code, status.message)
    info, bad, retry, given = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
        Failure(),
    )
    for detail in status.details:
        if detail.Unpack(given):
            failure.CopyFrom(given)
            break
        if detail.Unpack(info) and _PREFIX + info.reason in _NUMBERS:
            failure.code = _NUMBERS[_PREFIX + info.reason]
        elif detail.Unpack(bad):
            failure.violations.extend(Violation(field=v.field, description=v.description) for v in bad.field_violations)
        elif detail.Unpack(retry):
            failure.retry_after.CopyFrom(retry.retry_delay)
    return failure


def made(code: str, message: str, *violations: Violation) -> Failure:
    """A failure that this side states."""
    return Failure(code=failure_pb2.ErrorCode.Value(_PREFIX + code), message=message, violations=violations)


def invalid(field: str, description: str) -> InvalidRequest:
    """The error for an argument that cannot be sent."""
    return InvalidRequest(
        made("INVALID_REQUEST", "The request is not valid.", Violation(field=field, description=description))
    )


def code_name(failure: Failure) -> str:
    """Name of a failure's code without its prefix; empty where it has none."""
    return failure_pb2.ErrorCode.Name(failure.code).removeprefix(_PREFIX) if failure.code else ""


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / 1e9
