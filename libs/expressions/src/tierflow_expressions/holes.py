"""Strings with `${{ }}` holes: cutting them into pieces, writing them in one way, filling them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, TypeAlias

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.evaluate import Frame, not_at_hand
from tierflow_expressions.expressions import Expression, compile_expression, compile_tree
from tierflow_expressions.functions import measure
from tierflow_expressions.lexer import ExpressionSyntaxError
from tierflow_expressions.limits import MAX_RESOLVED
from tierflow_expressions.scope import FLOW, Scope, Vocabulary
from tierflow_expressions.syntax import parse_expression
from tierflow_expressions.values import dumps

OPEN, CLOSE, ESCAPED = "${{", "}}", "$${{"
_WITHOUT_BRACES = re.compile(r"\s*([^\"'{}]*)\}\}")
"""An expression that is at its end where the first braces are: most are. They are told from the others without parsing, and compiled once."""


class Hole:
    """An expression in its place."""

    __slots__ = ("expression",)

    def __init__(self, expression: Expression) -> None:
        self.expression = expression

    def value(self, scope: Scope) -> Any:
        """Its value; raises `ExpressionError` that quotes the expression."""
        plain = self.expression.plain
        try:
            if plain is not None:
                return scope.lookup(plain.name, plain.path)
            frame = Frame(scope)
            result = self.expression.evaluate(frame)
            measure(frame, result)
            return result
        except ExpressionError as error:
            raise self._quoted(error) from None
        except (ValueError, RecursionError) as error:
            raise self._quoted(ExpressionError(str(error))) from None

    def json(self, scope: Scope) -> str:
        """Its value as JSON text; raises `ExpressionError` that quotes the expression."""
        plain = self.expression.plain
        if plain is not None:
            try:
                raw = scope.raw(plain.name, plain.path)
            except ExpressionError as error:
                raise self._quoted(error) from None
            if raw is not None:
                return raw
        return self.written(self.value(scope))

    def text(self, scope: Scope) -> str:
        """Its value as it stands within a string: a string as it is, anything else as JSON."""
        value = self.value(scope)
        return value if isinstance(value, str) else self.written(value)

    def written(self, value: Any) -> str:
        """The JSON text of its value."""
        try:
            return dumps(value)
        except ValueError as error:
            raise self._quoted(ExpressionError(str(error))) from None

    def _quoted(self, error: ExpressionError) -> ExpressionError:
        text, message = self.expression.text, str(error)
        if not_at_hand(error) or text in message:
            return error
        return ExpressionError(f"{message}, in ${{{{ {text} }}}}")


class Text:
    """A string with holes in it."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: tuple[str | Hole, ...]) -> None:
        self.pieces = pieces

    def value(self, scope: Scope) -> str:
        """The string with its holes filled; raises `ExpressionError`."""
        parts, total = [], 0
        for piece in self.pieces:
            part = piece if isinstance(piece, str) else piece.text(scope)
            total = within_bound(total + len(part))
            parts.append(part)
        return "".join(parts)

    def json(self, scope: Scope) -> str:
        """The string as JSON text; raises `ExpressionError`."""
        return dumps(self.value(scope))


Piece: TypeAlias = str | Hole


def within_bound(characters: int) -> int:
    """The number again; raises `ExpressionError` where it is more than a value may have."""
    if characters > MAX_RESOLVED:
        raise ExpressionError(f"the value has more than {MAX_RESOLVED} characters")
    return characters


def split_text(source: str, words: Vocabulary = FLOW) -> tuple[Piece, ...]:
    """A string as its literal parts and its holes; strings seen lately are kept. Raises `ExpressionSyntaxError`."""
    pieces = _split(source, words)
    if isinstance(pieces, ExpressionSyntaxError):
        raise ExpressionSyntaxError(str(pieces), pieces.position)
    return pieces


@lru_cache(maxsize=16_384)
def _split(source: str, words: Vocabulary = FLOW) -> tuple[Piece, ...] | ExpressionSyntaxError:
    try:
        return tuple(_cut(source, words))
    except ExpressionSyntaxError as error:
        return error.with_traceback(None)


def _cut(source: str, words: Vocabulary) -> list[Piece]:
    pieces: list[Piece] = []
    literal, position = "", 0
    while (found := source.find(OPEN, position)) >= 0:
        if found > position and source[found - 1] == "$":
            literal += source[position : found - 1] + OPEN
            position = found + len(OPEN)
            continue
        literal += source[position:found]
        if literal:
            pieces.append(literal)
            literal = ""
        expression, position = _hole(source, found + len(OPEN), words)
        pieces.append(Hole(expression))
    literal += source[position:]
    if literal or not pieces:
        pieces.append(literal)
    return pieces


def _hole(source: str, start: int, words: Vocabulary) -> tuple[Expression, int]:
    """The expression that begins at `start`, and the position behind its `}}`."""
    plain = _WITHOUT_BRACES.match(source, start)
    if plain is None or "//" in plain.group():
        tree, end = parse_expression(source, start, hole=True, things=words.things)
        return compile_tree(tree, source[start : end - len(CLOSE)], words), end
    try:
        return compile_expression(plain.group(1), words), plain.end()
    except ExpressionSyntaxError as error:
        raise ExpressionSyntaxError(str(error), plain.start(1) + error.position) from None


def normal_text(source: str) -> str:
    """The string with one space at either end of each expression, so that `${{x}}` and `${{ x }}` are the same flow."""
    if OPEN not in source:
        return source
    try:
        pieces = split_text(source)
    except ExpressionSyntaxError:
        return source
    return "".join(
        piece.replace(OPEN, ESCAPED) if isinstance(piece, str) else f"{OPEN} {piece.expression.text} {CLOSE}"
        for piece in pieces
    )
