"""Values of the DSL that may hold runtime expressions, compiled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from tierflow_expressions.errors import ExpressionError

from tierflow_flow.jq import Jq, JqSyntaxError, compile_jq
from tierflow_flow.problems import Place

_EXPRESSION: Final = re.compile(r"\s*\$\{(.*)\}\s*", re.DOTALL)
_VARIABLE: Final = re.compile(r"\{([+]?)([A-Za-z_][A-Za-z0-9_.]*)\}")
STANDARD: Final = frozenset(("context", "input", "output", "task", "workflow", "runtime", "secrets"))
"""Variables that every expression may read."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an expression sees: `.` and the variables. `now` is the moment of the decision, in seconds since the epoch."""

    data: Any
    variables: Mapping[str, Any]
    now: float


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value in which strings may be expressions, compiled."""

    tree: Any
    constant: bool

    def resolve(self, around: Surroundings) -> Any:
        """The value, with each expression evaluated. Raises `ExpressionError`."""
        return self.tree if self.constant else _fill(self.tree, around)


def _fill(tree: Any, around: Surroundings) -> Any:
    if isinstance(tree, Jq):
        try:
            return tree.first(around.data, around.variables, now=around.now)
        except ExpressionError as error:
            raise ExpressionError(f"{error}, in ${{ {tree.text.strip()[:200]} }}") from error
    if isinstance(tree, UriTemplate):
        return tree.expand(around.data)
    if isinstance(tree, dict):
        return {key: _fill(value, around) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_fill(value, around) for value in tree]
    return tree


@dataclass(frozen=True, slots=True)
class UriTemplate:
    """A URI with `{name}` in it: top-level properties of the task's input."""

    text: str

    def expand(self, data: Any) -> str:
        """The URI. Raises `ExpressionError` where a name is not there."""

        def replace(match: re.Match[str]) -> str:
            value = data
            for part in match[2].split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is None or isinstance(value, dict | list):
                raise ExpressionError(
                    f"the URI {self.text[:200]} needs {match[2]}, which the input does not have as a plain value"
                )
            text = str(value).lower() if isinstance(value, bool) else str(value)
            return quote(text, safe="/:?#[]@!$&'()*+,;=-._~" if match[1] else "-._~")

        return _VARIABLE.sub(replace, self.text)


Report = Callable[[Place, str], None]


def compile_value(source: Any, place: Place, names: frozenset[str], report: Report, *, loose: bool = False) -> Value:
    """Compiles a value.

    Args:
        source: The value. A string that is `${ ... }` as a whole is an expression.
        place: Where it is.
        names: Variables that there are.
        report: Is told what is wrong.
        loose: Whether a plain string is an expression as well.
    """
    found: list[Jq] = []
    tree = _build(source, place, (names, report, loose), found)
    return Value(tree, not found)


def compile_uri(source: str, place: Place, names: frozenset[str], report: Report) -> Value:
    """Compiles a URI: an expression, or a template."""
    if _EXPRESSION.fullmatch(source):
        return compile_value(source, place, names, report)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source):
        report(place, f"{source[:80]!r} is no absolute URI")
    return Value(UriTemplate(source), False) if _VARIABLE.search(source) else Value(source, True)


def is_expression(source: Any) -> bool:
    """Whether a value is `${ ... }`."""
    return isinstance(source, str) and _EXPRESSION.fullmatch(source) is not None


def _build(source: Any, place: Place, how: tuple[frozenset[str], Report, bool], found: list[Jq]) -> Any:
    if isinstance(source, dict):
        return {key: _build(value, (*place, key), (how[0], how[1], False), found) for key, value in source.items()}
    if isinstance(source, list):
        return [_build(value, (*place, index), (how[0], how[1], False), found) for index, value in enumerate(source)]
    return _read_text(source, place, how, found) if isinstance(source, str) else source


def _read_text(source: str, place: Place, how: tuple[frozenset[str], Report, bool], found: list[Jq]) -> Any:
    names, report, loose = how
    match = _EXPRESSION.fullmatch(source)
    if match is None and not loose:
        return source
    try:
        compiled = compile_jq(source if match is None else match[1], names)
    except JqSyntaxError as error:
        where = f" (at character {error.position + 1})" if error.position else ""
        report(place, f"{error}{where}, in {source[:120]!r}")
        return None
    found.append(compiled)
    return compiled
