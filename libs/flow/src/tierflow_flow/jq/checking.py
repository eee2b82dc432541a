"""What is wrong with a jq expression before it is evaluated: functions and variables that nobody defines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from tierflow_expressions.hints import nearest

from tierflow_flow.jq import syntax as s
from tierflow_flow.jq.formats import FORMATS

Name = tuple[str, int]


class _Seen:
    """What is known at a place, and what was found out."""

    __slots__ = ("functions", "problems", "used", "variables")

    def __init__(
        self, functions: frozenset[Name], variables: frozenset[str], problems: list[str], used: set[str]
    ) -> None:
        self.functions = functions
        self.variables = variables
        self.problems = problems
        self.used = used

    def inside(self, functions: set[Name] = frozenset(), variables: list[str] = []) -> _Seen:  # type: ignore[assignment]  # noqa: B006 - only read
        """The same with more names."""
        return _Seen(self.functions | functions, self.variables | frozenset(variables), self.problems, self.used)


def check(node: s.Node, variables: frozenset[str] | None) -> tuple[list[str], frozenset[str]]:
    """The problems of an expression, and the variables that it reads from around it.

    Args:
        node: The expression.
        variables: Names that are there; None: any name may be.
    """
    seen = _Seen(frozenset(), frozenset(), [], set())
    _walk(node, seen)
    known = seen.used if variables is None else variables
    unknown = [f"${name} is not there{nearest(name, known)}" for name in sorted(seen.used - known)]
    return seen.problems + unknown, frozenset(seen.used)


def _walk(node: Any, seen: _Seen) -> None:
    special = _SPECIAL.get(type(node))
    if special is not None:
        special(node, seen)
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            _walk(getattr(node, field.name), seen)
    elif isinstance(node, tuple):
        for item in node:
            _walk(item, seen)


def _call(node: s.Call, seen: _Seen) -> None:
    from tierflow_flow.jq.builtins import BUILTINS

    name = (node.name, len(node.arguments))
    if name not in seen.functions and (name not in BUILTINS or node.name.startswith("_")):
        names = sorted({known for known, _ in BUILTINS})
        seen.problems.append(f"{node.name}/{len(node.arguments)} is not defined{nearest(node.name, names)}")
    _walk(node.arguments, seen)


def _variable(node: s.Variable, seen: _Seen) -> None:
    if node.name not in seen.variables:
        seen.used.add(node.name)


def _bind(node: s.Bind, seen: _Seen) -> None:
    _walk(node.source, seen)
    _walk(node.patterns, seen)
    _walk(node.body, seen.inside(variables=[name for pattern in node.patterns for name in s.names_of(pattern)]))


def _reduce(node: s.Reduce | s.Foreach, seen: _Seen) -> None:
    _walk(node.source, seen)
    _walk(node.start, seen)
    _walk(node.pattern, seen)
    inner = seen.inside(variables=s.names_of(node.pattern))
    _walk(node.update, inner)
    if isinstance(node, s.Foreach):
        _walk(node.extract, inner)


def _define(node: s.Define, seen: _Seen) -> None:
    function = node.function
    own: Name = (function.name, len(function.parameters))
    _walk(function.body, seen.inside({own, *((name, 0) for name in function.parameters)}))
    _walk(node.rest, seen.inside({own}))


def _format(node: s.Format, seen: _Seen) -> None:
    if node.name not in FORMATS:
        seen.problems.append(f"@{node.name} is no format; known: {', '.join(sorted(FORMATS))}")


def _text(node: s.Text, seen: _Seen) -> None:
    if node.format not in FORMATS:
        seen.problems.append(f"@{node.format} is no format; known: {', '.join(sorted(FORMATS))}")
    _walk(node.pieces, seen)


def _label(node: s.Label, seen: _Seen) -> None:
    _walk(node.body, seen.inside(variables=[f"*label-{node.name}"]))


def _leave(node: s.BreakTo, seen: _Seen) -> None:
    if f"*label-{node.name}" not in seen.variables:
        seen.problems.append(f"$*label-{node.name} is not defined")


_SPECIAL: Final[Mapping[type, Callable[[Any, _Seen], None]]] = {
    s.Call: _call,
    s.Variable: _variable,
    s.Bind: _bind,
    s.Reduce: _reduce,
    s.Foreach: _reduce,
    s.Define: _define,
    s.Format: _format,
    s.Text: _text,
    s.Label: _label,
    s.BreakTo: _leave,
}
