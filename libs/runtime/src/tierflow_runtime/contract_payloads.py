"""Payloads at the boundary: sound JSON of bearable size and depth, without NUL."""

from __future__ import annotations

import math
from typing import Any, Final

import orjson
from google.protobuf.struct_pb2 import Value as JsonValue
from tierflow_contracts.common.v1.payload_pb2 import BlobRef, Payload

from tierflow_runtime.contract_basics import (
    HASH,
    LARGEST_INLINE,
    check_not_negative,
    check_text,
    too_large,
)
from tierflow_runtime.payloads import plain_value
from tierflow_runtime.values import Violation

DEEPEST_VALUE: Final = 100


def check_payload(path: str, payload: Payload, found: list[Violation], *, must_be_object: bool = False) -> None:
    """A value; an object where one is asked for. None at all is allowed, and what a reference names is not looked at."""
    kind = payload.WhichOneof("kind")
    if kind == "json":
        _check_json(path + ".json", payload.json, found, must_be_object=must_be_object)
    elif kind == "ref":
        _check_blob_ref(path + ".ref", payload.ref, found)
    elif kind == "value":
        if _sound_value(payload.value):
            text = orjson.dumps(plain_value(payload.value)).decode()
            _check_json(path + ".value", text, found, must_be_object=must_be_object)
        else:
            wrong = "holds a value of no kind, or a number that is not finite; JSON has neither"
            found.append(Violation(field=path + ".value", description=wrong))


def _check_json(path: str, text: str, found: list[Violation], *, must_be_object: bool) -> None:
    size = len(text) if text.isascii() else len(text.encode())
    if size > LARGEST_INLINE:
        found.append(too_large(path, size, "store it as a blob and send its `ref`"))
        return
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        found.append(Violation(field=path, description=f"is not JSON: {error}"))
        return
    if must_be_object and not isinstance(value, dict):
        found.append(Violation(field=path, description="must be a JSON object"))
    # Walking a value costs more than parsing it, so that it is only done where the text gives cause.
    if "\\u0000" in text and _holds_nul(value):
        found.append(Violation(field=path, description="holds a NUL character (\\u0000)"))
    if text.count("[") + text.count("{") > DEEPEST_VALUE and _depth(value) > DEEPEST_VALUE:
        found.append(Violation(field=path, description=f"is nested more than {DEEPEST_VALUE} levels deep"))


def _check_blob_ref(path: str, ref: BlobRef, found: list[Violation]) -> None:
    if HASH.fullmatch(ref.sha256) is None:
        found.append(Violation(field=path + ".sha256", description="is not a SHA-256 in 64 lower-case hex digits"))
    check_not_negative(path + ".size", ref.size, found)
    check_text(path + ".media_type", ref.media_type, found)


def _sound_value(value: JsonValue) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return math.isfinite(value.number_value)
    if kind == "struct_value":
        return all(map(_sound_value, value.struct_value.fields.values()))
    if kind == "list_value":
        return all(map(_sound_value, value.list_value.values))
    return kind is not None


def _holds_nul(value: Any) -> bool:
    """Whether any text within a JSON value, keys included, holds a NUL. Iterative: values may be deep."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
    return False


def _depth(value: Any) -> int:
    """How many arrays and objects are nested within each other at most."""
    deepest = 0
    level = [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        deepest += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return deepest
