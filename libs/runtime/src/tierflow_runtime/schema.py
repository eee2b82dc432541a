"""JSON Schemas, compiled once: what a value must look like, and where it does not, by path."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NoReturn

import jsonschema_rs
import orjson

from tierflow_runtime.values import Failure, FailureError, Violation

_MOST_VIOLATIONS: Final = 100
_LONGEST: Final = 300


class Schema:
    """A compiled schema. Safe to share: it keeps no state between calls."""

    def __init__(self, validator: jsonschema_rs.Validator) -> None:
        self._validator = validator

    def accepts(self, value: object) -> bool:
        """Whether a plain JSON value matches."""
        return self._validator.is_valid(value)

    def violations(self, value: object, *, at: str = "") -> list[Violation]:
        """Where a plain JSON value does not match; empty where it does. At most 100.

        Args:
            value: The value.
            at: Path under which the value is known to the reader, such as `input`; put before each path.
        """
        if self._validator.is_valid(value):
            return []
        found = []
        for error in self._validator.iter_errors(value):
            found.append(
                Violation(field=json_path(error.instance_path, at) or "(root)", description=_shortened(error.message))
            )
            if len(found) == _MOST_VIOLATIONS:
                break
        return found


def compile_schema(schema: str | dict[str, Any] | bool) -> Schema:
    """The compiled form of a JSON Schema, given as text or as a plain value. Equal schemas are compiled once.

    References within the schema are followed; references to other documents are refused: nothing is ever fetched from the network or read from a file.

    Raises:
        FailureError: INVALID_REQUEST, where it is not a schema, with the reason as a violation.
    """
    if isinstance(schema, str):
        return _compiled(schema)
    return _compiled(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode())


def json_path(path: list[str | int], at: str = "") -> str:
    """A path as people write it: `items[3].name`."""
    text = at
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


@lru_cache(maxsize=2048)
def _compiled(text: str) -> Schema:
    try:
        schema = orjson.loads(text)
        return Schema(jsonschema_rs.validator_for(schema, retriever=_refuse))
    except (
        orjson.JSONDecodeError,
        jsonschema_rs.ValidationError,
        jsonschema_rs.ReferencingError,
        ValueError,
        TypeError,
    ) as error:
        reason = error.message if isinstance(error, jsonschema_rs.ValidationError) else str(error)
        violation = Violation(field="schema", description=_shortened(reason))
        raise FailureError(
            Failure(  # made by hand: cores use this module, and `errors` knows the wire
                code="INVALID_REQUEST",
                message="This is not a usable JSON Schema.",
                component="schema",
                operation="compile",
                violations=(violation,),
            )
        ) from error


def _refuse(uri: str) -> NoReturn:
    raise ValueError(f"a reference to another document ({uri}); only references within the schema are followed")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
