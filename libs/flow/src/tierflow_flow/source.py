"""The text of a flow to plain values, with the line of each: what YAML and JSON have in common.

Text is untrusted. Size, nesting and the number of values are bounded before anything is built, aliases count with all that they stand for, nothing is
ever constructed but JSON's own types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierflow_flow.definition import FlowError, Problem
from tierflow_flow.limits import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, MAX_TEXT
from tierflow_flow.problems import Place

_MAX_MARKED_DEPTH = 12
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A flow's text as plain values."""

    value: Any
    lines: Mapping[Place, int]
    """The line of each key and item, from 1."""
    problems: tuple[tuple[Place, str], ...]
    """What is wrong but does not keep one from reading on."""


def fatal(description: str, line: int = 0) -> FlowError:
    """The error for a text that cannot be read."""
    return FlowError([Problem("flow", description, line)])


def flawed(text: str) -> str:
    """What is wrong with a string that cannot be stored; empty where it is sound."""
    if "\x00" in text:
        return "holds a NUL character"
    if not text.isascii() and _SURROGATE.search(text):
        return "holds half of a surrogate pair"
    return ""


def check_size(text: str) -> None:
    """Raise `FlowError` where the text is too large or is not Unicode."""
    if len(text) > MAX_TEXT or len(text.encode(errors="surrogatepass")) > MAX_TEXT:
        raise fatal(f"larger than {MAX_TEXT} bytes")
    if problem := flawed(text):
        raise fatal(problem)


class Builder:
    """Gathers values, lines and flaws; keeps the bounds."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.problems: list[tuple[Place, str]] = []
        self.nodes = 0
        self.characters = 0

    def count(self, nodes: int, characters: int, depth: int, line: int) -> None:
        """Raise `FlowError` where the text has too many values or characters, or nests too deeply."""
        self.nodes += nodes
        self.characters += characters
        if self.characters > MAX_CHARACTERS:
            raise fatal(f"more than {MAX_CHARACTERS} characters, each alias counted with all that it stands for", line)
        if self.nodes > MAX_NODES:
            raise fatal(f"more than {MAX_NODES} values, each alias counted with all that it stands for", line)
        if depth > MAX_DEPTH:
            raise fatal(f"nested deeper than {MAX_DEPTH} levels", line)

    def mark(self, place: Place, line: int) -> None:
        """Note the line of a key or item; what lies deep has the line of what it is in."""
        if len(place) <= _MAX_MARKED_DEPTH:
            self.lines[place] = line

    def twice(self, key: str, place: Place) -> None:
        """Note that a key is there again."""
        first = f"; the first is in line {self.lines[place]}" if place in self.lines else ""
        self.problems.append((place, f"key {key!r} twice{first}"))

    def string(self, text: str, place: Place) -> str:
        """The string; a flaw of it is noted."""
        if problem := flawed(text):
            self.problems.append((place, problem))
        return text

    def document(self, value: Any) -> Document:
        """Everything that was gathered."""
        return Document(value, self.lines, tuple(self.problems))


def read_document(text: str, form: str) -> Document:
    """Read a text whose form is `yaml` or `json`. Raises `FlowError` where it is neither."""
    from tierflow_flow.source_json import read_json
    from tierflow_flow.source_yaml import read_yaml

    check_size(text)
    if form == "yaml":
        return read_yaml(text)
    if form == "json":
        return read_json(text)
    raise fatal(f"unknown form {form[:40]!r}; known: yaml, json")
