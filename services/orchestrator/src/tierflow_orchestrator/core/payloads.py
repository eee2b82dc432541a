"""Values that the core makes or looks into: small ones inline, large ones apart; checked against schemas."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from tierflow_runtime.schema import compile_schema
from tierflow_runtime.values import BlobRef, Payload, Violation

INLINE_BYTES: Final = 64 * 1024
"""Values above this are stored apart, by their content (rule R33)."""


def payload_of(text: str, blobs: dict[str, bytes]) -> Payload:
    """The payload for a JSON text; the content of a large one is added to `blobs` under its SHA-256."""
    if len(text) * 4 <= INLINE_BYTES:
        return text
    content = text.encode()
    if len(content) <= INLINE_BYTES:
        return text
    sha256 = hashlib.sha256(content).hexdigest()
    blobs[sha256] = content
    return BlobRef(sha256=sha256, size=len(content))


def violations(schema: Mapping[str, Any], value: Any, at: str) -> tuple[Violation, ...]:
    """Where a plain value does not match a schema, with paths below `at`."""
    return tuple(compile_schema(dict(schema)).violations(value, at=at))
