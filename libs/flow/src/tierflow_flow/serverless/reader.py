"""Reading parts of a document: each asks for what it knows, what is left over is a problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tierflow_expressions.values import kind_of

from tierflow_flow.problems import Place, Problems
from tierflow_flow.schemas import schema_problem
from tierflow_flow.serverless.durations import micros_of
from tierflow_flow.serverless.program import Schema
from tierflow_flow.serverless.values import Value, compile_uri, compile_value, is_expression

UNSUPPORTED = "UNSUPPORTED: "
"""How the description of a problem begins whose cause is what this version does not do."""


class Part:
    """A mapping of the document, with the names that its expressions may read."""

    def __init__(self, source: Any, place: Place, problems: Problems, names: frozenset[str]) -> None:
        self.place = place
        self.problems = problems
        self.names = names
        self.source: dict[str, Any] = {}
        if isinstance(source, dict):
            self.source = source
        else:
            problems.add(place, f"expected an object, found {kind_of(source)}")

    def __contains__(self, key: str) -> bool:
        return key in self.source

    def wrong(self, key: str, description: str) -> None:
        """A problem at one of its keys."""
        self.problems.add((*self.place, key) if key else self.place, description)

    def unsupported(self, key: str, what: str) -> None:
        """Something that the DSL has and this version does not."""
        self.wrong(key, f"{UNSUPPORTED}{what}")

    def only(self, known: Iterable[str], *, required: Iterable[str] = ()) -> None:
        """Every other key is a problem, so is one that is missing."""
        names = tuple(known)
        for key in self.source:
            if key not in names:
                self.wrong(key, f"is not known here{self.problems.hint(key, names)}; known: {', '.join(names)}")
        for key in required:
            if key not in self.source:
                self.wrong("", f"{key} is missing")

    def part(self, key: str, names: frozenset[str] | None = None) -> Part:
        """An object below."""
        return Part(self.source.get(key, {}), (*self.place, key), self.problems, self.names if names is None else names)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self.source.get(key, default)
        if isinstance(value, str):
            return value
        self.wrong(key, f"expected a string, found {kind_of(value)}")
        return default

    def one_of(self, key: str, words: Iterable[str], default: str) -> str:
        """One of some words."""
        value = self.text(key, default)
        if value not in words:
            self.wrong(key, f"{value[:60]!r} is not one of {', '.join(words)}")
            return default
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.source.get(key, default)
        if isinstance(value, bool):
            return value
        self.wrong(key, f"expected true or false, found {kind_of(value)}")
        return default

    def number(self, key: str) -> int | None:
        """A whole number."""
        value = self.source.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        self.wrong(key, f"expected a whole number, found {kind_of(value)}")
        return None

    def items(self, key: str) -> list[Any]:
        """An array."""
        value = self.source.get(key, [])
        if isinstance(value, list):
            return value
        self.wrong(key, f"expected an array, found {kind_of(value)}")
        return []

    # Values with expressions.

    def _report(self, place: Place, description: str) -> None:
        self.problems.add(place, description)

    def value(self, key: str, *, loose: bool = False) -> Value | None:
        """A value that may hold expressions; None where the key is not there."""
        if key not in self.source:
            return None
        return compile_value(self.source[key], (*self.place, key), self.names, self._report, loose=loose)

    def condition(self, key: str) -> Value | None:
        """An expression, with or without `${ }`."""
        if key in self.source and not isinstance(self.source[key], str):
            self.wrong(key, f"expected an expression, found {kind_of(self.source[key])}")
            return None
        return self.value(key, loose=True)

    def shape(self, key: str) -> Value | None:
        """An expression, or an object with expressions in it."""
        if key in self.source and not isinstance(self.source[key], str | dict):
            self.wrong(key, f"expected an expression or an object, found {kind_of(self.source[key])}")
            return None
        return self.value(key, loose=True)

    def uri(self, key: str) -> Value | None:
        """A URI, a template of one, or an expression."""
        if not isinstance(self.source.get(key), str):
            self.wrong(key, "expected a URI")
            return None
        return compile_uri(self.source[key], (*self.place, key), self.names, self._report)

    def duration(self, key: str) -> Value | None:
        """A duration; None where the key is not there."""
        source = self.source.get(key)
        if source is None:
            return None
        if not is_expression(source):
            try:
                micros_of(source)
            except ValueError as error:
                self.wrong(key, str(error))
        return self.value(key)

    def schema(self, key: str) -> Schema | None:
        """A JSON Schema, inline; None where the key is not there."""
        if key not in self.source:
            return None
        part = self.part(key)
        part.only(("format", "document", "resource"))
        if "resource" in part:
            part.unsupported("resource", "schemas are not fetched; write them inline, under document")
            return None
        if part.text("format", "json").partition(":")[0] != "json":
            part.unsupported("format", "schemas are JSON Schemas")
            return None
        document = part.source.get("document")
        if not isinstance(document, Mapping):
            part.wrong("document", "expected a JSON Schema")
            return None
        if problem := schema_problem(document):
            part.wrong("document", problem)
            return None
        return Schema(document)
