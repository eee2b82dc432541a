"""Payloads: JSON text or a reference in the cores, three forms on the wire."""

from __future__ import annotations

from typing import Final

import orjson
from google.protobuf.struct_pb2 import ListValue, NullValue, Struct
from google.protobuf.struct_pb2 import Value as JsonValue
from tierflow_contracts.common.v1 import payload_pb2 as pa

from tierflow_runtime.values import BlobRef, Payload

_EXACT_DOUBLE: Final = 2**53


def payload_to_proto(payload: Payload | None, *, readable: bool = False) -> pa.Payload | None:
    """A payload as a message; None where there is no value (a message field takes None as unset).

    Args:
        payload: JSON text, a blob reference, or None.
        readable: Whether to send it as a protobuf value, for people with grpcurl. Integers beyond 2^53 would lose digits that way and stay JSON text.
    """
    if payload is None:
        return None
    if isinstance(payload, BlobRef):
        return pa.Payload(ref=blob_ref_to_proto(payload))
    if readable:
        value = orjson.loads(payload)
        if _fits_doubles(value):
            return pa.Payload(value=json_value(value))
    return pa.Payload(json=payload)


def payload_from_proto(message: pa.Payload) -> Payload | None:
    """The payload of a message; None where its kind is not set."""
    kind = message.WhichOneof("kind")
    if kind == "json":
        return message.json
    if kind == "ref":
        return blob_ref_from_proto(message.ref)
    if kind == "value":
        # Protobuf maps have no order; sorted, equal values are equal texts in every process, as comparing bodies needs (A14).
        return orjson.dumps(plain_value(message.value), option=orjson.OPT_SORT_KEYS).decode()
    return None


def blob_ref_to_proto(ref: BlobRef) -> pa.BlobRef:
    """A blob reference as a message."""
    return pa.BlobRef(sha256=ref.sha256, size=ref.size, media_type=ref.media_type)


def blob_ref_from_proto(message: pa.BlobRef) -> BlobRef:
    """The blob reference of a message; an unset media type is JSON."""
    return BlobRef(sha256=message.sha256, size=message.size, media_type=message.media_type or "application/json")


def plain_value(value: JsonValue) -> object:
    """The plain Python value of a protobuf value. Whole doubles that are exact become integers: 3, not 3.0."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and -_EXACT_DOUBLE <= number <= _EXACT_DOUBLE else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return {name: plain_value(field) for name, field in value.struct_value.fields.items()}
    if kind == "list_value":
        return [plain_value(item) for item in value.list_value.values]
    return None


def json_value(value: object) -> JsonValue:
    """The protobuf value of a plain JSON value. Raises TypeError for anything else."""
    if value is None:
        return JsonValue(null_value=NullValue.NULL_VALUE)
    if isinstance(value, bool):
        return JsonValue(bool_value=value)
    if isinstance(value, str):
        return JsonValue(string_value=value)
    if isinstance(value, int | float):
        return JsonValue(number_value=value)
    if isinstance(value, list | tuple):
        return JsonValue(list_value=ListValue(values=[json_value(item) for item in value]))
    if isinstance(value, dict):
        return JsonValue(struct_value=Struct(fields={name: json_value(field) for name, field in value.items()}))
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _fits_doubles(value: object) -> bool:
    if isinstance(value, int):
        return -_EXACT_DOUBLE <= value <= _EXACT_DOUBLE
    if isinstance(value, list):
        return all(map(_fits_doubles, value))
    return not isinstance(value, dict) or all(map(_fits_doubles, value.values()))
