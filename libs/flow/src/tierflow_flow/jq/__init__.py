"""jq, evaluated within bounds of steps and memory, without anything outside: for the navigators whose expressions are jq.

The C library cannot be stopped from within a process (a loop in it holds the interpreter for as long as it likes), so that this is an interpreter of our own.
docs/serverless-workflow.md says what differs from jq 1.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierflow_flow.jq.binding import Env
from tierflow_flow.jq.budget import MAX_MADE, MAX_STEPS, MAX_WRITTEN, Budget
from tierflow_flow.jq.checking import check
from tierflow_flow.jq.errors import Break, JqError, JqLimit, JqSyntaxError
from tierflow_flow.jq.evaluate import Evaluation
from tierflow_flow.jq.parser import parse
from tierflow_flow.jq.syntax import Node
from tierflow_flow.jq.values import weight, writable

__all__ = ["Jq", "JqError", "JqLimit", "JqSyntaxError", "compile_jq"]


@dataclass(frozen=True, slots=True)
class Jq:
    """A compiled expression."""

    text: str
    node: Node
    variables: frozenset[str]
    """The variables that it reads."""

    def all(
        self,
        value: Any,
        variables: Mapping[str, Any] | None = None,
        *,
        now: float | None = None,
        steps: int = MAX_STEPS,
        made: int = MAX_MADE,
    ) -> list[Any]:
        """Everything that it yields for an input. Raises `JqError`; `JqLimit` where it exceeds its bounds."""
        budget = Budget(steps, made)
        evaluation = Evaluation(budget, now)
        found: list[Any] = []
        try:
            for result in evaluation.values(self.node, Env(variables=variables or {}), value):
                budget.make(1)
                found.append(_yielded(result))
        except Break:
            raise JqError("break") from None
        except RecursionError:
            raise JqLimit("the expression nests too deeply") from None
        return found

    def first(
        self,
        value: Any,
        variables: Mapping[str, Any] | None = None,
        *,
        now: float | None = None,
    ) -> Any:
        """The first thing that it yields for an input; null where there is none. Raises `JqError`, `JqLimit`."""
        evaluation = Evaluation(Budget(), now)
        try:
            for result in evaluation.values(self.node, Env(variables=variables or {}), value):
                return _yielded(result)
        except Break:
            raise JqError("break") from None
        except RecursionError:
            raise JqLimit("the expression nests too deeply") from None
        return None


def _yielded(value: Any) -> Any:
    """A value as it is handed on: somebody is going to write it in full."""
    if weight(value) > MAX_WRITTEN:
        raise JqLimit("the expression yields a value that is too large")
    return writable(value)


def compile_jq(text: str, variables: frozenset[str] | None = None) -> Jq:
    """The compiled expression. Raises `JqSyntaxError` where it is none, or where it names what is not there.

    Args:
        text: The expression.
        variables: Names of the variables that there are, without `$`; None: any.
    """
    try:
        node = parse(text)
    except RecursionError:
        raise JqSyntaxError("nested too deeply", 0) from None
    problems, used = check(node, variables)
    if problems:
        raise JqSyntaxError("; ".join(problems), 0)
    return Jq(text, node, used)
