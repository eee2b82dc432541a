"""Values that the core makes or looks into: small ones inline, large ones apart; checked against schemas."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_runtime.schema import compile_schema
from tierflow_runtime.values import BlobRef, Payload, Violation

INLINE_BYTES: Final = 64 * 1024
"""Values above this are stored apart, by their content (rule R33)."""

LARGEST_BYTES: Final = 64 << 20
"""Values above this are not made: who asks for one fails, for good (Lesson 27)."""


class TooLarge(ExpressionError):
    """A value would be larger than a value may be."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the value has {size} bytes; at most {LARGEST_BYTES} are possible")


def failure_code(error: ExpressionError) -> str:
    """The code of the failure that an error of an expression leads to."""
    # The flow library quotes the expression around the error that it met: that one is the context.
    too_large = isinstance(error, TooLarge) or isinstance(error.__context__, TooLarge)
    return "PAYLOAD_TOO_LARGE" if too_large else "EXPRESSION_FAILED"


def payload_of(text: str, blobs: dict[str, bytes]) -> Payload:
    """The payload for a JSON text; the content of a large one is added to `blobs` under its SHA-256. Raises `TooLarge`."""
    if len(text) * 4 <= INLINE_BYTES:
        return text
    content = text.encode()
    if len(content) <= INLINE_BYTES:
        return text
    if len(content) > LARGEST_BYTES:
        raise TooLarge(len(content))
    sha256 = hashlib.sha256(content).hexdigest()
    blobs[sha256] = content
    return BlobRef(sha256=sha256, size=len(content))


def violations(schema: Mapping[str, Any], value: Any, at: str) -> tuple[Violation, ...]:
    """Where a plain value does not match a schema, with paths below `at`."""
    return tuple(compile_schema(dict(schema)).violations(value, at=at))
