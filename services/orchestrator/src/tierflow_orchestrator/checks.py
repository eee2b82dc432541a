"""Checks of small requests, and small conversions that the service needs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as pb
from tierflow_runtime import wire
from tierflow_runtime.contract import refusal
from tierflow_runtime.errors import failure
from tierflow_runtime.values import Failure, FailureError, Violation

from tierflow_orchestrator.link import Link

T = TypeVar("T")


def violated(field: str, description: str, operation: str = "") -> FailureError:
    """The error of one breach of the contract."""
    return FailureError(
        refusal([Violation(field=field, description=description)], component="orchestrator", operation=operation)
    )


def valid_id(field: str, text: str) -> str:
    """The id, if it is a UUID. Raises FailureError INVALID_REQUEST."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise violated(field, f"{text[:60]!r} is not a UUID") from None


def page_size(given: int, default: int, *, most: int = 1000, field: str = "page_size") -> int:
    """The size of a page. Raises FailureError INVALID_REQUEST."""
    if not 0 <= given <= most:
        raise violated(field, f"must be 0 to {most}")
    return given or default


def moment(request: Any, field: str) -> int | None:
    """An optional moment in microseconds."""
    value: Timestamp = getattr(request, field)
    return wire.micros(value) if request.HasField(field) else None


def no_handlers(missing: Sequence[str]) -> Failure:
    """The failure of a run whose handlers nobody offers."""
    return failure(
        "HANDLER_NOT_FOUND",
        f"no living executor offers {', '.join(missing)}: start one that does (TIERFLOW_HANDLERS), or correct the flow",
        component="orchestrator",
        operation="start_run",
        violations=tuple(
            Violation(field="input.flow", description=f"handler {name!r} is not offered") for name in missing
        ),
    )


def schema_json(schema: Mapping[str, Any] | None) -> str:
    """A JSON Schema as text; empty where there is none."""
    return "" if schema is None else msgspec.json.encode(schema).decode()


def shown_link(link: Link) -> pb.ConnectedExecutor:
    """An executor as it is shown."""
    shown = pb.ConnectedExecutor(hello=link.hello, address=link.address, slots_used=link.used, draining=link.draining)
    if link.lost_since is not None:
        shown.lost_since.GetCurrentTime()
    return shown


async def chain(first: T, rest: AsyncIterator[T]) -> AsyncIterator[T]:
    """`first`, then the rest."""
    yield first
    async for item in rest:
        yield item
