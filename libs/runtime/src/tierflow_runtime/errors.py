"""Failures: making them, sending them as gRPC statuses and reading them back. One catalogue, one mapping (F24).

`FailureError` (in `values`) is the one error that carries a failure; the error interceptor of `serving` turns it into the status.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import grpc
import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from tierflow_contracts.common.v1 import failure_pb2

from tierflow_runtime.catalogue import CATALOGUE, CodeInfo, grpc_status, info
from tierflow_runtime.values import Failure, FailureError, Violation
from tierflow_runtime.wire import duration, failure_from_proto, failure_to_proto, micros

__all__ = [
    "CATALOGUE",
    "DOMAIN",
    "CodeInfo",
    "FailureError",
    "abort",
    "failure",
    "failure_of",
    "grpc_status",
    "info",
    "public",
    "rich_status",
]

DOMAIN: Final = "tierflow"
"""`google.rpc.ErrorInfo.domain` of every failure."""

DETAILS_KEY: Final = "grpc-status-details-bin"
_STATUS_BYTES: Final = 5 * 1024
_WRAPPING: Final = 128  # type names and lengths of the two details that are fitted
"""gRPC peers take 8 KiB of metadata by default, and this travels as base64."""
_MESSAGE_CHARACTERS: Final = 500

_FOREIGN: Final[dict[grpc.StatusCode, tuple[str, bool]]] = {
    grpc.StatusCode.CANCELLED: ("CANCELLED", False),
    grpc.StatusCode.UNKNOWN: ("UPSTREAM_ERROR", False),
    grpc.StatusCode.INVALID_ARGUMENT: ("INVALID_REQUEST", False),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("CONNECTION_TIMEOUT", True),
    grpc.StatusCode.NOT_FOUND: ("NOT_FOUND", False),
    grpc.StatusCode.ALREADY_EXISTS: ("ALREADY_EXISTS", False),
    grpc.StatusCode.PERMISSION_DENIED: ("PERMISSION_DENIED", False),
    grpc.StatusCode.UNAUTHENTICATED: ("UNAUTHENTICATED", False),
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("RATE_LIMITED", True),
    grpc.StatusCode.FAILED_PRECONDITION: ("STATE_CONFLICT", False),
    grpc.StatusCode.ABORTED: ("UPSTREAM_ERROR", True),
    grpc.StatusCode.OUT_OF_RANGE: ("INVALID_REQUEST", False),
    grpc.StatusCode.UNIMPLEMENTED: ("UNSUPPORTED", False),
    grpc.StatusCode.INTERNAL: ("UPSTREAM_ERROR", False),
    grpc.StatusCode.UNAVAILABLE: ("UNAVAILABLE", True),
    grpc.StatusCode.DATA_LOSS: ("UPSTREAM_ERROR", False),
}


def failure(code: str, message: str, *, component: str = "", operation: str = "", **more: Any) -> Failure:
    """A failure; `retryable` is the catalogue's default unless given among `more` (other fields of Failure)."""
    if "retryable" not in more:
        more["retryable"] = info(code).retryable
    return Failure(code=code, message=message, component=component, operation=operation, **more)


def public(failure: Failure) -> Failure:
    """The failure without internals, its causes included: what may leave the system (F29)."""
    if not failure.detail and failure.cause is None:
        return failure
    cause = None if failure.cause is None else public(failure.cause)
    return msgspec.structs.replace(failure, detail="", cause=cause)


def rich_status(failure: Failure) -> status_pb2.Status:
    """The status with which a failure leaves: Failure, ErrorInfo, and BadRequest, RetryInfo where they apply.

    Detail is removed. What exceeds the 8 KiB of metadata that peers take by default is shortened, the last violation then says by how much; answers that carry
    failures in their body (SubmitSwarms, CheckFlow) list all.
    """
    entry = info(failure.code)
    message = failure_to_proto(public(failure))
    status = status_pb2.Status(
        code=entry.status.value[0], message=_shortened(failure.message or entry.meaning, _MESSAGE_CHARACTERS)
    )
    _pack(status, _error_info(failure, entry))
    if failure.retry_after is not None:
        _pack(status, error_details_pb2.RetryInfo(retry_delay=duration(failure.retry_after)))
    bad_request = error_details_pb2.BadRequest()
    for violation in failure.violations:
        bad_request.field_violations.add(field=violation.field, description=_described(violation))
    _fit(message, bad_request, _STATUS_BYTES - _WRAPPING - status.ByteSize())
    if failure.violations:
        _pack(status, bad_request)
    _pack(status, message)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], failure: Failure) -> NoReturn:
    """Ends the call with the failure's rich status."""
    status = rich_status(failure)
    metadata = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(info(failure.code).status, status.message, metadata)
    raise AssertionError("abort returned")


def failure_of(error: grpc.RpcError, *, foreign: bool = False) -> Failure:
    """The failure that a gRPC error carries, or one made from its status where it carries none.

    Args:
        error: What a call raised (`grpc.aio.AioRpcError` or its synchronous kin).
        foreign: Whether the peer is not a tier of ours. Tiers name a reason for each RESOURCE_EXHAUSTED; without one it can only be gRPC itself, which
            says so of messages that are too large. Of a foreign peer it is back-pressure (Lesson 34).
    """
    status = _status_of(error)
    bad_request = error_details_pb2.BadRequest()
    retry_info = error_details_pb2.RetryInfo()
    if status is not None:
        sent = failure_pb2.Failure()
        _unpack(status, bad_request)
        if _unpack(status, sent):
            return _with_violations(failure_from_proto(sent), bad_request)
        _unpack(status, retry_info)
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    details = (error.details() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None) or ""
    name, retryable = _FOREIGN.get(code, ("UPSTREAM_ERROR", False))
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not foreign and status is None:
        name, retryable = "MESSAGE_TOO_LARGE", False
    made = failure(
        name,
        f"{info(name).meaning} (gRPC {code.name})",
        retryable=retryable,
        detail=details,
        retry_after=micros(retry_info.retry_delay) if retry_info.HasField("retry_delay") else None,
    )
    return _with_violations(made, bad_request)


def _error_info(failure: Failure, entry: CodeInfo) -> error_details_pb2.ErrorInfo:
    metadata = {"retryable": "true" if failure.retryable else "false", "hint": entry.hint}
    for name in ("component", "operation", "step_id"):
        if value := getattr(failure, name):
            metadata[name] = _shortened(value, 200)
    if failure.tier:
        metadata["tier"] = str(failure.tier)
    if entry.code != failure.code:
        metadata["handler_code"] = _shortened(failure.code, 200)
    return error_details_pb2.ErrorInfo(reason=entry.reason, domain=DOMAIN, metadata=metadata)


def _fit(message: failure_pb2.Failure, bad_request: error_details_pb2.BadRequest, room: int) -> None:
    """Shortens until both fit into `room` bytes: first what is there twice, then causes, then the message, then the list of violations."""
    if message.ByteSize() + bad_request.ByteSize() <= room:
        return
    del message.violations[:]
    if message.ByteSize() + bad_request.ByteSize() > room and message.HasField("cause"):
        _shorten_causes(message)
    if message.ByteSize() > room // 2:
        message.message = _shortened(message.message, _MESSAGE_CHARACTERS)
    all_violations = len(bad_request.field_violations)
    while bad_request.field_violations and message.ByteSize() + bad_request.ByteSize() > room - 192:
        excess = message.ByteSize() + bad_request.ByteSize() - (room - 192)
        size = max(1, bad_request.ByteSize() // len(bad_request.field_violations))
        del bad_request.field_violations[-max(1, excess // size) :]
    if left_out := all_violations - len(bad_request.field_violations):
        bad_request.field_violations.add(field="…", description=f"and {left_out} more that do not fit into a status")


def _shorten_causes(message: failure_pb2.Failure) -> None:
    """Keeps the chain, and of each cause its code and the beginning of its message; of a long chain the outermost six and the root."""
    causes: list[failure_pb2.Failure] = []
    cause = message
    while cause.HasField("cause"):
        cause = cause.cause
        causes.append(cause)
    kept = causes if len(causes) <= 7 else [*causes[:6], causes[-1]]
    chain: failure_pb2.Failure | None = None
    for cause in reversed(kept):
        link = failure_pb2.Failure()
        link.CopyFrom(cause)
        link.ClearField("cause")
        del link.violations[:]
        link.message = _shortened(link.message, 160)
        if chain is not None:
            link.cause.CopyFrom(chain)
        chain = link
    if chain is not None:
        message.cause.CopyFrom(chain)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _described(violation: Violation) -> str:
    return f"line {violation.line}: {violation.description}" if violation.line else violation.description


def _with_violations(failure: Failure, bad_request: error_details_pb2.BadRequest) -> Failure:
    if failure.violations or not bad_request.field_violations:
        return failure
    violations = tuple(
        Violation(field=item.field, description=item.description) for item in bad_request.field_violations
    )
    return msgspec.structs.replace(failure, violations=violations)


def _pack(status: status_pb2.Status, message: Any) -> None:
    packed = AnyMessage()
    packed.Pack(message)
    status.details.append(packed)


def _unpack(status: status_pb2.Status, message: Any) -> bool:
    """Reads the first detail of the message's type into it; whether there was one."""
    for detail in status.details:
        if detail.Is(message.DESCRIPTOR):
            try:
                return bool(detail.Unpack(message))
            except DecodeError:
                return False
    return False


def _status_of(error: grpc.RpcError) -> status_pb2.Status | None:
    call: Any = error  # the stubs say that metadata is a tuple, which it is not, and compiled code believes them
    trailing = call.trailing_metadata() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    for key, value in trailing or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None
