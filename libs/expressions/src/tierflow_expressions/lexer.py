"""The words of an expression: cuts CEL text into tokens, one at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tierflow_expressions.hints import sign_hint

NAME, NUMBER, STRING, MARK, END = "name", "number", "string", "mark", "end"

STEP_ID = r"[A-Za-z_][A-Za-z0-9_-]*"
"""What a step may be called. In expressions `steps.fetch-page` names a step: a step itself cannot be subtracted from."""

_SKIP = re.compile(r"(?:[ \t\r\n\f]+|//[^\n]*)*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_STEP_ID = re.compile(STEP_ID, re.ASCII)
_FLOAT = re.compile(r"[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+", re.ASCII)
_INTEGER = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)([uU]?)", re.ASCII)
_MARK = re.compile(r"&&|\|\||[=!<>]=|[-+*/%!<>?:.,()\[\]{}]")
_QUOTE = re.compile(r"([rRbB]{0,2})(\"\"\"|'''|\"|')")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|X[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", re.DOTALL)
_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "?": "?",
    '"': '"',
    "'": "'",
    "`": "`",
}


class ExpressionSyntaxError(ValueError):
    """An expression is not written right; `position` is the character in the text."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Token:
    """A word: its kind, its text or value, where it begins and ends."""

    kind: str
    value: Any
    start: int
    end: int


def next_token(text: str, position: int) -> Token:
    """The token that begins at or after `position`; raises `ExpressionSyntaxError`."""
    skipped = _SKIP.match(text, position)
    start = skipped.end() if skipped else position
    if start >= len(text):
        return Token(END, "", start, start)
    if (quote := _QUOTE.match(text, start)) is not None:
        return _string(text, start, quote)
    if (name := _NAME.match(text, start)) is not None:
        return Token(NAME, name.group(), start, name.end())
    if (number := _FLOAT.match(text, start)) is not None:
        return Token(NUMBER, _float(number.group(), start), start, number.end())
    if (integer := _INTEGER.match(text, start)) is not None:
        return _integer(integer, start)
    if (mark := _MARK.match(text, start)) is not None:
        return Token(MARK, mark.group(), start, mark.end())
    raise ExpressionSyntaxError(f"unexpected character {text[start]!r}{sign_hint(text[start])}", start)


def step_name(text: str, token: Token) -> Token:
    """The token again, read as a step id: hyphens belong to it."""
    match = _STEP_ID.match(text, token.start)
    return Token(NAME, match.group(), token.start, match.end()) if match else token


def _float(text: str, start: int) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ExpressionSyntaxError(f"{text[:20]} is out of range", start)
    return number


def _integer(match: re.Match[str], start: int) -> Token:
    digits = match.group(1)
    number = int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits) if len(digits) < 25 else 1 << 80
    # One more than the greatest int64 is read for the sake of -9223372036854775808; the parser refuses it elsewhere.
    if number >= 1 << 64 or (not match.group(2) and number > 1 << 63):
        raise ExpressionSyntaxError("integer out of range", start)
    return Token(NUMBER, number, start, match.end())


def _string(text: str, start: int, quote: re.Match[str]) -> Token:
    prefix, mark = quote.group(1).lower(), quote.group(2)
    if "b" in prefix:
        raise ExpressionSyntaxError("bytes are not supported", start)
    raw, position = "r" in prefix, quote.end()
    while True:
        if position >= len(text):
            raise ExpressionSyntaxError("string without an end", start)
        if text.startswith(mark, position):
            break
        if text[position] == "\n" and len(mark) == 1:
            raise ExpressionSyntaxError("string without an end on its line", start)
        position += 2 if text[position] == "\\" and not raw else 1
    body = text[quote.end() : position]
    return Token(STRING, body if raw else _unescape(body, quote.end()), start, position + len(mark))


def _unescape(body: str, offset: int) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        if code in _SIMPLE:
            return _SIMPLE[code]
        if len(code) > 1:
            number = int(code[1:], 16) if code[0] in "xXuU" else int(code, 8)
            if number and number < 0x110000 and not 0xD800 <= number < 0xE000:
                return chr(number)
        raise ExpressionSyntaxError(f"escape \\{code} is not allowed", offset + match.start())

    return _ESCAPE.sub(replace, body)
