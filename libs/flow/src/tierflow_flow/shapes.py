"""The shapes that values of keys may have. Each reads a value into its normal form, reporting what is wrong, and has its JSON Schema for editors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tierflow_expressions.holes import ESCAPED, OPEN, normal_text
from tierflow_expressions.values import kind_of

from tierflow_flow.durations import PATTERN as DURATION
from tierflow_flow.durations import parse_duration
from tierflow_flow.problems import Place, Problems
from tierflow_flow.schemas import expand_input, schema_problem

INVALID: Any = object()
"""Stands for a value that could not be read; the problem is reported already."""


class Shape(Protocol):
    """What a key's value looks like."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        ...

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The normal form of the value, or INVALID."""
        ...


def refuse(wanted: str, value: Any, place: Place, problems: Problems) -> Any:
    """Reports that something else was expected; INVALID."""
    hint = "; put it in quotes" if wanted.startswith("text") and isinstance(value, int | float) else ""
    problems.add(place, f"expected {wanted}, found {kind_of(value)}{hint}")
    return INVALID


@dataclass(frozen=True)
class Text:
    """A string, with a pattern of which `rule` tells in words."""

    most: int
    least: int = 0
    pattern: str = ""
    rule: str = ""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        schema: dict[str, Any] = {"type": "string", "maxLength": self.most}
        if self.least:
            schema["minLength"] = self.least
        if self.pattern:
            schema["pattern"] = f"^{self.pattern}$"
        return schema

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The text."""
        if not isinstance(value, str):
            return refuse("text", value, place, problems)
        if len(value) > self.most:
            problems.add(place, f"longer than {self.most} characters")
            return INVALID
        if len(value) < self.least or (self.pattern and not re.fullmatch(self.pattern, value, re.ASCII)):
            problems.add(place, f"{value[:60]!r} is not allowed: {self.rule or 'must not be empty'}")
            return INVALID
        return value


@dataclass(frozen=True)
class Number:
    """A number between bounds, both included."""

    least: float
    most: float
    whole: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "integer" if self.whole else "number", "minimum": self.least, "maximum": self.most}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The number; a float where it need not be whole."""
        wanted = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, wanted):
            return refuse("a whole number" if self.whole else "a number", value, place, problems)
        if not self.least <= value <= self.most:
            problems.add(place, f"must be from {self.least} to {self.most}")
            return INVALID
        return value if self.whole else float(value)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "boolean"}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The boolean."""
        return value if isinstance(value, bool) else refuse("true or false", value, place, problems)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"enum": list(self.options)}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The word."""
        if not isinstance(value, str):
            return refuse("one of " + ", ".join(self.options), value, place, problems)
        if value not in self.options:
            problems.add(
                place, f"{value[:60]!r} is not one of {', '.join(self.options)}{problems.hint(value, self.options)}"
            )
            return INVALID
        return value


@dataclass(frozen=True)
class Duration:
    """A duration between bounds; its normal form is microseconds."""

    least: int
    most: int

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "string", "pattern": DURATION}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """Microseconds."""
        if not isinstance(value, str):
            hint = f"; did you mean {value}s?" if isinstance(value, int) and not isinstance(value, bool) else ""
            problems.add(place, f"expected a duration such as 500ms, 30s, 10m or 1h30m, found {kind_of(value)}{hint}")
            return INVALID
        try:
            micros = parse_duration(value)
        except ValueError as error:
            problems.add(place, str(error))
            return INVALID
        if not self.least <= micros <= self.most:
            problems.add(place, f"must be from {_spoken(self.least)} to {_spoken(self.most)}")
            return INVALID
        return micros


def _spoken(micros: int) -> str:
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("s", 1_000_000), ("ms", 1_000)):
        if micros and micros % size == 0:
            return f"{micros // size}{unit}"
    return f"{micros}us"


@dataclass(frozen=True)
class Texts:
    """A list of strings, or one string for a list of one; each at most once."""

    item: Text | Choice

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"anyOf": [self.item.schema, {"type": "array", "items": self.item.schema, "uniqueItems": True}]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The list, without what is wrong."""
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            return refuse("a list of texts", value, place, problems)
        read: dict[str, None] = {}
        for index, item in enumerate(value):
            if isinstance(item, str) and "," in item:
                problems.add((*place, index), f"{item[:60]!r} is one text; several are a list: [{item[:60]}]")
                continue
            text = self.item.read(item, (*place, index), problems)
            if text is INVALID:
                continue
            if text in read:
                problems.add((*place, index), f"{text!r} twice")
            read[text] = None
        return list(read)


@dataclass(frozen=True)
class TextMap:
    """An object of strings."""

    key: Text
    value: Text

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "object", "propertyNames": self.key.schema, "additionalProperties": self.value.schema}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The object, without what is wrong."""
        if not isinstance(value, dict):
            return refuse("a mapping", value, place, problems)
        read = {}
        for key, item in value.items():
            name = self.key.read(key, (*place, key), problems)
            text = self.value.read(item, (*place, key), problems)
            if name is not INVALID and text is not INVALID:
                read[name] = text
        return dict(sorted(read.items()))


@dataclass(frozen=True)
class Anything:
    """Any value, with or without `${{ }}` holes."""

    holes: bool = True
    kind: str = ""
    """`object` or `array`, or empty for any; a whole hole stands for either."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        if not self.kind:
            return {}
        hole = {"type": "string", "pattern": r"^\s*\$\{\{[\s\S]*\}\}\s*$"}
        return {"anyOf": [{"type": self.kind}, hole]} if self.holes else {"type": self.kind}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The value, its keys sorted."""
        if not self.holes:
            _refuse_holes(value, place, problems)
        if self.kind and self.holes and isinstance(value, str) and value.strip().startswith(OPEN):
            value = value.strip()
        elif self.kind and not isinstance(value, _KINDS[self.kind]):
            return refuse(
                f"{_WORDS[self.kind]}{' or one ${{ }} expression' if self.holes else ''}", value, place, problems
            )
        return in_order(value, normal_text if self.holes else None)


_KINDS: dict[str, type] = {"object": dict, "array": list}
_WORDS = {"object": "a mapping", "array": "a list"}


def _refuse_holes(value: Any, place: Place, problems: Problems) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_holes(item, (*place, key), problems)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_holes(item, (*place, index), problems)
    elif isinstance(value, str) and OPEN in value.replace(ESCAPED, ""):
        problems.add(place, "no ${{ }} expressions here; the value is constant")


@dataclass(frozen=True)
class AsIs:
    """What is read elsewhere."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The value itself."""
        return value


def in_order(value: Any, string: Callable[[str], str] | None = None) -> Any:
    """The value with the keys of all its objects sorted, as the canonical form has them; `string` is applied to its strings."""
    if isinstance(value, dict):
        return {key: in_order(value[key], string) for key in sorted(value)}
    if isinstance(value, list):
        return [in_order(item, string) for item in value]
    return string(value) if string is not None and isinstance(value, str) else value


@dataclass(frozen=True)
class JsonSchema:
    """A JSON Schema; for the flow's input, the shorthand as well."""

    shorthand: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": "object"}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The schema in full, its keys sorted."""
        if not isinstance(value, dict):
            return refuse("a JSON Schema (a mapping)", value, place, problems)
        schema = expand_input(value) if self.shorthand else value
        if self.shorthand and schema.get("type", "object") != "object":
            problems.add((*place, "type"), "the input of a flow is an object")
            return INVALID
        if problem := schema_problem(schema):
            problems.add(place, problem)
            return INVALID
        return in_order(schema)


@dataclass(frozen=True)
class Condition:
    """`if`: an expression, with or without `${{ }}`, or a boolean. Its normal form is one whole hole."""

    @property
    def schema(self) -> dict[str, Any]:
        """For editors."""
        return {"type": ["string", "boolean"]}

    def read(self, value: Any, place: Place, problems: Problems) -> Any:
        """The expression as a hole."""
        if isinstance(value, bool):
            return "${{ true }}" if value else "${{ false }}"
        if not isinstance(value, str):
            return refuse("an expression", value, place, problems)
        text = value.strip()
        if text.startswith(OPEN):
            return normal_text(text)
        if not text or OPEN in text:
            problems.add(place, "expected one expression, such as steps.check.output.ok")
            return INVALID
        return f"{OPEN} {text} }}}}"
