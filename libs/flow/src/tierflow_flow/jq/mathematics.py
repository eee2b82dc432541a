"""Functions of jq on numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from tierflow_flow.jq.errors import JqError
from tierflow_flow.jq.values import is_number, normal, shown

if TYPE_CHECKING:
    from tierflow_flow.jq.evaluate import Evaluation


def _of_numbers(function: Callable[..., float]) -> Callable[..., Any]:
    """A function of numbers; what it does not have a value for is NaN, what is too large is infinite."""

    def call(ev: Evaluation, value: Any, *given: Any) -> Any:
        numbers = given or (value,)
        for number in numbers:
            if not is_number(number):
                raise JqError(f"{shown(number)} number required")
        try:
            return normal(function(*map(float, numbers)))
        except ValueError:
            return math.nan
        except OverflowError:
            return math.inf

    return call


def _log(value: float, log: Callable[[float], float]) -> float:
    return -math.inf if value == 0 else log(value)


def _rounded(value: float) -> float:
    return value if not math.isfinite(value) else math.copysign(math.floor(abs(value) + 0.5), value)


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: value if not math.isfinite(value) else float(function(value))


def _tested(test: Callable[[float], bool]) -> Callable[..., Any]:
    def call(ev: Evaluation, value: Any) -> bool:
        if not is_number(value):
            raise JqError(f"{shown(value)} number required")
        return test(float(value))

    return call


_ONE: Final[Mapping[str, Callable[[float], float]]] = {
    "floor": _whole(math.floor),
    "ceil": _whole(math.ceil),
    "trunc": _whole(math.trunc),
    "round": _rounded,
    "sqrt": math.sqrt,
    "fabs": math.fabs,
    "exp": math.exp,
    "exp2": lambda value: 2.0**value,
    "exp10": lambda value: 10.0**value,
    "log": lambda value: _log(value, math.log),
    "log2": lambda value: _log(value, math.log2),
    "log10": lambda value: _log(value, math.log10),
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "cbrt": lambda value: math.copysign(abs(value) ** (1 / 3), value),
}
MATHEMATICS: Final[Mapping[tuple[str, int], Callable[..., Any]]] = {
    **{(name, 0): _of_numbers(function) for name, function in _ONE.items()},
    ("pow", 2): _of_numbers(math.pow),
    ("atan2", 2): _of_numbers(math.atan2),
    ("fmin", 2): _of_numbers(min),
    ("fmax", 2): _of_numbers(max),
    ("fmod", 2): _of_numbers(math.fmod),
    ("infinite", 0): lambda ev, value: math.inf,
    ("nan", 0): lambda ev, value: math.nan,
    ("isinfinite", 0): _tested(math.isinf),
    ("isnan", 0): _tested(math.isnan),
    ("isnormal", 0): _tested(lambda value: math.isfinite(value) and abs(value) >= 2.2250738585072014e-308),
}
