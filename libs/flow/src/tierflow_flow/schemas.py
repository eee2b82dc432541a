"""JSON Schemas inside flows: checking that they are schemas, the shorthand for inputs, and filling in defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")
_SCHEMA_KEYS = frozenset(
    {
        "$schema",
        "$id",
        "$ref",
        "$defs",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
    }
)


def schema_problem(schema: Mapping[str, Any]) -> str:
    """What is wrong with a schema; empty where it is one. References must stay inside it: nothing is ever fetched."""
    if (outside := _outside_reference(schema)) is not None:
        return f"$ref {outside[:80]!r} leads outside; only references that begin with # are allowed"
    try:
        jsonschema_rs.validator_for(dict(schema))
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return f"no JSON Schema: {' '.join(str(getattr(error, 'message', error)).split())[:300]}"
    return ""


def _outside_reference(schema: Any) -> str | None:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            for key in ("$ref", "$dynamicRef", "$id", "$schema"):
                target = value.get(key)
                if (
                    isinstance(target, str)
                    and not target.startswith("#")
                    and not (key == "$schema" and "json-schema.org" in target)
                ):
                    return target
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return None


def expand_input(source: Mapping[str, Any]) -> dict[str, Any]:
    """The input's schema in full. What does not look like a schema is the shorthand: property to type name or property to schema."""
    if source.get("type") == "object" or not _SCHEMA_KEYS.isdisjoint(source):
        return dict(source)
    properties = {name: {"type": value} if isinstance(value, str) else value for name, value in source.items()}
    required = [name for name, value in properties.items() if not (isinstance(value, Mapping) and "default" in value)]
    expanded: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        expanded["required"] = sorted(required)
    return expanded


def fill_defaults(schema: Mapping[str, Any] | None, value: Any) -> Any:
    """The value with the defaults of missing properties put in, at every level of `properties`. Nothing is changed in place."""
    if not isinstance(schema, Mapping) or not isinstance(value, dict):
        return value
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return value
    filled = dict(value)
    for name, inner in properties.items():
        if name in filled:
            filled[name] = fill_defaults(inner, filled[name])
        elif isinstance(inner, Mapping) and "default" in inner:
            filled[name] = inner["default"]
    return filled
