"""The expressions of a plan, compiled. A text that cannot be compiled was refused at submission."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.holes import CLOSE, OPEN
from tierflow_expressions.scope import PLAN, Scope
from tierflow_expressions.templates import CompiledTemplate, ConditionTemplate, Report, Visit, compile_template

MOST_KEPT: Final = 1024


def wrapped(text: str) -> str:
    """A text that is one expression, with its signs: it may be written without."""
    return text if OPEN in text else f"{OPEN} {text.strip()} {CLOSE}"


def bare(text: str) -> str:
    """The expression alone, for messages."""
    shown = text.strip().removeprefix(OPEN).removesuffix(CLOSE).strip()
    return shown if len(shown) <= 200 else shown[:197] + "..."


def expression(text: str, report: Report, visit: Visit | None = None) -> CompiledTemplate:
    """One expression, with or without its signs; `report` hears what is wrong."""
    template = compile_template(wrapped(text), report, visit, words=PLAN)
    if template.expressions and not template.whole:
        report((), "expected one expression and nothing around it")
    return template


def value_template(source: Any, report: Report, visit: Visit | None = None) -> CompiledTemplate:
    """A JSON value with expressions in its texts."""
    return compile_template(source, report, visit, words=PLAN)


@lru_cache(maxsize=MOST_KEPT)
def _condition(text: str) -> ConditionTemplate:
    template = compile_template(wrapped(text), _refuse, words=PLAN, as_=ConditionTemplate)
    if not isinstance(template, ConditionTemplate) or not template.whole:
        raise ExpressionError(f"{bare(text)} is not one expression")
    return template


def holds(text: str, scope: Scope) -> bool:
    """Whether a condition is true. Raises `ExpressionError`, also where it is neither true nor false."""
    return bool(_condition(text).resolve(scope))


def asks_for_status(text: str) -> bool:
    """Whether a condition is to be looked at even where a needed run failed or was skipped."""
    return bool(text) and any(each.status for each in _condition(text).expressions)


def evaluated(text: str, scope: Scope) -> Any:
    """The value of an expression. Raises `ExpressionError`."""
    return expression(text, _refuse).resolve(scope)


def _refuse(_path: Any, problem: str) -> None:
    raise ExpressionError(problem)
