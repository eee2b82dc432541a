"""JSON with the line of each value. Strict: duplicate keys, NaN and anything after the value are problems."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from json import JSONDecodeError, decoder
from typing import Any

from tierflow_flow.problems import Place
from tierflow_flow.source import Builder, Document, fatal

_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_WORDS = {"true": True, "false": False, "null": None}
_MAX_DIGITS = 1_000


def read_json(text: str) -> Document:
    """Read a JSON text. Raises `FlowError` with the line of the first syntax error."""
    return _Reader(text).document()


class _Reader:
    """Recursive descent; the depth is bounded by the builder."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.builder = Builder()
        self.newlines = [match.start() for match in re.finditer("\n", text)]

    def line(self, position: int) -> int:
        return bisect_right(self.newlines, position - 1) + 1

    def skip(self, position: int) -> int:
        match = _SPACE.match(self.text, position)
        return match.end() if match else position

    def document(self) -> Document:
        value, end = self.value(self.skip(0), (), 1)
        end = self.skip(end)
        if end != len(self.text):
            raise fatal("not JSON: something follows the value", self.line(end))
        return self.builder.document(value)

    def value(self, position: int, place: Place, depth: int) -> tuple[Any, int]:
        self.builder.count(1, 0, depth, self.line(position))
        first = self.text[position : position + 1]
        if first == '"':
            text, end = self.string(position)
            return self.builder.string(text, place), end
        if first == "{":
            return self.object(position + 1, place, depth)
        if first == "[":
            return self.array(position + 1, place, depth)
        return self.scalar(position, place)

    def string(self, position: int) -> tuple[str, int]:
        try:
            text, end = decoder.scanstring(self.text, position + 1, True)  # type: ignore[attr-defined]
            return str(text), int(end)
        except JSONDecodeError as error:
            raise fatal(f"not JSON: {error.msg}", self.line(error.pos)) from None

    def scalar(self, position: int, place: Place) -> tuple[Any, int]:
        for word, value in _WORDS.items():
            if self.text.startswith(word, position):
                return value, position + len(word)
        match = _NUMBER.match(self.text, position)
        if match is None:
            raise fatal("not JSON: expected a value", self.line(position))
        return self.number(match, place), match.end()

    def number(self, match: re.Match[str], place: Place) -> int | float:
        text = match.group()
        if len(text) > _MAX_DIGITS:
            raise fatal(f"a number of more than {_MAX_DIGITS} digits", self.line(match.start()))
        if match.group(1) is None and match.group(2) is None:
            return int(text)
        number = float(text)
        if not math.isfinite(number):
            self.builder.problems.append((place, f"{text} is out of range"))
            return 0.0
        return number

    def object(self, position: int, place: Place, depth: int) -> tuple[dict[str, Any], int]:
        result: dict[str, Any] = {}
        position = self.skip(position)
        if self.text[position : position + 1] == "}":
            return result, position + 1
        while True:
            if self.text[position : position + 1] != '"':
                raise fatal("not JSON: expected a key in double quotes", self.line(position))
            line = self.line(position)
            key, position = self.string(position)
            inner = (*place, self.builder.string(key, place))
            position = self.skip(position)
            if self.text[position : position + 1] != ":":
                raise fatal("not JSON: expected ':'", self.line(position))
            if key in result:
                self.builder.twice(key, inner)
            self.builder.mark(inner, line)
            result[key], position = self.value(self.skip(position + 1), inner, depth + 1)
            closed, position = self.separator(position, "}")
            if closed:
                return result, position

    def array(self, position: int, place: Place, depth: int) -> tuple[list[Any], int]:
        result: list[Any] = []
        position = self.skip(position)
        if self.text[position : position + 1] == "]":
            return result, position + 1
        while True:
            inner = (*place, len(result))
            self.builder.mark(inner, self.line(position))
            item, position = self.value(position, inner, depth + 1)
            result.append(item)
            closed, position = self.separator(position, "]")
            if closed:
                return result, position

    def separator(self, position: int, closing: str) -> tuple[bool, int]:
        """Whether the object or array ends here, and where to read on."""
        position = self.skip(position)
        mark = self.text[position : position + 1]
        if mark == closing:
            return True, position + 1
        if mark != ",":
            raise fatal(f"not JSON: expected ',' or '{closing}'", self.line(position))
        return False, self.skip(position + 1)
