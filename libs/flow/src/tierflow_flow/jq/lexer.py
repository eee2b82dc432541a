r"""jq text to tokens. Strings become lists of texts and of the texts inside `\\( )`, which the parser reads in their turn."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from tierflow_flow.jq.errors import JqSyntaxError

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
    |(?P<variable>\$(?:__loc__|[A-Za-z_][A-Za-z0-9_]*))
    |(?P<format>@[A-Za-z0-9]+)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<op>\?//|\|=|//=|//|==|!=|<=|>=|\+=|-=|\*=|/=|%=|\.\.|[.\[\]{}()|,:;=<>+\-*/%?])""",
    re.VERBOSE | re.ASCII,
)
_UNICODE: Final = re.compile(r"\\u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?")
_ESCAPES: Final = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Token:
    """A token: `kind` is number, field, variable, format, word, op, string or end."""

    kind: str
    text: str
    position: int
    value: Any = None
    """Of a string: its pieces, `str` for text and `Inner` for what stands inside `\\( )`."""


@dataclass(frozen=True, slots=True)
class Inner:
    r"""The tokens inside `\\( )` of a string."""

    tokens: list[Token]


def tokens_of(text: str) -> list[Token]:
    """The tokens of an expression, with one of kind `end` at last. Raises `JqSyntaxError`."""
    found, _ = _read(text, 0, inside=False)
    return found


def _read(text: str, at: int, *, inside: bool) -> tuple[list[Token], int]:
    r"""Tokens from `at` on; `inside` a string's `\\(`: up to the parenthesis that closes it."""
    found: list[Token] = []
    depth = 0
    while at < len(text):
        if text[at] == '"':
            token, at = _string(text, at)
            found.append(token)
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise JqSyntaxError(f"unexpected character {text[at]!r}", at)
        piece = match.group()
        if inside and piece == ")" and depth == 0:
            found.append(Token("end", "", at))
            return found, match.end()
        depth += (piece == "(") - (piece == ")")
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), piece, at))
        at = match.end()
    if inside:
        raise JqSyntaxError("a string's \\( is not closed", at)
    found.append(Token("end", "", at))
    return found, at


def _string(text: str, start: int) -> tuple[Token, int]:
    pieces: list[str | Inner] = []
    plain: list[str] = []
    at = start + 1
    while True:
        if at >= len(text):
            raise JqSyntaxError("a string is not closed", start)
        character = text[at]
        if character == '"':
            pieces.append("".join(plain))
            return Token("string", '"', start, pieces), at + 1
        if character != "\\":
            plain.append(character)
            at += 1
        elif text[at + 1 : at + 2] == "(":
            pieces.append("".join(plain))
            plain = []
            inner, at = _read(text, at + 2, inside=True)
            pieces.append(Inner(inner))
        else:
            escaped, at = _escape(text, at)
            plain.append(escaped)


def _escape(text: str, at: int) -> tuple[str, int]:
    letter = text[at + 1 : at + 2]
    if letter in _ESCAPES and letter:
        return _ESCAPES[letter], at + 2
    match = _UNICODE.match(text, at)
    if match is None:
        raise JqSyntaxError("an escape that strings do not have", at)
    first = int(match[1], 16)
    if 0xD800 <= first < 0xDC00 and match[2]:
        return chr(0x10000 + ((first - 0xD800) << 10) + int(match[2], 16) - 0xDC00), match.end()
    if 0xD800 <= first < 0xE000:
        return "\ufffd", at + 6
    return chr(first), at + 6
