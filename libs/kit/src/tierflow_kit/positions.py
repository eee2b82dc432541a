"""Where things are in the text of a flow: line, column and width of every key and value, by their place as problems write it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from tierflow_flow.problems import Place, show_place

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST = 50_000
_AT_CHARACTER = re.compile(r"\(at character (\d+) of (['\"].*['\"])\)$", re.DOTALL)
_IN_EXPRESSION = re.compile(r"in \$\{\{ (.*) \}\}$", re.DOTALL)
_ABOUT_KEYS = ("unknown key", "is missing", "belongs to steps", "twice", "has no value")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line. Lines and columns count from 1."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class _Entry:
    key: Span
    value: Span


class Positions:
    """The positions in one text."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self._entries: dict[str, _Entry] = {}
        try:
            root = yaml.compose(text, Loader=_LOADER)
        except yaml.YAMLError as error:
            self.broken: Span | None = _mark(error)
        else:
            self.broken = None
            self._gather(root)

    def _gather(self, root: Any) -> None:
        for place, key, value in _walk(root):
            if len(self._entries) >= _MOST:
                return
            self._entries.setdefault(show_place(place), _Entry(self._span(key), self._span(value)))

    def _span(self, node: Any) -> Span:
        start, end = node.start_mark, node.end_mark
        width = end.column - start.column if end.line == start.line else len(self.lines[start.line]) - start.column
        return Span(start.line + 1, start.column + 1, max(1, width))

    def of(self, path: str, description: str = "", line: int = 0) -> Span:
        """Where a problem is: its key or its value, or, within an expression, the very place; the nearest thing around it where it is not there itself."""
        if self.broken is not None:
            return self.broken if not line or line == self.broken.line else Span(line, 1)
        entry = self._nearest(path)
        if entry is None:
            return Span(line or 1, 1)
        if line and line not in (entry.key.line, entry.value.line) and path in self._entries:
            text = self.lines[line - 1]  # the second of two keys
            return Span(line, len(text) - len(text.lstrip()) + 1, max(1, len(path.rpartition(".")[2])))
        return self._within(entry.value.line, description) or self._key_or_value(entry, path, description)

    def _key_or_value(self, entry: _Entry, path: str, description: str) -> Span:
        about_key = any(words in description for words in _ABOUT_KEYS) or path not in self._entries
        return entry.value if entry.value.line == entry.key.line and not about_key else entry.key

    def key(self, path: str) -> Span:
        """Where a key is."""
        entry = self._nearest(path)
        return entry.key if entry is not None else Span(1, 1)

    def _nearest(self, path: str) -> _Entry | None:
        while path and path not in self._entries:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._entries.get(path)

    def _within(self, line: int, description: str) -> Span | None:
        """The place within an expression that a description names, where the text has it on this line."""
        text = self.lines[line - 1]
        if found := _AT_CHARACTER.search(description):
            quoted, position = str(ast.literal_eval(found[2])), int(found[1])
            for source, shift in ((quoted, 0), (quoted.removeprefix("${{ ").removesuffix(" }}"), 4)):
                start = text.find(source)
                if start >= 0 and position > shift:
                    return Span(line, min(start + position - shift, len(text)) or 1)
        elif found := _IN_EXPRESSION.search(description):
            start = text.find(found[1])
            if start >= 0:
                return Span(line, start + 1, len(found[1]))
        return None


def _mark(error: yaml.YAMLError) -> Span:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return Span(1, 1) if mark is None else Span(mark.line + 1, mark.column + 1)


def _walk(root: Any) -> Iterator[tuple[Place, Any, Any]]:
    """Every key and item with its place, its key's node and its value's node, in the order of the text."""
    waiting: list[tuple[Place, Any]] = [((), root)]
    while waiting:
        place, node = waiting.pop()
        below: list[tuple[Place, Any]] = []
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*place, str(key.value))
                yield inner, key, value
                below.append((inner, value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                inner = (*place, index)
                yield inner, value, value
                below.append((inner, value))
        waiting.extend(reversed(below))
