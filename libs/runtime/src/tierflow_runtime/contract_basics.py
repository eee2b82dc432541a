"""What the checks of the contract share: limits, and the simplest of all checks. Each adds what it finds to a list."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tierflow_runtime.coded import CodedViolation
from tierflow_runtime.values import Violation

LONGEST_TEXT: Final = 200
LONGEST_STEP_ID: Final = 500
LAST_GENERATION: Final = 2**31 - 1
"""The database keeps generations in 32 bits with a sign."""
LARGEST_INLINE: Final = 1024 * 1024
"""Bytes of the largest value, or source of a flow, that may be sent inline."""
PLACEHOLDERS: Final = frozenset(
    [
        "none",
        "null",
        "nil",
        "undefined",
        "unknown",
        "placeholder",
        "todo",
        "tbd",
        "changeme",
        "n/a",
        "nan",
        "string",
        "<id>",
    ]
)
"""What code writes where it has no value: never an identity (L2)."""

HASH: Final = re.compile(r"[0-9a-f]{64}")
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_MOST_SECONDS: Final = 315_576_000_000  # ten thousand years, the contract's own limit for durations
_YEAR_10000: Final = 253_402_300_800
_BILLION: Final = 1_000_000_000


def check_text(
    path: str, text: str, found: list[Violation], *, required: bool = False, longest: int = LONGEST_TEXT
) -> None:
    """A text: there if it must be, not too long, without NUL (which Postgres cannot store, Lesson 28)."""
    if not text:
        if required:
            found.append(Violation(field=path, description="required"))
        return
    if len(text) > longest:
        found.append(Violation(field=path, description=f"has {len(text)} characters; at most {longest} are allowed"))
    if "\0" in text:
        found.append(Violation(field=path, description="holds a NUL character"))


def check_uuid(path: str, text: str, found: list[Violation], *, required: bool = False) -> None:
    """A UUIDv7 in lower case."""
    if _UUID7.fullmatch(text) is None and (text or required):
        wrong = f"{text[:60]!r} is not a UUIDv7 in lower case" if text else "required"
        found.append(Violation(field=path, description=wrong))


def check_not_negative(path: str, number: int, found: list[Violation]) -> None:
    """A count or limit."""
    if number < 0:
        found.append(Violation(field=path, description=f"is {number}; it cannot be negative"))


def sound_duration(path: str, value: Duration, found: list[Violation]) -> bool:
    """Whether a duration is one by protobuf's rules."""
    seconds, nanos = value.seconds, value.nanos
    if abs(seconds) <= _MOST_SECONDS and abs(nanos) < _BILLION and seconds * nanos >= 0:
        return True
    found.append(Violation(field=path, description="is not a valid duration"))
    return False


def sound_timestamp(path: str, value: Timestamp, found: list[Violation]) -> bool:
    """Whether a timestamp is one by protobuf's rules, and not before 1970."""
    if 0 <= value.seconds < _YEAR_10000 and 0 <= value.nanos < _BILLION:
        return True
    found.append(Violation(field=path, description="is not a moment between 1970 and 9999"))
    return False


def too_large(path: str, size: int, way: str) -> CodedViolation:
    """The violation of a value that is too large to be sent inline; `way` says what to do instead."""
    return CodedViolation(
        field=path,
        description=f"has {size} bytes; at most {LARGEST_INLINE} may be sent inline: {way}",
        code="PAYLOAD_TOO_LARGE",
    )
