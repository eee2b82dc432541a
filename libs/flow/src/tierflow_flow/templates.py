"""JSON values with `${{ }}` holes, compiled.

A string that is one whole hole stands for the hole's value; in a longer string holes are interpolated: strings as they are, everything else as JSON.
`$${{` stands for `${{` itself. The JSON text of a template is put together from pieces that were serialised when it was compiled; a hole that is
a plain reference hands on the scope's JSON text, where the scope has it at hand, without parsing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tierflow_flow.definition import ExpressionError, Scope
from tierflow_flow.evaluate import Frame
from tierflow_flow.expressions import Expression, compile_expression
from tierflow_flow.functions import measure
from tierflow_flow.lexer import ExpressionSyntaxError
from tierflow_flow.syntax import parse_expression
from tierflow_flow.values import dumps, kind_of

OPEN, ESCAPED = "${{", "$${{"

Report: TypeAlias = Callable[[tuple[str | int, ...], str], None]
"""Takes the path below the template and what is wrong there."""


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
            raise self.error(str(error)) from None
        except (ValueError, RecursionError) as error:
            raise self.error(str(error)) from None

    def json(self, scope: Scope) -> str:
        """Its value as JSON text."""
        plain = self.expression.plain
        if plain is not None:
            try:
                raw = scope.raw(plain.name, plain.path)
            except ExpressionError as error:
                raise self.error(str(error)) from None
            if raw is not None:
                return raw
        value = self.value(scope)
        try:
            return dumps(value)
        except ValueError as error:
            raise self.error(str(error)) from None

    def error(self, message: str) -> ExpressionError:
        """An error that quotes the expression."""
        text = self.expression.text
        return ExpressionError(message if text in message else f"{message}, in ${{{{ {text} }}}}")


class Text:
    """A string with holes in it."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: tuple[str | Hole, ...]) -> None:
        self.pieces = pieces

    def value(self, scope: Scope) -> str:
        """The string with its holes filled."""
        parts = []
        for piece in self.pieces:
            if isinstance(piece, str):
                parts.append(piece)
                continue
            filled = piece.value(scope)
            parts.append(filled if isinstance(filled, str) else dumps(filled))
        return "".join(parts)

    def json(self, scope: Scope) -> str:
        """The string as JSON text."""
        return dumps(self.value(scope))


Visit: TypeAlias = Callable[[tuple[str | int, ...], Expression], None]
"""Is shown each expression and its path below the template."""

Built: TypeAlias = Any
"""A template's tree: plain values, with Hole and Text in places of strings."""


@dataclass(frozen=True, slots=True)
class CompiledTemplate:
    """The `Template` of the definition."""

    tree: Built
    pieces: tuple[str | Hole | Text, ...]
    """The JSON text: constant pieces, and what fills the gaps between them."""
    expressions: tuple[Expression, ...]
    constant: bool
    steps: frozenset[str]
    whole_steps: frozenset[str]
    wanted: type | None = None
    """What the value must be; None for anything."""

    @property
    def whole(self) -> bool:
        """Whether it is one hole and nothing else."""
        return isinstance(self.tree, Hole)

    def resolve(self, scope: Scope) -> Any:
        """The value with its holes filled. Raises `ExpressionError`. What is constant in it is shared: treat it as read-only."""
        value = self.tree if self.constant else _fill(self.tree, scope)
        if self.wanted is not None and type(value) is not self.wanted:
            quoted = f", in ${{{{ {self.expressions[0].text} }}}}" if self.expressions else ""
            raise ExpressionError(f"expected {_WANTED[self.wanted]}, found {kind_of(value)}{quoted}")
        return value

    def resolve_json(self, scope: Scope) -> str:
        """The same as JSON text; computed once where it is constant."""
        pieces = self.pieces
        if self.constant:
            return str(pieces[0])
        if self.wanted is not None:
            return dumps(self.resolve(scope))
        return "".join([piece if isinstance(piece, str) else piece.json(scope) for piece in pieces])


_WANTED: dict[type, str] = {bool: "true or false", list: "an array", dict: "an object"}


def _fill(tree: Built, scope: Scope) -> Any:
    if isinstance(tree, Hole | Text):
        return tree.value(scope)
    if isinstance(tree, dict):
        return {key: _fill(value, scope) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_fill(value, scope) for value in tree]
    return tree


def compile_template(
    source: Any, report: Report, visit: Visit | None = None, *, wanted: type | None = None
) -> CompiledTemplate:
    """Compile a plain value with holes in its strings (never in its keys). What is wrong goes to `report`; such strings stay as they are."""
    holes: list[Hole] = []
    tree = _build(source, (), (report, visit), holes)
    pieces: list[str | Hole | Text] = []
    _piece(tree, pieces)
    expressions = tuple(hole.expression for hole in holes)
    steps, whole = _steps_read(holes, tree)
    return CompiledTemplate(tree, tuple(_joined(pieces)), expressions, not holes, steps, whole, wanted)


def _build(
    source: Any, path: tuple[str | int, ...], listeners: tuple[Report, Visit | None], holes: list[Hole]
) -> Built:
    if isinstance(source, dict):
        return {key: _build(value, (*path, key), listeners, holes) for key, value in source.items()}
    if isinstance(source, list):
        return [_build(value, (*path, index), listeners, holes) for index, value in enumerate(source)]
    if not isinstance(source, str) or OPEN not in source:
        return source
    try:
        pieces = split_text(source)
    except ExpressionSyntaxError as error:
        listeners[0](path, f"{error} (at character {error.position + 1} of {_shortened(source)})")
        return source
    for piece in pieces:
        if isinstance(piece, Hole):
            holes.append(piece)
            if listeners[1] is not None:
                listeners[1](path, piece.expression)
    if len(pieces) == 1:
        return pieces[0]
    return Text(tuple(pieces))


def split_text(source: str) -> list[str | Hole]:
    """A string as its literal parts and its holes. Raises `ExpressionSyntaxError`."""
    pieces: list[str | Hole] = []
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
        text, position = cut_hole(source, found + len(OPEN))
        pieces.append(Hole(compile_expression(text)))
    literal += source[position:]
    if literal or not pieces:
        pieces.append(literal)
    return pieces


def cut_hole(source: str, start: int) -> tuple[str, int]:
    """The text of the hole whose expression begins at `start`, and the position behind its `}}`. Raises `ExpressionSyntaxError`."""
    _, end = parse_expression(source, start, hole=True)
    return source[start : end - 2].strip(), end


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _piece(tree: Built, pieces: list[str | Hole | Text]) -> None:
    if isinstance(tree, Hole | Text):
        pieces.append(tree)
    elif isinstance(tree, dict) and tree:
        opening = "{"
        for key, value in tree.items():
            pieces.append(f"{opening}{dumps(key)}:")
            _piece(value, pieces)
            opening = ","
        pieces.append("}")
    elif isinstance(tree, list) and tree:
        opening = "["
        for value in tree:
            pieces.append(opening)
            _piece(value, pieces)
            opening = ","
        pieces.append("]")
    else:
        pieces.append(dumps(tree))


def _joined(pieces: Iterable[str | Hole | Text]) -> Iterator[str | Hole | Text]:
    constant: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            constant.append(piece)
            continue
        if constant:
            yield "".join(constant)
            constant = []
        yield piece
    if constant:
        yield "".join(constant)


def _steps_read(holes: Iterable[Hole], tree: Built) -> tuple[frozenset[str], frozenset[str]]:
    inside_texts = {id(piece) for text in _texts(tree) for piece in text.pieces}
    steps: set[str] = set()
    looked_into: set[str] = set()
    for hole in holes:
        for reference in hole.expression.references:
            if reference.name != "steps" or not reference.path:
                continue
            step = str(reference.path[0])
            steps.add(step)
            handed_on = len(reference.path) == 2 and hole.expression.plain is not None and id(hole) not in inside_texts
            if reference.path[1:2] == ("output",) and not handed_on:
                looked_into.add(step)
    return frozenset(steps), frozenset(steps - looked_into)


def _texts(tree: Built) -> Iterator[Text]:
    if isinstance(tree, Text):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(value)
