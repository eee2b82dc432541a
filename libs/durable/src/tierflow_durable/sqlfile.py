"""SQL lives in SQL files: named statements with parameters by name.

A file is a list of blocks, each headed by `-- name: NAME`. `:param` stands for a parameter; `{part}` for text that the caller fills in from a closed set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_BLOCK = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<!:):([a-z_][a-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement in the server's own form: text with $1, $2 … and the names of its parameters in order."""

    name: str
    text: str
    parameters: tuple[str, ...]

    def arguments(self, **values: Any) -> list[Any]:
        """The values in the order of the parameters. Raises KeyError for one that is missing."""
        return [values[name] for name in self.parameters]


def compiled(name: str, text: str) -> Statement:
    """Numbers the parameters of a statement in the order of their first use."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return Statement(name=name, text=_PARAMETER.sub(number, text), parameters=tuple(names))


@cache
def blocks(package: str, filename: str) -> dict[str, str]:
    """The named blocks of a SQL file in `package`'s sql folder, as they stand."""
    text = (resources.files(package) / "sql" / filename).read_text()
    parts = _BLOCK.split(text)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def statement(name: str, filename: str = "queries.sql", package: str = "tierflow_durable", **parts: str) -> Statement:
    """A named statement of a file. Raises KeyError where there is none of that name."""
    body = blocks(package, filename)[name]
    for key, value in parts.items():
        body = body.replace("{" + key + "}", value)
    return compiled(name, body)


def narrowed(wanted: Any, by: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    """Conditions for the fields of a filter that are set, by name of the field, and their values for a statement."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    for name, condition in by.items():
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(condition)
            values[name] = value
    return conditions, values
