"""JSON values with `${{ }}` holes, compiled.

A string that is one whole hole stands for the hole's value; in a longer string holes are interpolated: strings as they are, everything else as JSON.
`$${{` stands for `${{` itself. The JSON text of a template is put together from pieces that were serialised when it was compiled; a hole that is
a plain reference hands on the scope's JSON text, where the scope has it at hand, without parsing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.expressions import Expression
from tierflow_expressions.holes import OPEN, Hole, Text, split_text, within_bound
from tierflow_expressions.lexer import ExpressionSyntaxError
from tierflow_expressions.scope import FLOW, Scope, Vocabulary
from tierflow_expressions.values import dumps, kind_of

Path: TypeAlias = tuple[str | int, ...]
Report: TypeAlias = Callable[[Path, str], None]
"""Takes the path below the template and what is wrong there."""
Visit: TypeAlias = Callable[[Path, Expression], None]
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

    @property
    def whole(self) -> bool:
        """Whether it is one hole and nothing else."""
        return isinstance(self.tree, Hole)

    def resolve(self, scope: Scope) -> Any:
        """The value with its holes filled. Raises `ExpressionError`. What is constant in it is shared: treat it as read-only."""
        return self.tree if self.constant else _fill(self.tree, scope)

    def resolve_json(self, scope: Scope) -> str:
        """The same as JSON text; computed once where it is constant."""
        pieces = self.pieces
        if self.constant:
            return str(pieces[0])
        parts, total = [], 0
        for piece in pieces:
            part = piece if isinstance(piece, str) else piece.json(scope)
            total += len(part)
            parts.append(part)
            within_bound(total)
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class ConditionTemplate(CompiledTemplate):
    """A template of `if`: true or false."""

    def resolve(self, scope: Scope) -> Any:
        """Whether the condition holds. Raises `ExpressionError` where it is neither true nor false."""
        value = self.tree.value(scope)
        if not isinstance(value, bool):
            raise self._refusal(value)
        return value

    def resolve_json(self, scope: Scope) -> str:
        """The same as JSON text."""
        return "true" if self.resolve(scope) else "false"

    def _refusal(self, value: Any) -> ExpressionError:
        return ExpressionError(
            f"expected true or false, found {kind_of(value)}, in ${{{{ {self.expressions[0].text} }}}}"
        )


@dataclass(frozen=True, slots=True)
class ItemsTemplate(CompiledTemplate):
    """A template of `map`: an array."""

    def resolve(self, scope: Scope) -> Any:
        """The items. Raises `ExpressionError` where it is no array."""
        value = CompiledTemplate.resolve(self, scope)
        if not isinstance(value, list):
            raise self._refusal(kind_of(value))
        return value

    def resolve_json(self, scope: Scope) -> str:
        """The same as JSON text, handed on where the scope has it at hand."""
        text = CompiledTemplate.resolve_json(self, scope)
        if not text.lstrip(" \t\r\n").startswith("["):
            raise self._refusal("something else")
        return text

    def _refusal(self, found: str) -> ExpressionError:
        return ExpressionError(f"expected an array, found {found}, in ${{{{ {self.expressions[0].text} }}}}")


def _fill(tree: Built, scope: Scope) -> Any:
    if isinstance(tree, Hole | Text):
        return tree.value(scope)
    if isinstance(tree, dict):
        return {key: _fill(value, scope) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_fill(value, scope) for value in tree]
    return tree


def compile_template(
    source: Any,
    report: Report,
    visit: Visit | None = None,
    *,
    as_: type[CompiledTemplate] = CompiledTemplate,
    words: Vocabulary = FLOW,
) -> CompiledTemplate:
    """Compile a plain value with holes in its strings (never in its keys).

    Args:
        source: The value.
        report: Is told what is wrong; a string that is wrong stays as it is.
        visit: Is shown each expression.
        as_: The class of the template.
        words: What its expressions may begin with.
    """
    holes: list[Hole] = []
    tree = _build(source, (), (report, visit, words), holes)
    pieces: list[str | Hole | Text] = []
    _piece(tree, pieces)
    expressions = tuple(hole.expression for hole in holes)
    steps, looked_into = _steps_read(tree, as_ is CompiledTemplate)
    return as_(tree, tuple(_joined(pieces)), expressions, not holes, steps, steps - looked_into)


def _build(source: Any, path: Path, listeners: tuple[Report, Visit | None, Vocabulary], holes: list[Hole]) -> Built:
    if isinstance(source, dict):
        return {key: _build(value, (*path, key), listeners, holes) for key, value in source.items()}
    if isinstance(source, list):
        return [_build(value, (*path, index), listeners, holes) for index, value in enumerate(source)]
    if not isinstance(source, str) or OPEN not in source:
        return source
    return _build_text(source, path, listeners, holes)


def _build_text(
    source: str, path: Path, listeners: tuple[Report, Visit | None, Vocabulary], holes: list[Hole]
) -> Built:
    report, visit, words = listeners
    try:
        pieces = split_text(source, words)
    except ExpressionSyntaxError as error:
        report(path, f"{error} (at character {error.position + 1} of {_shortened(source)})")
        return source
    for piece in pieces:
        if isinstance(piece, Hole):
            holes.append(piece)
            if visit is not None:
                visit(path, piece.expression)
    return pieces[0] if len(pieces) == 1 else Text(pieces)


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


def _steps_read(tree: Built, hands_on: bool) -> tuple[frozenset[str], frozenset[str]]:
    """The steps that a tree reads, and those of them whose outputs it looks into."""
    steps: set[str] = set()
    looked_into: set[str] = set()
    for expression, whole in _expressions(tree):
        for reference in expression.references:
            if reference.name != "steps" or not reference.path:
                continue
            step = str(reference.path[0])
            steps.add(step)
            handed_on = hands_on and whole and expression.plain is not None and len(reference.path) == 2
            if reference.path[1:2] == ("output",) and not handed_on:
                looked_into.add(step)
    return frozenset(steps), frozenset(looked_into)


def _expressions(tree: Built) -> Iterator[tuple[Expression, bool]]:
    """Each expression in a tree, and whether it is a whole value."""
    if isinstance(tree, Hole):
        yield tree.expression, True
    elif isinstance(tree, Text):
        for piece in tree.pieces:
            if isinstance(piece, Hole):
                yield piece.expression, False
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _expressions(value)
