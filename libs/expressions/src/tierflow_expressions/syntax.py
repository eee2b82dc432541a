"""The grammar of expressions: CEL text to a tree.

Precedence as in the CEL specification: `?:`, `||`, `&&`, relations and `in`, `+ -`, `* / %`, unary, member. Length and nesting are bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tierflow_expressions.hints import sign_hint
from tierflow_expressions.lexer import (
    END,
    MARK,
    NAME,
    NUMBER,
    STRING,
    ExpressionSyntaxError,
    Token,
    next_token,
    step_name,
)
from tierflow_expressions.limits import MAX_COMPREHENSIONS, MAX_EXPRESSION, MAX_EXPRESSION_DEPTH


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Any


@dataclass(frozen=True, slots=True)
class Name:
    """A scope's name or a comprehension's variable."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Member:
    """`base.field` or `base[key]`."""

    base: Node
    key: Node
    position: int


@dataclass(frozen=True, slots=True)
class Has:
    """`has(reference)`."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Call:
    """`f(a, b)` or, the same, `a.f(b)`."""

    function: str
    arguments: tuple[Node, ...]
    position: int


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """`{"a": b}`."""

    entries: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """`!a` or `-a`."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """`a + b` and its like."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Choice:
    """`a ? b : c`."""

    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Comprehension:
    """`over.macro(variable, body)`; for map with three arguments the second is `where`."""

    macro: str
    over: Node
    variable: str
    body: Node
    where: Node | None


Node: TypeAlias = Literal | Name | Member | Has | Call | ListOf | MapOf | Unary | Binary | Choice | Comprehension

MACROS = {"map": (2, 3), "filter": (2,), "all": (2,), "exists": (2,), "exists_one": (2,), "existsOne": (2,)}
_CONSTANTS = {"true": True, "false": False, "null": None}
_PRECEDENCE = {
    "||": 1,
    "&&": 2,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%"), 5),
}
_MAX_IN_A_ROW = 100
"""Operators or members one after the other."""


def parse_expression(text: str, start: int = 0, *, hole: bool = False, things: str = "steps") -> tuple[Node, int]:
    """The tree of the expression that begins at `start`, and where it ends.

    Without `hole` it must reach the end of `text`; with it, it ends at `}}`, and the position is behind that. Members of `things` may have hyphens. Raises `ExpressionSyntaxError`.
    """
    parser = _Parser(text, start, things)
    node = parser.expression()
    token = parser.token
    if token.start - start > MAX_EXPRESSION:
        raise ExpressionSyntaxError(f"expression longer than {MAX_EXPRESSION} characters", start)
    if not hole:
        if token.kind != END:
            raise ExpressionSyntaxError(f"unexpected {token.value!r}{sign_hint(token.value)}", token.start)
        return node, token.end
    if token.kind == MARK and token.value == "}" and text.startswith("}}", token.start):
        return node, token.start + 2
    if token.kind == END:
        raise ExpressionSyntaxError("no }} at the end of the expression", token.start)
    raise ExpressionSyntaxError(f"unexpected {token.value!r}{sign_hint(token.value)}", token.start)


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str, start: int, things: str) -> None:
        self.text = text
        self.things = things
        self.origin = start
        self.depth = 0
        self.comprehensions = 0
        self.token = next_token(text, start)

    def advance(self) -> Token:
        token = self.token
        if token.end - self.origin > MAX_EXPRESSION + 2:
            raise ExpressionSyntaxError(f"expression longer than {MAX_EXPRESSION} characters", self.origin)
        self.token = next_token(self.text, token.end)
        return token

    def at(self, mark: str) -> bool:
        return self.token.kind == MARK and self.token.value == mark

    def accept(self, mark: str) -> bool:
        if self.at(mark):
            self.advance()
            return True
        return False

    def expect(self, mark: str) -> Token:
        if not self.at(mark):
            found = repr(self.token.value) if self.token.kind != END else "the end"
            raise ExpressionSyntaxError(f"expected {mark!r}, found {found}", self.token.start)
        return self.advance()

    def nested(self, parse: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > MAX_EXPRESSION_DEPTH:
            raise ExpressionSyntaxError(f"nested deeper than {MAX_EXPRESSION_DEPTH} levels", self.token.start)
        node = parse()
        self.depth -= 1
        return node

    def expression(self) -> Node:
        return self.nested(self._choice)

    def _choice(self) -> Node:
        condition = self._binary(1)
        if not self.accept("?"):
            return condition
        then = self._binary(1)
        self.expect(":")
        return Choice(condition, then, self.expression())

    def _binary(self, least: int) -> Node:
        """Operands with operators that bind at least so strongly; those of one strength from left to right."""
        left, count = self._unary(), 0
        while (precedence := self._precedence()) >= least:
            operator = str(self.advance().value)
            left = Binary(operator, left, self._binary(precedence + 1))
            count += 1
            if count > _MAX_IN_A_ROW:
                raise ExpressionSyntaxError("too many operators in a row", self.token.start)
        return left

    def _precedence(self) -> int:
        token = self.token
        return _PRECEDENCE.get(token.value, 0) if token.kind in (MARK, NAME) else 0

    def _unary(self) -> Node:
        for mark in ("!", "-"):
            if self.at(mark):
                self.advance()
                if mark == "-" and self.token.kind == NUMBER:
                    return self._members(Literal(-self.advance().value))
                return Unary(mark, self.nested(self._unary))
        return self._members(self._primary())

    def _members(self, node: Node) -> Node:
        count = 0
        while True:
            count += 1
            if count > _MAX_IN_A_ROW:
                raise ExpressionSyntaxError("too many members in a row", self.token.start)
            position = self.token.start
            if self.accept("."):
                node = self._field(node, position)
            elif self.accept("["):
                key = self.expression()
                self.expect("]")
                node = Member(node, key, position)
            else:
                return node

    def _field(self, base: Node, position: int) -> Node:
        if isinstance(base, Name) and base.name == self.things:
            self.token = step_name(self.text, self.token)
        if self.token.kind != NAME:
            hint = "; use default(a.b, otherwise) for what may be missing" if self.at("?") else ""
            raise ExpressionSyntaxError(f"expected a field name after '.'{hint}", self.token.start)
        field = str(self.advance().value)
        if not self.at("("):
            return Member(base, Literal(field), position)
        if field in MACROS:
            return self._comprehension(field, base)
        return Call(field, (base, *self._arguments()), position)

    def _comprehension(self, macro: str, over: Node) -> Node:
        self.comprehensions += 1
        if self.comprehensions > MAX_COMPREHENSIONS:
            raise ExpressionSyntaxError(
                f"more than {MAX_COMPREHENSIONS} comprehensions inside one another", self.token.start
            )
        position = self.token.start
        arguments = self._arguments()
        self.comprehensions -= 1
        if len(arguments) not in MACROS[macro] or not isinstance(arguments[0], Name):
            raise ExpressionSyntaxError(f"{macro} is written list.{macro}(x, expression with x)", position)
        where = arguments[1] if len(arguments) == 3 else None
        return Comprehension(
            "exists_one" if macro == "existsOne" else macro, over, arguments[0].name, arguments[-1], where
        )

    def _arguments(self) -> tuple[Node, ...]:
        self.expect("(")
        return self._sequence(")")

    def _sequence(self, closing: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self.at(closing):
            items.append(self.expression())
            if not self.accept(","):
                break
        self.expect(closing)
        return tuple(items)

    def _primary(self) -> Node:
        token = self.token
        if token.kind in (STRING, NUMBER):
            self.advance()
            if token.value == 1 << 63 and self.text[token.end - 1] not in "uU":
                raise ExpressionSyntaxError("integer out of range", token.start)
            return Literal(token.value)
        if token.kind == NAME:
            return self._named(self.advance())
        if self.accept("("):
            node = self.expression()
            self.expect(")")
            return node
        if self.accept("["):
            return ListOf(self._sequence("]"))
        if self.at("{"):
            return self._map()
        found = repr(token.value) if token.kind != END else "the end"
        raise ExpressionSyntaxError(f"expected a value, found {found}", token.start)

    def _named(self, token: Token) -> Node:
        name = str(token.value)
        if name in _CONSTANTS:
            return Literal(_CONSTANTS[name])
        if name == "in":
            raise ExpressionSyntaxError("expected a value, found 'in'", token.start)
        if not self.at("("):
            return Name(name, token.start)
        arguments = self._arguments()
        if name != "has":
            return Call(name, arguments, token.start)
        if len(arguments) != 1 or not isinstance(arguments[0], Member):
            raise ExpressionSyntaxError("has is written has(a.b)", token.start)
        return Has(arguments[0])

    def _map(self) -> Node:
        self.expect("{")
        entries: list[tuple[Node, Node]] = []
        while not self.at("}"):
            key = self.expression()
            self.expect(":")
            entries.append((key, self.expression()))
            if not self.accept(","):
                break
        self.expect("}")
        return MapOf(tuple(entries))
