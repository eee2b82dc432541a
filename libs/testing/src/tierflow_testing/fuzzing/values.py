"""Scalars that programs stumble over, by the type and the name of the field that they are put into."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from tierflow_durable.ids import uuid7

Pools = Mapping[str, Sequence[str]]
"""By name of a field: values that exist in the system at hand, such as the ids of swarms."""

TEXTS: tuple[str, ...] = (
    "", " ", "\0", "a\0b", "none", "NULL", "null", "undefined", "true", "0", "-1", "1e309", "NaN", "a" * 128, "a" * 200, "a" * 201, "a" * 501, "a" * 5_000,
    "é" * 200, "\U0001f4a5" * 64, "\u202eevil", "\ufeff", "\ufffe", "\ud7ff", "a\u0301", "line\nbreak", "tab\t", "\x7f", "\x1b[31m", "'; DROP TABLE entity; --",
    "%s%n%d", "${{ 1 / 0 }}", "{}", "{", "[]", "[", '"', "\\", "../../../etc/passwd", "file:///etc/passwd", "<script>", "tierflow.reserved", "*", ">", "a.b.c",
    "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "01890000-0000-7000-8000-000000000000", "0" * 64, "f" * 64, "g" * 64,
    "9" * 400, "٣", "-", "+", "1_000", "0x10", "echo", "default", "dev", "COMPLETED",
)  # fmt: skip

JSON_TEXTS: tuple[str, ...] = (
    "", "null", "{}", "[]", "1", "true", '"a"', "{", '{"a":', '{"a": 1}', '{"a": 1, "a": 2}', '{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a": NaN}', '{"a": 1e400}',
    '{"a": 123456789012345678901234567890}', '{"\\u0000": 1}', "[" * 90 + "]" * 90, '{"a": ' + "[" * 120 + "]" * 120 + "}", "[" * 2_000, '{"a":' * 200 + "1" + "}" * 200,
    '{"a": "' + "x" * 70_000 + '"}', '{"": ""}', "{'a': 1}", "\ufeff{}", " {} ", "{} {}", "/* */ {}", '{"__proto__": {"a": 1}}', '{"a": -0.0}', "\0",
)  # fmt: skip

TRACES: tuple[str, ...] = (
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "00", "-" * 55,
)  # fmt: skip

TOKENS: tuple[str, ...] = (
    "", "0", "1", "-1", "9" * 30, "9" * 5_000, "²", "٣", "eyJzIjoxLCJyIjp7fX0", "eyJzIjotMSwiciI6e319", "eyJzIjo5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OSwiciI6e319",
    "eyJzIjoxLCJyIjp7IngiOjk5OTk5OTk5OTk5OTk5OTk5OTk5fX0", "bnVsbA", "!!!", "a\nb", "\n", "a\0b\nc",
)  # fmt: skip

_INTEGERS: dict[int, tuple[int, ...]] = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, 2, 100, 101, 1000, 1001, 10_000, 999_999_999, 1_000_000_000, -(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2, 64, 65, 1000, 2**31 - 1, 2**31, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (
        0, 1, -1, 59, 10**9, 253_402_300_799, 253_402_300_800, 315_576_000_000, 315_576_000_001, -315_576_000_001, 2**53 + 1, -(2**63), 2**63 - 1,
    ),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2, 3, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1),
}  # fmt: skip
_DOUBLES: tuple[float, ...] = (
    0.0, -0.0, 1.0, -1.0, 0.1, 99.9, 100.1, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 2.0**53, 2.0**63,
)  # fmt: skip


def scalar(chance: random.Random, field: Any, pools: Pools) -> Any:
    """A value for a field (its descriptor) that is no message: hostile, plausible, or random."""
    kind = field.cpp_type
    if kind in _INTEGERS:
        return _integer(chance, _INTEGERS[kind])
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_number(chance, [value.number for value in field.enum_type.values])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return content(chance) if field.type == FieldDescriptor.TYPE_BYTES else text(chance, field.name, pools)
    number = chance.choice(_DOUBLES)
    single = kind == FieldDescriptor.CPPTYPE_FLOAT and abs(number) < 3e38
    return struct.unpack("f", struct.pack("f", number))[0] if single else number


def _integer(chance: random.Random, numbers: tuple[int, ...]) -> int:
    return chance.choice(numbers) if chance.random() < 0.8 else chance.randint(min(numbers), max(numbers))


def _enum_number(chance: random.Random, known: list[int]) -> int:
    return chance.choice(known) if chance.random() < 0.6 else chance.choice((-1, 77, 2**31 - 1, -(2**31)))


def content(chance: random.Random) -> bytes:
    """Bytes of a field of that type."""
    return chance.choice((b"", b"\0", b"{}", b"\xff" * 10, chance.randbytes(chance.choice((1, 100, 1000, 262_144)))))


def text(chance: random.Random, name: str, pools: Pools) -> str:
    """A text for a field of that name."""
    if chance.random() < 0.25:
        return chance.choice(TEXTS)
    if name in pools and chance.random() < 0.6:
        return chance.choice(pools[name])
    if name.endswith("_id") or name in ("replaces", "acknowledge", "adopt", "attach"):
        return chance.choice(
            (
                uuid7(),
                uuid7().upper(),
                uuid7()[:-1],
                "{" + uuid7() + "}",
                uuid7().replace("-", ""),
                "a",
                chance.choice(TEXTS),
            )
        )
    for ending, texts in (("json", JSON_TEXTS), ("traceparent", TRACES), ("token", TOKENS)):
        if name.endswith(ending):
            return chance.choice(texts)
    if chance.random() < 0.3:
        return "".join(
            chr(chance.choice((chance.randint(1, 127), chance.randint(128, 0xD7FF), chance.randint(0xE000, 0x10FFFF))))
            for _ in range(chance.randint(1, 30))
        )
    return chance.choice(TEXTS)
