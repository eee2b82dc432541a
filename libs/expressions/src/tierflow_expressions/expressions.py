"""Expressions, compiled: from a tree to something that can be evaluated again and again, and a list of what it reads.

References such as `steps.walk.output.files[0].name` become one look-up in the scope. What can be refused without values is refused here:
unknown names, unknown functions, wrong numbers of arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tierflow_expressions import syntax
from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.evaluate import (
    OPERATORS,
    Evaluator,
    Frame,
    UnresolvedError,
    boolean,
    comprehension,
    either,
    negate,
    not_at_hand,
)
from tierflow_expressions.functions import FUNCTIONS, STATUS_FUNCTIONS
from tierflow_expressions.hints import function_hint, nearest
from tierflow_expressions.lexer import ExpressionSyntaxError
from tierflow_expressions.scope import FLOW, STATUS, Path, Vocabulary, walk

_MAX_TREE_DEPTH = 150


@dataclass(frozen=True, slots=True)
class Reference:
    """A look-up: a name of the scope and the path below it."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression."""

    text: str
    evaluate: Evaluator
    references: tuple[Reference, ...]
    """Everything that it may look up."""
    plain: Reference | None
    """Set where it is nothing but a reference."""
    status: frozenset[str]
    """The status functions that it calls."""


def compile_expression(text: str, words: Vocabulary = FLOW) -> Expression:
    """Compile the text of an expression; texts used lately are kept compiled. Raises `ExpressionSyntaxError`."""
    compiled = _compiled(text, words)
    if isinstance(compiled, ExpressionSyntaxError):
        raise ExpressionSyntaxError(str(compiled), compiled.position)
    return compiled


@lru_cache(maxsize=16_384)
def _compiled(text: str, words: Vocabulary) -> Expression | ExpressionSyntaxError:
    try:
        return compile_tree(syntax.parse_expression(text, things=words.things)[0], text, words)
    except ExpressionSyntaxError as error:
        return error.with_traceback(None)


def compile_tree(tree: syntax.Node, text: str, words: Vocabulary = FLOW) -> Expression:
    """Compile a tree whose text is given. Raises `ExpressionSyntaxError`."""
    compiler = _Compiler(words)
    evaluate = compiler.compile(tree)
    plain = compiler.reference(tree)
    return Expression(
        text.strip(), evaluate, tuple(dict.fromkeys(compiler.references)), plain, frozenset(compiler.status)
    )


class _Compiler:
    """Turns trees into closures and gathers what they read."""

    def __init__(self, words: Vocabulary) -> None:
        self.words = words
        self.references: list[Reference] = []
        self.status: set[str] = set()
        self.bound: tuple[str, ...] = ()
        self.depth = 0
        self.nodes = 0

    def compile(self, node: syntax.Node) -> Evaluator:
        self.depth += 1
        self.nodes += 1
        if self.depth > _MAX_TREE_DEPTH:
            raise ExpressionSyntaxError("too many operators inside one another", 0)
        evaluate: Evaluator = getattr(self, f"_{type(node).__name__.lower()}")(node)
        self.depth -= 1
        return evaluate

    def reference(self, node: syntax.Node) -> Reference | None:
        """The node as a look-up, where it is a scope's name with constant members."""
        path: list[str | int] = []
        while isinstance(node, syntax.Member):
            if (
                not isinstance(node.key, syntax.Literal)
                or isinstance(node.key.value, bool)
                or not isinstance(node.key.value, str | int)
            ):
                return None
            path.append(node.key.value)
            node = node.base
        if not isinstance(node, syntax.Name) or node.name in self.bound:
            return None
        names = self.words.names
        if node.name not in names:
            raise ExpressionSyntaxError(
                f"unknown name {node.name!r}; known: {', '.join(names)}{nearest(node.name, names) or self.words.hint}",
                node.position,
            )
        return Reference(node.name, tuple(reversed(path)))

    def _looked_up(self, reference: Reference) -> Evaluator:
        self.references.append(reference)
        name, path = reference.name, reference.path

        def evaluate(frame: Frame) -> Any:
            try:
                return frame.scope.lookup(name, path)
            except ExpressionError as error:
                if not_at_hand(error):
                    raise
                raise UnresolvedError(*error.args) from None

        return evaluate

    def _literal(self, node: syntax.Literal) -> Evaluator:
        value = node.value
        return lambda frame: value

    def _name(self, node: syntax.Name) -> Evaluator:
        reference = self.reference(node)
        if reference is not None:
            return self._looked_up(reference)
        name = node.name
        return lambda frame: frame.variables[name]

    def _member(self, node: syntax.Member) -> Evaluator:
        reference = self.reference(node)
        if reference is not None:
            return self._looked_up(reference)
        base, key = self.compile(node.base), self.compile(node.key)

        def evaluate(frame: Frame) -> Any:
            holder, part = base(frame), key(frame)
            if isinstance(part, bool) or not isinstance(part, str | int):
                raise ExpressionError("an index is a string or an integer")
            try:
                return walk(holder, (part,), "the value")
            except ExpressionError as error:
                raise UnresolvedError(*error.args) from None

        return evaluate

    def _has(self, node: syntax.Has) -> Evaluator:
        operand = self.compile(node.operand)

        def evaluate(frame: Frame) -> bool:
            try:
                operand(frame)
            except UnresolvedError:
                return False
            return True

        return evaluate

    def _call(self, node: syntax.Call) -> Evaluator:
        if node.function in STATUS_FUNCTIONS:
            return self._status(node)
        if node.function == "default":
            return self._default(node)
        function = FUNCTIONS.get(node.function)
        if function is None:
            known = (*FUNCTIONS, "default", "has", *STATUS_FUNCTIONS, *syntax.MACROS)
            raise ExpressionSyntaxError(
                f"unknown function {node.function}(){function_hint(node.function) or nearest(node.function, known)}",
                node.position,
            )
        if not function.least <= len(node.arguments) <= function.most:
            wanted = f"{function.least}" if function.least == function.most else f"{function.least} to {function.most}"
            raise ExpressionSyntaxError(
                f"{node.function}() takes {wanted} arguments, not {len(node.arguments)}", node.position
            )
        call, arguments = function.call, [self.compile(argument) for argument in node.arguments]
        return lambda frame: call(frame, *[argument(frame) for argument in arguments])

    def _status(self, node: syntax.Call) -> Evaluator:
        if node.arguments:
            raise ExpressionSyntaxError(f"{node.function}() takes no arguments", node.position)
        self.status.add(node.function)
        if node.function == "always":
            return lambda frame: True
        path = (node.function,)
        return lambda frame: frame.scope.lookup(STATUS, path)

    def _default(self, node: syntax.Call) -> Evaluator:
        if len(node.arguments) != 2:
            raise ExpressionSyntaxError(f"default() takes 2 arguments, not {len(node.arguments)}", node.position)
        wanted, otherwise = self.compile(node.arguments[0]), self.compile(node.arguments[1])

        def evaluate(frame: Frame) -> Any:
            try:
                value = wanted(frame)
            except UnresolvedError:
                return otherwise(frame)
            return otherwise(frame) if value is None else value

        return evaluate

    def _listof(self, node: syntax.ListOf) -> Evaluator:
        items = [self.compile(item) for item in node.items]
        return lambda frame: [item(frame) for item in items]

    def _mapof(self, node: syntax.MapOf) -> Evaluator:
        entries = [(self.compile(key), self.compile(value)) for key, value in node.entries]

        def evaluate(frame: Frame) -> dict[str, Any]:
            result: dict[str, Any] = {}
            for key, value in entries:
                name = key(frame)
                if not isinstance(name, str):
                    raise ExpressionError("the keys of an object are strings")
                if name in result:
                    raise ExpressionError(f"key {name!r} twice in an object")
                result[name] = value(frame)
            return result

        return evaluate

    def _unary(self, node: syntax.Unary) -> Evaluator:
        operand = self.compile(node.operand)
        if node.operator == "-":
            return negate(operand)
        return lambda frame: not boolean(operand(frame), "!")

    def _binary(self, node: syntax.Binary) -> Evaluator:
        left, right = self.compile(node.left), self.compile(node.right)
        if node.operator in ("&&", "||"):
            return either(node.operator, node.operator == "||", left, right)
        operate = OPERATORS[node.operator]
        return lambda frame: operate(frame, left(frame), right(frame))

    def _choice(self, node: syntax.Choice) -> Evaluator:
        condition, then, otherwise = self.compile(node.condition), self.compile(node.then), self.compile(node.otherwise)
        return lambda frame: then(frame) if boolean(condition(frame), "? :") else otherwise(frame)

    def _comprehension(self, node: syntax.Comprehension) -> Evaluator:
        if node.variable in self.words.names:
            raise ExpressionSyntaxError(
                f"{node.variable!r} is a name of the scope; call the variable something else", 0
            )
        over = self.compile(node.over)
        before, outer = self.nodes, self.bound
        self.bound = (*outer, node.variable)
        body = self.compile(node.body)
        where = self.compile(node.where) if node.where is not None else None
        self.bound = outer
        return comprehension(node.macro, over, node.variable, body, where, 1 + self.nodes - before)
