"""The functions that expressions may call, one table. Each counts what it makes; none reads a clock, a file or the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.evaluate import MAX_INT, MIN_INT, Frame, checked, compare, number
from tierflow_expressions.limits import MAX_RANGE, MAX_RESULT_DEPTH, MAX_RESULT_NODES
from tierflow_expressions.values import dumps, kind_of, loads


@dataclass(frozen=True, slots=True)
class Function:
    """A function: what it does and how many arguments it takes."""

    call: Callable[..., Any]
    least: int
    most: int


STATUS_FUNCTIONS = ("success", "failure", "always", "cancelled")
"""In `if` only."""


def _refuse(function: str, value: Any) -> ExpressionError:
    return ExpressionError(f"{function}() does not take {kind_of(value)}")


def _text(function: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _refuse(function, value)
    return value


def _size(frame: Frame, value: Any) -> int:
    if not isinstance(value, str | list | dict):
        raise _refuse("size", value)
    return len(value)


def _string(frame: Frame, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or number(value):
        return dumps(value)
    raise ExpressionError(f"string() does not take {kind_of(value)}; json() does")


def _int(frame: Frame, value: Any) -> int:
    try:
        result = (
            int(value)
            if isinstance(value, str) and len(value) <= 20 and not set(value) - set("+-0123456789")
            else value
        )
        if isinstance(result, float):
            result = int(result)
    except ValueError:
        result = value
    if isinstance(result, bool) or not isinstance(result, int):
        raise ExpressionError(f"int() cannot read {dumps(value)[:40]}")
    if not MIN_INT <= result <= MAX_INT:
        raise ExpressionError("int() is out of range")
    return result


def _double(frame: Frame, value: Any) -> float:
    if isinstance(value, str) and (len(value) > 64 or set(value) - set("+-.eE0123456789")):
        raise ExpressionError(f"double() cannot read {dumps(value)[:40]}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _refuse("double", value)
    try:
        return float(checked(float(value)))
    except (ValueError, OverflowError):
        raise ExpressionError(f"double() cannot read {dumps(value)[:40]}") from None


def measure(frame: Frame, value: Any) -> None:
    """Refuses what is too large or too deep to be written, without writing it. Raises `ExpressionError`."""
    if not isinstance(value, list | dict):
        return
    nodes, level, depth = 1, [value], 0
    while level:
        depth += 1
        if depth > MAX_RESULT_DEPTH:
            raise ExpressionError(f"the result is nested deeper than {MAX_RESULT_DEPTH} levels")
        below: list[Any] = []
        for container in level:
            nodes += len(container)
            if nodes > MAX_RESULT_NODES:
                raise ExpressionError(f"the result has more than {MAX_RESULT_NODES} values")
            below.extend(
                item
                for item in (container.values() if isinstance(container, dict) else container)
                if isinstance(item, list | dict)
            )
        level = below


def _json(frame: Frame, value: Any) -> str:
    measure(frame, value)
    text = dumps(value)
    frame.spend(len(text) // 8)
    return text


def _from_json(frame: Frame, value: Any) -> Any:
    text = _text("from_json", value)
    frame.spend(len(text) // 8)
    try:
        return loads(text)
    except ValueError as error:
        raise ExpressionError(f"from_json() cannot read it: {error}") from None


def _join(frame: Frame, values: Any, separator: Any = "") -> str:
    if not isinstance(values, list):
        raise _refuse("join", values)
    mark = _text("join", separator)
    frame.spend(len(values) + sum(len(_text("join", value)) + len(mark) for value in values) // 8)
    return mark.join(values)


def _split(frame: Frame, value: Any, separator: Any) -> list[str]:
    text, mark = _text("split", value), _text("split", separator)
    if not mark:
        raise ExpressionError("split() takes a separator that is not empty")
    frame.spend(len(text) // 8 + text.count(mark) + 1)
    return text.split(mark)


def _of_text(name: str, operate: Callable[[str], str]) -> Callable[[Frame, Any], str]:
    def call(frame: Frame, value: Any) -> str:
        frame.spend(len(_text(name, value)) // 8)
        return operate(value)

    return call


def _of_texts(name: str, operate: Callable[[str, str], Any]) -> Callable[[Frame, Any, Any], Any]:
    def call(frame: Frame, value: Any, other: Any) -> Any:
        frame.spend(len(_text(name, value)) // 8)
        return operate(value, _text(name, other))

    return call


def _replace(frame: Frame, value: Any, old: Any, new: Any) -> str:
    text, found, put = _text("replace", value), _text("replace", old), _text("replace", new)
    if not found:
        raise ExpressionError("replace() takes a text to look for that is not empty")
    frame.spend((len(text) + text.count(found) * len(put)) // 8)
    return text.replace(found, put)


def _extreme(name: str, operator: str) -> Callable[..., Any]:
    better = compare(operator)

    def call(frame: Frame, *values: Any) -> Any:
        listed = values[0] if len(values) == 1 and isinstance(values[0], list) else list(values)
        if not listed:
            raise ExpressionError(f"{name}() of nothing")
        frame.spend(len(listed))
        best = listed[0]
        if not isinstance(best, bool | int | float | str):
            raise _refuse(name, best)
        for value in listed[1:]:
            if better(frame, value, best):
                best = value
        return best

    return call


def _keys(frame: Frame, value: Any) -> list[str]:
    if not isinstance(value, dict):
        raise _refuse("keys", value)
    frame.spend(len(value))
    return list(value)


def _values(frame: Frame, value: Any) -> list[Any]:
    if not isinstance(value, dict):
        raise _refuse("values", value)
    frame.spend(len(value))
    return list(value.values())


def _range(frame: Frame, *bounds: Any) -> list[int]:
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, int):
            raise _refuse("range", bound)
    numbers = range(*bounds)
    if max(numbers.stop - numbers.start, 0) > MAX_RANGE:
        raise ExpressionError(f"range() of more than {MAX_RANGE} numbers")
    frame.spend(len(numbers))
    return list(numbers)


FUNCTIONS: dict[str, Function] = {
    "size": Function(_size, 1, 1),
    "string": Function(_string, 1, 1),
    "int": Function(_int, 1, 1),
    "double": Function(_double, 1, 1),
    "json": Function(_json, 1, 1),
    "from_json": Function(_from_json, 1, 1),
    "join": Function(_join, 1, 2),
    "split": Function(_split, 2, 2),
    "lower": Function(_of_text("lower", str.lower), 1, 1),
    "upper": Function(_of_text("upper", str.upper), 1, 1),
    "trim": Function(_of_text("trim", str.strip), 1, 1),
    "contains": Function(_of_texts("contains", lambda text, other: other in text), 2, 2),
    "startsWith": Function(_of_texts("startsWith", str.startswith), 2, 2),
    "endsWith": Function(_of_texts("endsWith", str.endswith), 2, 2),
    "replace": Function(_replace, 3, 3),
    "min": Function(_extreme("min", "<"), 1, 64),
    "max": Function(_extreme("max", ">"), 1, 64),
    "keys": Function(_keys, 1, 1),
    "values": Function(_values, 1, 1),
    "range": Function(_range, 1, 2),
}
"""Besides these: default(x, y) and has(x), which look at a reference before its value, and the status functions."""
