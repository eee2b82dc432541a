"""Errors as the DSL knows them (RFC 7807), and the failures that carry them through the core."""

from __future__ import annotations

import re
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.values import dumps, loads
from tierflow_flow.serverless.program import SPEC_TYPES
from tierflow_runtime.values import Failure

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.step import Step

MOST_DETAIL: Final = 4_000
"""Characters of an error's detail: it is journaled at every level that it passes."""
_OPERATION: Final = "serverless"
_EXTENDED: Final = re.compile(r"(?<=/)([^/]+)/extended/(?=\1(/|$))")
_TYPES: Final = {
    "TIMEOUT": ("timeout", 408, "Timeout"),
    "HEARTBEAT_TIMEOUT": ("timeout", 408, "Timeout"),
    "DEADLINE_EXCEEDED": ("timeout", 408, "Timeout"),
    "CONNECTION_TIMEOUT": ("communication", 504, "Communication Error"),
    "CONNECTION_FAILED": ("communication", 503, "Communication Error"),
    "UPSTREAM_ERROR": ("communication", 502, "Communication Error"),
    "RATE_LIMITED": ("communication", 429, "Communication Error"),
    "EXPRESSION_FAILED": ("expression", 400, "Expression Error"),
    "INPUT_INVALID": ("validation", 400, "Validation Error"),
    "OUTPUT_INVALID": ("validation", 400, "Validation Error"),
    "HANDLER_REJECTED": ("validation", 400, "Validation Error"),
    "APPROVAL_REJECTED": ("authorization", 403, "Authorization Error"),
    "PERMISSION_DENIED": ("authorization", 403, "Authorization Error"),
    "UNAUTHENTICATED": ("authentication", 401, "Authentication Error"),
}
"""What a failure of the core or of an executor is to the document: type, status, title."""
_CODES: Final = {
    "timeout": "TIMEOUT",
    "communication": "UPSTREAM_ERROR",
    "expression": "EXPRESSION_FAILED",
    "validation": "INPUT_INVALID",
    "authorization": "PERMISSION_DENIED",
    "authentication": "UNAUTHENTICATED",
}


class Raised(Exception):
    """An error of the document's own, on its way to the task that it concerns."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("title", error["type"])))
        self.error = error


def standard(kind: str, status: int, title: str, detail: str = "") -> Raised:
    """One of the DSL's own errors, such as `timeout`."""
    error: dict[str, Any] = {"type": SPEC_TYPES + kind, "status": status, "title": title}
    if detail:
        error["detail"] = detail
    return Raised(error)


def failure_of(step: Step, error: Raised | ExpressionError, code: str = "") -> Failure:
    """The failure of a step for an error. The error itself travels in `detail`, as JSON."""
    if not isinstance(error, Raised):
        error = standard("expression", 400, "Expression Error", str(error))
    found = {**error.error}
    found.setdefault("instance", place_of(step.of))
    if isinstance(found.get("detail"), str):
        found["detail"] = found["detail"][:MOST_DETAIL]
    short = str(found["type"]).removeprefix(SPEC_TYPES)
    message = str(found.get("title") or short)
    if found.get("detail"):
        message += f": {found['detail']}"
    return failures.of_step(
        step, code or _CODES.get(short, "HANDLER_FAILED"), message[:2_000], _OPERATION, detail=dumps(found)
    )


def error_of(failure: Failure, pointer: str) -> dict[str, Any]:
    """The error that a failure is to the document; `pointer` is the task where it arose."""
    inner: Failure | None = failure
    while inner is not None:
        if inner.operation == _OPERATION and inner.detail:
            found: dict[str, Any] = loads(inner.detail)
            return found
        inner = inner.cause
    kind, status, title = _TYPES.get(failure.code, ("runtime", 500, "Runtime Error"))
    detail = failure.message
    return {
        "type": SPEC_TYPES + kind,
        "status": status,
        "title": title,
        "detail": detail,
        "instance": place_of(pointer),
    }


def place_of(pointer: str) -> str:
    """Where a task is in the text of the document: extensions put it one level deeper."""
    return _EXTENDED.sub("", pointer)
