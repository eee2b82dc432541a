"""jq text to its tree: precedence climbing, with the bounds on length and nesting kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tierflow_flow.jq import syntax as s
from tierflow_flow.jq.budget import MAX_NESTING, MAX_TEXT
from tierflow_flow.jq.errors import JqSyntaxError
from tierflow_flow.jq.lexer import Inner, Token, tokens_of
from tierflow_flow.jq.terms import Terms

_LEVELS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("//",), "right"),
    (("=", "|=", "+=", "-=", "*=", "/=", "%=", "//="), "none"),
    (("or",), "left"),
    (("and",), "left"),
    (("==", "!=", "<", "<=", ">", ">="), "none"),
    (("+", "-"), "left"),
    (("*", "/", "%"), "left"),
)
"""Operators from the loosest to the tightest, and how they associate."""


def parse(text: str) -> s.Node:
    """The tree of an expression. Raises `JqSyntaxError`."""
    if len(text) > MAX_TEXT:
        raise JqSyntaxError(f"longer than {MAX_TEXT} characters", 0)
    parser = Parser(tokens_of(text))
    node = parser.pipe()
    parser.expect_end()
    return node


def parse_definitions(text: str) -> list[s.Function]:
    """Function definitions and nothing else: the builtins that are written in jq."""
    parser = Parser(tokens_of(text))
    found = []
    while parser.at("word", "def"):
        found.append(parser.function())
    parser.expect_end()
    return found


class Parser(Terms):
    r"""A parser over the tokens of one expression, or of one `\\( )` in it."""

    def __init__(self, tokens: list[Token], depth: int = 0) -> None:
        self.tokens = tokens
        self.place = 0
        self.depth = depth

    def nested(self, read: Callable[[], s.Node]) -> s.Node:
        """What `read` reads, one level deeper."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise JqSyntaxError(f"nested deeper than {MAX_NESTING} levels", self.now.position)
        node = read()
        self.depth -= 1
        return node

    def pipe(self) -> s.Node:
        """A whole expression."""
        return self.nested(self._pipe)

    def _pipe(self) -> s.Node:
        if self.at("word", "def"):
            function = self.function()
            return s.Define(function, self.pipe())
        if self.take("word", "label"):
            name = self.expect("variable").text[1:]
            self.expect("op", "|")
            return s.Label(name, self.pipe())
        left = self.comma()
        if self.take("op", "|"):
            return s.Pipe(left, self.pipe())
        return left

    def comma(self) -> s.Node:
        """Expressions with commas between them."""
        left = self.binary(0)
        while self.take("op", ","):
            left = s.Comma(left, self.binary(0))
        return left

    def no_comma(self) -> s.Node:
        """A value in an object: pipes of terms, no comma."""
        left = self.binary(0)
        return s.Pipe(left, self.nested(self.no_comma)) if self.take("op", "|") else left

    def binary(self, level: int) -> s.Node:
        """Operators from `level` on."""
        if level == len(_LEVELS):
            return self.unary()
        operators, association = _LEVELS[level]
        left = self.binary(level + 1)
        chained = 0
        while self.now.kind in ("op", "word") and self.now.text in operators:
            token = self.advance()
            if association == "right":
                return _joined(token.text, left, self.nested(lambda: self.binary(level)))
            left = _joined(token.text, left, self.binary(level + 1))
            chained += 1
            self._check_chain(association, operators, chained)
        return left

    def _check_chain(self, association: str, operators: tuple[str, ...], chained: int) -> None:
        if association == "none" and self.now.text in operators and self.now.kind == "op":
            raise JqSyntaxError(
                f"{self.now.text} cannot follow another such operator; use parentheses", self.now.position
            )
        if chained > 3 * MAX_NESTING:
            raise JqSyntaxError("too many operators in a row; use parentheses, or add", self.now.position)

    def unary(self) -> s.Node:
        """A term, or the negative of one."""
        if self.take("op", "-"):
            return s.Negate(self.nested(self.unary))
        term = self.nested(self.postfix)
        if not self.take("word", "as"):
            return term
        patterns = [self.pattern()]
        while self.take("op", "?//"):
            patterns.append(self.pattern())
        self.expect("op", "|")
        return s.Bind(term, tuple(patterns), self.pipe())

    def function(self) -> s.Function:
        """`def name(parameters): body;`."""
        self.expect("word", "def")
        name = self.expect("word").text
        parameters: list[str] = []
        if self.take("op", "("):
            while True:
                parameters.append(self.advance_if("variable", "word").text)
                if self.take("op", ")"):
                    break
                self.expect("op", ";")
        self.expect("op", ":")
        body = self.pipe()
        self.expect("op", ";")
        for parameter in reversed(parameters):
            if parameter.startswith("$"):
                body = s.Bind(s.Call(parameter[1:], ()), (s.NamePattern(parameter[1:]),), body)
        return s.Function(name, tuple(parameter.removeprefix("$") for parameter in parameters), body)

    def inner(self, tokens: Inner) -> s.Node:
        r"""What stands inside `\\( )` of a string."""
        parser = Parser(tokens.tokens, self.depth)
        node = parser.pipe()
        parser.expect_end()
        return node


def _joined(op: str, left: s.Node, right: s.Node) -> s.Node:
    if op in ("and", "or"):
        return s.Logic(op, left, right)
    if op == "//":
        return s.Alternative(left, right)
    if op.endswith("=") and op not in ("==", "!=", "<=", ">="):
        return s.Assign(op[:-1], left, right)
    return s.Binary(op, left, right)
