"""Sections: objects whose keys are known, each with its shape and a sentence on what it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tierflow_expressions.values import kind_of

from tierflow_flow.hints import key_hint
from tierflow_flow.problems import Place, Problems
from tierflow_flow.shapes import INVALID, Anything, AsIs, Shape


@dataclass(frozen=True)
class Key:
    """A key of a section."""

    name: str
    shape: Shape
    about: str
    required: bool = False
    default: Any = None
    """In the text's form; for editors."""


@dataclass(frozen=True)
class Section:
    """An object with known keys."""

    keys: Mapping[str, Key]
    finish: Callable[[dict[str, Any], Place, Problems], None] | None = None
    """Checks what concerns several keys."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More for the schema."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
        for key in self.keys.values():
            described = {**key.shape.schema, "description": key.about}
            if key.default is not None:
                described["default"] = key.default
            schema["properties"][key.name] = described
        if required := [key.name for key in self.keys.values() if key.required]:
            schema["required"] = required
        return {**schema, **self.extra}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The object with what could be read of it; keys without a value are left out."""
        if not isinstance(value, dict):
            problems.add(place, f"expected a mapping, found {kind_of(value)}; its keys: {_some(self.keys)}")
            return INVALID
        normal = {name: self._key(name, item, (*place, name), problems) for name, item in value.items()}
        read = {name: item for name, item in normal.items() if item is not INVALID}
        for key in self.keys.values():
            if key.required and key.name not in value:
                problems.add(place, f"{key.name} is missing: {key.about}")
        if self.finish is not None:
            self.finish(read, place, problems)
        return read

    def _key(self, name: str, item: Any, place: Place, problems: Problems) -> Any:
        key = self.keys.get(name)
        if key is None:
            problems.add(place, f"unknown key{problems.hint(name, self.keys) or key_hint(name, self.keys)}")
        elif item is None and not isinstance(key.shape, Anything | AsIs):
            problems.add(place, "has no value; leave the key out")
        else:
            return key.shape.read(item, place, problems)
        return INVALID


def _some(names: Mapping[str, Key]) -> str:
    first = list(names)[:4]
    return ", ".join([*first, "..."] if len(names) > len(first) else first)


def section(
    *keys: Key, finish: Callable[[dict[str, Any], Place, Problems], None] | None = None, **extra: Any
) -> Section:
    """A section of these keys."""
    return Section({key.name: key for key in keys}, finish, extra)
