"""Trees to closures: what an expression does, with its cost counted while it runs.

CEL's meaning with these differences, all documented in docs/flows.md: integers and doubles mix in arithmetic, results that are not finite are errors,
has() is false where any part of its path is missing. Time and memory are bounded by a count of units (`limits.MAX_COST`), never by a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.limits import MAX_COST
from tierflow_expressions.scope import Scope
from tierflow_expressions.values import kind_of

MAX_INT, MIN_INT = (1 << 63) - 1, -(1 << 63)


class UnresolvedError(ExpressionError):
    """A reference leads nowhere."""


def not_at_hand(error: ExpressionError) -> bool:
    """Whether it is an error of the scope's own: nothing may be concluded from it, see `Scope.lookup`."""
    return type(error) not in (ExpressionError, UnresolvedError)


class Frame:
    """One evaluation: the scope, the variables of comprehensions, the cost so far."""

    __slots__ = ("cost", "scope", "variables")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.variables: dict[str, Any] = {}
        self.cost = 0

    def spend(self, units: int) -> None:
        """Count `units`; raises `ExpressionError` where it was too much."""
        self.cost += units
        if self.cost > MAX_COST:
            raise ExpressionError(f"the expression costs more than {MAX_COST} units")


Evaluator: TypeAlias = Callable[[Frame], Any]


def number(value: Any) -> bool:
    """Whether it is an integer or a double."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _no_overload(operator: str, left: Any, right: Any) -> ExpressionError:
    return ExpressionError(f"{operator} does not take {kind_of(left)} and {kind_of(right)}")


def checked(result: int | float) -> int | float:
    """The result of arithmetic, where it is an int64 or a finite double."""
    if isinstance(result, int):
        if not MIN_INT <= result <= MAX_INT:
            raise ExpressionError("integer overflow")
    elif not math.isfinite(result):
        raise ExpressionError("the result is not a finite number")
    return result


def add(frame: Frame, left: Any, right: Any) -> Any:
    """Sum of numbers, concatenation of strings and of arrays."""
    if number(left) and number(right):
        return checked(_arithmetic("+", left, right))
    if isinstance(left, str) and isinstance(right, str):
        frame.spend((len(left) + len(right)) // 8)
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        frame.spend(len(left) + len(right))
        return left + right
    raise _no_overload("+", left, right)


def _arithmetic(operator: str, left: Any, right: Any) -> Any:
    try:
        return _ARITHMETIC[operator](left, right)
    except ZeroDivisionError:
        raise ExpressionError("division by zero") from None
    except OverflowError:
        raise ExpressionError("the result is not a finite number") from None


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    return left / right


def _remainder(left: Any, right: Any) -> Any:
    if not (isinstance(left, int) and isinstance(right, int)):
        raise _no_overload("%", left, right)
    return left - right * _divide(left, right)


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divide,
    "%": _remainder,
}


def arithmetic(operator: str) -> Callable[[Frame, Any, Any], Any]:
    """The operation on two numbers."""

    def operate(frame: Frame, left: Any, right: Any) -> Any:
        if not (number(left) and number(right)):
            raise _no_overload(operator, left, right)
        return checked(_arithmetic(operator, left, right))

    return operate


def equal(frame: Frame, left: Any, right: Any) -> bool:
    """Equality by value: numbers by size, never a boolean with a number; arrays and objects deeply."""
    pairs = [(left, right)]
    while pairs:
        left, right = pairs.pop()
        frame.spend(1)
        if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
            frame.spend(len(left))
            pairs.extend(zip(left, right, strict=True))
        elif isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
            frame.spend(len(left))
            pairs.extend((value, right[key]) for key, value in left.items())
        elif not _equal_scalars(left, right):
            return False
    return True


def _equal_scalars(left: Any, right: Any) -> bool:
    if isinstance(left, list | dict) or isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right)


def compare(operator: str) -> Callable[[Frame, Any, Any], bool]:
    """`<` and its like, on two numbers, strings or booleans."""
    test = _COMPARISONS[operator]

    def operate(frame: Frame, left: Any, right: Any) -> bool:
        for kind in (str, bool):
            if isinstance(left, kind) and isinstance(right, kind):
                return test(left, right)
        if number(left) and number(right):
            return test(left, right)
        raise _no_overload(operator, left, right)

    return operate


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def contained(frame: Frame, left: Any, right: Any) -> bool:
    """`in`: an item of an array, a key of an object."""
    if isinstance(right, dict):
        return isinstance(left, str) and left in right
    if isinstance(right, list):
        return any(equal(frame, left, item) for item in right)
    raise _no_overload("in", left, right)


OPERATORS: dict[str, Callable[[Frame, Any, Any], Any]] = {
    "+": add,
    "-": arithmetic("-"),
    "*": arithmetic("*"),
    "/": arithmetic("/"),
    "%": arithmetic("%"),
    "==": equal,
    "!=": lambda frame, left, right: not equal(frame, left, right),
    "<": compare("<"),
    "<=": compare("<="),
    ">": compare(">"),
    ">=": compare(">="),
    "in": contained,
}


def boolean(value: Any, where: str) -> bool:
    """The value, where it is true or false; raises `ExpressionError` otherwise."""
    if value is True or value is False:
        return bool(value)
    raise ExpressionError(f"{where} takes true or false, not {kind_of(value)}")


def either(operator: str, decisive: bool, left: Evaluator, right: Evaluator) -> Evaluator:
    """`&&` and `||`: as in CEL, an error on one side does not matter where the other side decides."""

    def evaluate(frame: Frame) -> bool:
        try:
            first = boolean(left(frame), operator)
        except ExpressionError as error:
            if _other_side(frame, right, operator, error) is decisive:
                return decisive
            raise
        return first if first is decisive else boolean(right(frame), operator)

    return evaluate


def _other_side(frame: Frame, right: Evaluator, operator: str, left_error: ExpressionError) -> bool:
    try:
        return boolean(right(frame), operator)
    except ExpressionError as error:
        if not_at_hand(error) and not not_at_hand(left_error):
            raise
        raise left_error from None


def negate(operand: Evaluator) -> Evaluator:
    """`-a`."""

    def evaluate(frame: Frame) -> Any:
        value = operand(frame)
        if not number(value):
            raise ExpressionError(f"- does not take {kind_of(value)}")
        return checked(-value)

    return evaluate


def comprehension(
    macro: str, over: Evaluator, variable: str, body: Evaluator, where: Evaluator | None, cost: int
) -> Evaluator:
    """`over.macro(variable, body)` on an array's items or an object's keys; each item costs `cost`."""

    def evaluate(frame: Frame) -> Any:
        values = over(frame)
        if isinstance(values, dict):
            values = list(values)
        if not isinstance(values, list):
            raise ExpressionError(f"{macro} takes an array or an object, not {kind_of(values)}")
        outer = frame.variables
        frame.variables = dict(outer)
        try:
            return _REDUCERS[macro](frame, values, variable, body, where, cost)
        finally:
            frame.variables = outer

    return evaluate


def _map(
    frame: Frame, values: list[Any], variable: str, body: Evaluator, where: Evaluator | None, cost: int
) -> list[Any]:
    result = []
    for value in values:
        frame.spend(cost)
        frame.variables[variable] = value
        if where is None or boolean(where(frame), "map"):
            result.append(body(frame))
    return result


def _filter(
    frame: Frame, values: list[Any], variable: str, body: Evaluator, where: Evaluator | None, cost: int
) -> list[Any]:
    result = []
    for value in values:
        frame.spend(cost)
        frame.variables[variable] = value
        if boolean(body(frame), "filter"):
            result.append(value)
    return result


def _quantifier(macro: str, decisive: bool) -> Callable[..., bool]:
    def reduce(
        frame: Frame, values: list[Any], variable: str, body: Evaluator, where: Evaluator | None, cost: int
    ) -> bool:
        failed: ExpressionError | None = None
        for value in values:
            frame.spend(cost)
            frame.variables[variable] = value
            try:
                if boolean(body(frame), macro) is decisive:
                    return decisive
            except ExpressionError as error:
                if failed is None or not_at_hand(error):
                    failed = error
        if failed is not None:
            raise failed
        return not decisive

    return reduce


def _exists_one(
    frame: Frame, values: list[Any], variable: str, body: Evaluator, where: Evaluator | None, cost: int
) -> bool:
    return len(_filter(frame, values, variable, body, where, cost)) == 1


_REDUCERS: dict[str, Callable[..., Any]] = {
    "map": _map,
    "filter": _filter,
    "all": _quantifier("all", False),
    "exists": _quantifier("exists", True),
    "exists_one": _exists_one,
}
