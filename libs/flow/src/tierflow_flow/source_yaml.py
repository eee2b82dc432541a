"""YAML with the line of each value, built from the parser's events alone: no constructors, no tags, no recursion.

Plain scalars mean what YAML 1.2's core schema says (so `no`, `on` and dates are strings). Anchors and aliases may be used; merge keys and tags may not.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from tierflow_flow.problems import Place
from tierflow_flow.source import Builder, Document, fatal

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+$", re.ASCII)
_BASED = re.compile(r"0o[0-7]+$|0x[0-9a-fA-F]+$", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")
_EXPRESSION = re.compile(r"\$\{\{|\b(if|while|until|when|map|for): ")
_MAX_DIGITS = 1_000


@dataclass(frozen=True, slots=True)
class _Size:
    """How large a value is: its values, their characters, its levels."""

    nodes: int
    characters: int
    height: int


@dataclass(slots=True)
class _Open:
    """A mapping or sequence whose end has not come yet."""

    value: dict[str, Any] | list[Any]
    place: Place
    anchor: str | None
    nodes: int = 1
    characters: int = 0
    height: int = 1
    key: str | None = None
    keys: set[str] = field(default_factory=set)


def read_yaml(text: str) -> Document:
    """Read a YAML text of one document. Raises `FlowError` with the line of the first syntax error."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        raise fatal(f"not YAML: {error.problem or error.context}{_quote_hint(text, line)}", line) from None
    except yaml.YAMLError as error:
        raise fatal(f"not YAML: {' '.join(str(error).split())[:200]}") from None
    return reader.builder.document(reader.root)


def _quote_hint(text: str, line: int) -> str:
    lines = text.split("\n", line)
    wrong = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in wrong[: len(wrong) - len(wrong.lstrip())]:
        return "; indent with spaces, not with tabs"
    return "; put expressions with ': ', ' #', braces or brackets in quotes" if _EXPRESSION.search(wrong) else ""


class _Reader:
    """Puts events together, with a stack of its own."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.root: Any = None
        self.documents = 0
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, _Size] | None] = {}
        """For each anchor its value and size; None while it is open."""

    def take(self, event: yaml.Event) -> None:
        """Take the next event."""
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise fatal("more than one YAML document", line)
        elif isinstance(event, yaml.ScalarEvent):
            self.scalar(event, line)
        elif isinstance(event, yaml.AliasEvent):
            self.alias(event, line)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self.open(event, line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self.close(line)

    def scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        if self.stack and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None:
            self.key(event.value, line)
            return
        place = self.place(line)
        size = _Size(1, len(event.value), 1)
        self.count(size, line)
        self.put(self.resolved(event, place), size, event.anchor)

    def key(self, text: str, line: int) -> None:
        top = self.stack[-1]
        place = (*top.place, self.builder.string(text, top.place))
        if text == "<<":
            self.builder.problems.append((top.place, "merge keys (<<) are not supported; write the keys out"))
        if text in top.keys:
            self.builder.twice(text, place)
        top.key = text
        top.keys.add(text)
        top.characters += len(text)
        self.builder.count(0, len(text), 0, line)
        self.builder.mark(place, line)

    def place(self, line: int) -> Place:
        """Where the value that comes now belongs."""
        if not self.stack:
            return ()
        top = self.stack[-1]
        if isinstance(top.value, dict):
            if top.key is None:
                raise fatal("keys must be plain text", line)
            return (*top.place, top.key)
        place = (*top.place, len(top.value))
        self.builder.mark(place, line)
        return place

    def count(self, size: _Size, line: int) -> None:
        """Count a value below what is open."""
        self.builder.count(size.nodes, size.characters, len(self.stack) + size.height, line)

    def put(self, value: Any, size: _Size, anchor: str | None) -> None:
        """Put a finished value into what holds it."""
        if anchor is not None:
            self.anchors[anchor] = (value, size)
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        top.nodes += size.nodes
        top.characters += size.characters
        top.height = max(top.height, size.height + 1)
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is not None:
            top.value[top.key] = value
            top.key = None

    def alias(self, event: yaml.AliasEvent, line: int) -> None:
        self.place(line)
        if event.anchor not in self.anchors:
            raise fatal(f"alias *{str(event.anchor)[:40]} of nothing", line)
        known = self.anchors[event.anchor]
        if known is None:
            raise fatal(f"alias *{str(event.anchor)[:40]} inside what it stands for", line)
        value, size = known
        self.count(size, line)
        self.put(value, size, None)

    def open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> None:
        place = self.place(line)
        if event.tag is not None and event.tag != "!":
            self.builder.problems.append((place, f"tag {event.tag[:80]} is not allowed"))
        self.count(_Size(1, 0, 1), line)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], place, event.anchor))

    def close(self, line: int) -> None:
        closed = self.stack.pop()
        self.put(closed.value, _Size(closed.nodes, closed.characters, closed.height), closed.anchor)

    def resolved(self, event: yaml.ScalarEvent, place: Place) -> Any:
        """The value of a scalar."""
        text: str = event.value
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            self.builder.problems.append((place, f"tag {event.tag[:80]} is not allowed"))
        if event.tag is not None or not event.implicit[0]:
            return self.builder.string(text, place)
        if text in _WORDS:
            return _WORDS[text]
        if text[0] in "-+.0123456789":
            return self.number(text, place)
        return self.builder.string(text, place)

    def number(self, text: str, place: Place) -> Any:
        """The number that a plain scalar stands for, or the text itself."""
        if len(text) <= _MAX_DIGITS:
            if _INTEGER.match(text):
                return int(text)
            if _BASED.match(text):
                return int(text, 0)
            if _FLOAT.match(text) and math.isfinite(number := float(text)):
                return number
        if _NOT_FINITE.match(text) or _FLOAT.match(text):
            self.builder.problems.append((place, f"{text[:40]} is out of range"))
            return 0
        return self.builder.string(text, place)
