"""From a caller's arguments to the request: the one place in the SDK that builds a `SwarmExecutionRequest`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import orjson
from tierflow_contracts.common.v1.execution_pb2 import ExecutionContext, ExecutionOptions
from tierflow_contracts.common.v1.flow_pb2 import FlowRef, FlowSource
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_contracts.coordinator.v1.swarm_pb2 import FixedPlan, FlowPlan, SwarmExecutionRequest, SwarmInput

from tierflow.budget import Budget
from tierflow.errors import InvalidRequest, NotFound, invalid, made
from tierflow.times import duration

MAX_REQUEST = 3 * 1024 * 1024
"""Longest request in bytes. A longer message would end the stream that all requests share, so it is refused before it is sent."""


@runtime_checkable
class Builder(Protocol):
    """A flow that was built in Python."""

    def to_json(self) -> str:
        """The definition as JSON text."""
        ...


FlowLike: TypeAlias = str | Path | Mapping[str, Any] | Builder
"""`name`, `name@version`, a path to YAML or JSON, a definition, or a builder."""


def flow_ref(flow: FlowLike) -> FlowRef:
    """What names a flow, or brings it along.

    Raises:
        NotFound: A path at which there is no file.
        InvalidRequest: Something that is no flow.
    """
    if isinstance(flow, str) and not _is_path(flow):
        name, _, version = flow.partition("@")
        if not name:
            raise invalid(
                "input.flow.flow.name",
                "is empty; give the name of a registered flow, name@version, or a path to a file",
            )
        return FlowRef(name=name, version=version)
    return FlowRef(source=flow_source(flow))


def flow_source(flow: FlowLike) -> FlowSource:
    """The text of a flow that is brought along. Raises what `flow_ref` does."""
    if isinstance(flow, str | Path):
        return _read(Path(flow))
    if isinstance(flow, Mapping):
        return FlowSource(json=encode(flow, "flow"))
    if isinstance(flow, Builder):
        return FlowSource(json=flow.to_json())
    raise invalid("input.flow", f"a {type(flow).__name__} is no flow; give a name, a path, a dict or a builder")


def _is_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml", ".json")) or "/" in text


def _read(path: Path) -> FlowSource:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(
            made("FLOW_NOT_FOUND", f"There is no file {path}. A registered flow is named without a slash or ending.")
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise invalid("input.flow", f"{path} cannot be read: {error}") from error
    return FlowSource(json=text) if path.suffix == ".json" else FlowSource(yaml=text)


def encode(value: Any, field: str) -> str:
    """A value as JSON text: what JSON knows, dataclasses, pydantic models, dates, UUIDs; integers of any size. Raises `InvalidRequest`."""
    try:
        text = orjson.dumps(value, default=_plain).decode()
        if "null" not in text or _is_finite(value):  # orjson writes NaN and the infinities as null
            return text
        raise invalid(field, "is not JSON: NaN and infinite numbers cannot be written")
    except TypeError as error:
        if "64-bit" not in str(error):
            raise invalid(field, f"is not JSON: {error}") from error
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise invalid(field, f"is not JSON: {error}") from error


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_is_finite(getattr(value, field.name)) for field in dataclasses.fields(value))
    return True


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
    return dump(mode="json")


def swarm_request(  # each argument is a part of the request; grouping them would only rename them
    flow: FlowRef | FixedPlan,
    value: Any,
    request_id: str,
    *,
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    timeout: float | str | timedelta | None = None,
    budget: Budget | None = None,
    correlation_id: str = "",
    test_mode: bool = False,
    validate_only: bool = False,
) -> SwarmExecutionRequest:
    """The request for one swarm that runs `flow`, or a plan of several, on `value`.

    Raises:
        InvalidRequest: The value is not JSON, or the whole is larger than 3 MiB.
    """
    text = "{}" if value is None else encode(value, "input.flow.input")
    context = ExecutionContext(request_id=request_id, traceparent=traceparent(), correlation_id=correlation_id)
    if labels:
        context.labels.update(labels)
    request = SwarmExecutionRequest(context=context, input=_plan(flow, text))
    if budget is not None:
        request.allocation.CopyFrom(budget.allocation())
    if priority or test_mode or validate_only or timeout is not None:
        request.options.CopyFrom(_options(priority, test_mode, validate_only, timeout))
    if len(text) * 4 > MAX_REQUEST and request.ByteSize() > MAX_REQUEST:
        raise _too_large(text)
    return request


def _plan(flow: FlowRef | FixedPlan, text: str) -> SwarmInput:
    if isinstance(flow, FlowRef):
        return SwarmInput(flow=FlowPlan(flow=flow, input=Payload(json=text)))
    plan = SwarmInput(fixed=flow)
    plan.fixed.input.json = text
    return plan


def _options(
    priority: int, test_mode: bool, validate_only: bool, timeout: float | str | timedelta | None
) -> ExecutionOptions:
    options = ExecutionOptions(priority=priority, test_mode=test_mode, validate_only=validate_only)
    if timeout is not None:
        options.timeout.CopyFrom(duration(timeout, "options.timeout"))
    return options


def _too_large(text: str) -> InvalidRequest:
    size = f"The input is {len(text)} characters of JSON; a request holds 3 MiB."
    return InvalidRequest(made("PAYLOAD_TOO_LARGE", f"{size} Hand it over by reference (a URL, a path)."))


def traceparent() -> str:
    """W3C trace context of the caller's current span; empty where there is none or OpenTelemetry is not in use."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    span = trace.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}" if span.is_valid else ""
