"""jq's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from tierflow_flow.jq.budget import MAX_LEVELS, MAX_STEPS, Budget
from tierflow_flow.jq.errors import JqError, JqLimit
from tierflow_flow.jq.values import compare, is_number, normal, shown, weight


def add(left: Any, right: Any, budget: Budget) -> Any:
    """`left + right`. Raises `JqError`."""
    if left is None or right is None:
        return right if left is None else left
    if is_number(left) and is_number(right):
        return normal(left + right)
    if type(left) is type(right) and isinstance(left, str | list | dict):
        budget.make(len(left) + len(right))
        return _JOINED[type(left)](left, right)
    raise JqError(f"{shown(left)} and {shown(right)} cannot be added")


_JOINED: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    str: lambda left, right: left + right,
    list: lambda left, right: [*left, *right],
    dict: lambda left, right: {**left, **right},
}


def subtract(left: Any, right: Any, budget: Budget) -> Any:
    """`left - right`. Raises `JqError`."""
    if is_number(left) and is_number(right):
        return normal(left - right)
    if isinstance(left, list) and isinstance(right, list):
        budget.step(len(left) * len(right))
        return [item for item in left if all(compare(item, other) != 0 for other in right)]
    raise JqError(f"{shown(left)} and {shown(right)} cannot be subtracted")


def multiply(left: Any, right: Any, budget: Budget) -> Any:
    """`left * right`. Raises `JqError`."""
    if is_number(left) and is_number(right):
        return normal(left * right)
    if isinstance(left, str) and is_number(right):
        return _repeat(left, right, budget)
    if isinstance(right, str) and is_number(left):
        return _repeat(right, left, budget)
    if isinstance(left, dict) and isinstance(right, dict):
        return _merge(left, right, budget, MAX_LEVELS)
    raise JqError(f"{shown(left)} and {shown(right)} cannot be multiplied")


def _repeat(text: str, times: float, budget: Budget) -> str | None:
    if times != times or times < 0:
        return None
    count = int(min(times, 1e9))
    budget.make(count * len(text))
    return text * count


def _merge(left: dict[str, Any], right: dict[str, Any], budget: Budget, levels: int) -> dict[str, Any]:
    if levels == 0:
        raise JqLimit(f"a value nests deeper than {MAX_LEVELS} levels")
    budget.make(len(left) + len(right))
    merged = dict(left)
    for name, item in right.items():
        inner = merged.get(name)
        both = isinstance(inner, dict) and isinstance(item, dict)
        merged[name] = _merge(inner, item, budget, levels - 1) if both and inner is not None else item
    return merged


def divide(left: Any, right: Any, budget: Budget) -> Any:
    """`left / right`. Raises `JqError`."""
    if is_number(left) and is_number(right):
        if right == 0:
            raise JqError(f"{shown(left)} and {shown(right)} cannot be divided because the divisor is zero")
        return normal(left / right)
    if isinstance(left, str) and isinstance(right, str):
        budget.make(len(left) + 1)
        return split(left, right)
    raise JqError(f"{shown(left)} and {shown(right)} cannot be divided")


def split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators."""
    if not text:
        return []
    return text.split(separator) if separator else list(text)


def modulo(left: Any, right: Any, budget: Budget) -> Any:
    """`left % right`: of whole numbers, with the sign of the left one. Raises `JqError`."""
    if not (is_number(left) and is_number(right)):
        raise JqError(f"{shown(left)} and {shown(right)} cannot be divided")
    if left != left or right != right:
        return math.nan
    one, other = _whole(left), _whole(right)
    if other == 0:
        raise JqError(f"{shown(left)} and {shown(right)} cannot be divided because the divisor is zero")
    return normal(int(math.copysign(abs(one) % abs(other), one)))


def _whole(value: float) -> int:
    return int(max(-9.2e18, min(9.2e18, value)))


def _compared(left: Any, right: Any, budget: Budget) -> int:
    budget.step(_common(left, right))
    return compare(left, right)


def _common(left: Any, right: Any) -> int:
    """About what it costs to walk through two values side by side: as much as through the smaller one, which is found without walking through the larger."""
    if type(left) is not type(right):
        return 0
    most = 64
    while True:
        smaller = min(weight(left, most), weight(right, most))
        if smaller <= most or most > MAX_STEPS:
            return smaller
        most *= 8


BINARY: Final[Mapping[str, Callable[[Any, Any, Budget], Any]]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": modulo,
    "==": lambda left, right, budget: _compared(left, right, budget) == 0,
    "!=": lambda left, right, budget: _compared(left, right, budget) != 0,
    "<": lambda left, right, budget: _compared(left, right, budget) < 0,
    "<=": lambda left, right, budget: _compared(left, right, budget) <= 0,
    ">": lambda left, right, budget: _compared(left, right, budget) > 0,
    ">=": lambda left, right, budget: _compared(left, right, budget) >= 0,
}
