"""Values as jq sees them: their order, their numbers, reading and changing them at a path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cmp_to_key
from itertools import islice
from typing import Any, Final, TypeAlias

from tierflow_expressions.values import dumps

from tierflow_flow.jq.budget import MAX_LEVELS, MAX_WRITTEN, Budget
from tierflow_flow.jq.errors import JqError, JqLimit

Path: TypeAlias = tuple[Any, ...]
_EXACT: Final = 1 << 53
_SHOWN: Final = 64
"""Parts and characters that are more than a message shows."""


def type_of(value: Any) -> str:
    """The name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return _TYPES[type(value)]


_TYPES: Final = {int: "number", float: "number", str: "string", list: "array", dict: "object"}
_RANKS: Final = {"null": 0, "boolean": 1, "number": 3, "string": 4, "array": 5, "object": 6}


def is_number(value: Any) -> bool:
    """Whether it is a number (a boolean is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def normal(value: float) -> Any:
    """A number as it is kept: whole numbers as integers, within what a double holds."""
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else normal(_as_double(value))
    if value == value and abs(value) <= 1e17 and value == math.floor(value):
        return int(value)
    return value


def _as_double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def writable(value: Any, levels: int = MAX_LEVELS) -> Any:
    """The value without what JSON does not have: NaN is null, infinities the largest number. Raises `JqLimit` where it nests too deeply."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return math.copysign(1.7976931348623157e308, value) if math.isinf(value) else value
    if levels == 0 and isinstance(value, list | dict):
        raise JqLimit(f"the value nests deeper than {MAX_LEVELS} levels")
    if isinstance(value, list):
        return [writable(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {key: writable(item, levels - 1) for key, item in value.items()}
    return value


def weight(value: Any, most: int = MAX_WRITTEN) -> int:
    """About what it costs to walk through a value: what is part of it at several places counts at each. Beyond `most` it is not looked at any further."""
    total = 0
    left = [value]
    while left and total <= most:
        item = left.pop()
        if isinstance(item, str):
            total += len(item) // 64
        elif isinstance(item, list | dict):
            total += 1 + len(item)
            left.extend(item.values() if isinstance(item, dict) else item)
    return total


def text_of(value: Any) -> str:
    """The JSON text of a value. Raises `JqLimit` where it would be too large."""
    if weight(value) > MAX_WRITTEN:
        raise JqLimit("the value is too large to be written")
    return dumps(writable(value))


def _beginning(value: Any, room: list[int]) -> Any:
    """So much of a value that its text begins alike."""
    room[0] -= 1
    if isinstance(value, str):
        return value[:_SHOWN]
    if isinstance(value, list):
        return [_beginning(item, room) for item in value[:_SHOWN] if room[0] > 0]
    if isinstance(value, dict):
        return {key: _beginning(value[key], room) for key in islice(value, _SHOWN) if room[0] > 0}
    return value


def shown(value: Any) -> str:
    """A value in a message: its type and its beginning."""
    text = text_of(_beginning(value, [_SHOWN]))
    return f"{type_of(value)} ({text if len(text) <= 40 else text[:37] + '...'})"


# Order.


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1: jq's order over all values."""
    kinds = type_of(left), type_of(right)
    ranks = _RANKS[kinds[0]], _RANKS[kinds[1]]
    if ranks[0] != ranks[1]:
        return -1 if ranks[0] < ranks[1] else 1
    return _COMPARE[kinds[0]](left, right)


def _plain(left: Any, right: Any) -> int:
    # NaN is below every number.
    return -1 if left != left or left < right else int(left > right)


def _texts(left: str, right: str) -> int:
    return (left > right) - (left < right)


def _arrays(left: list[Any], right: list[Any]) -> int:
    for one, other in zip(left, right, strict=False):
        if (found := compare(one, other)) != 0:
            return found
    return (len(left) > len(right)) - (len(left) < len(right))


def _objects(left: dict[str, Any], right: dict[str, Any]) -> int:
    names, others = sorted(left), sorted(right)
    if names != others:
        return _arrays(names, others)
    for name in names:
        if (found := compare(left[name], right[name])) != 0:
            return found
    return 0


_COMPARE: Final = {
    "null": lambda left, right: 0,
    "boolean": _plain,
    "number": _plain,
    "string": _texts,
    "array": _arrays,
    "object": _objects,
}
order_key = cmp_to_key(compare)


def truthy(value: Any) -> bool:
    """Everything but null and false."""
    return value is not None and value is not False


# Paths.

NOWHERE: Final[Path] = (object(),)
"""The path of what was made, where paths are wanted: nothing can be looked up from there."""


def below(path: Path | None, key: Any, value: Any) -> Path | None:
    """The path of a part. Raises `JqError` where the whole is nowhere."""
    if path is None:
        return None
    if path is NOWHERE:
        raise JqError(f"Invalid path expression with near attempt to access element {shown(key)} of {shown(value)}")
    return (*path, key)


_KEYS: Final = (str, dict, int, float, type(None))
"""What can be looked up in null."""


def get(value: Any, key: Any) -> Any:
    """`value[key]`. Raises `JqError`."""
    if isinstance(key, str) and isinstance(value, dict):
        return value.get(key)
    if is_number(key) and isinstance(value, list):
        return _item(value, key)
    if value is None and isinstance(key, _KEYS):
        return None
    return _part(value, key)


def _part(value: Any, key: Any) -> Any:
    if isinstance(key, dict) and isinstance(value, list | str):
        return cut(value, key.get("start"), key.get("end"))
    if isinstance(key, list) and isinstance(value, list):
        return places_of(value, key)
    raise JqError(_no_index(value, key))


def _item(value: list[Any], key: float) -> Any:
    if not math.isfinite(key):
        return None
    place = math.floor(key)
    place = place + len(value) if place < 0 else place
    return value[place] if 0 <= place < len(value) else None


def _no_index(value: Any, key: Any) -> str:
    if isinstance(key, str):
        return f"Cannot index {type_of(value)} with string ({text_of(key)})"
    return f"Cannot index {type_of(value)} with {type_of(key)}"


def places_of(value: list[Any], wanted: list[Any]) -> list[int] | None:
    """Where an array holds another one."""
    if not wanted:
        return None
    last = len(value) - len(wanted)
    return [i for i in range(last + 1) if all(compare(value[i + j], item) == 0 for j, item in enumerate(wanted))]


def bounds(length: int, start: Any, stop: Any) -> tuple[int, int]:
    """The bounds of a slice. Raises `JqError`."""
    if not all(edge is None or is_number(edge) for edge in (start, stop)):
        raise JqError("Start and end indices of an array slice must be numbers")
    first = 0 if start is None else math.floor(start)
    last = length if stop is None else math.ceil(stop)
    first = max(0, first + length) if first < 0 else min(first, length)
    last = max(0, last + length) if last < 0 else min(last, length)
    return first, max(first, last)


def cut(value: Any, start: Any, stop: Any) -> Any:
    """`value[start:stop]`. Raises `JqError`."""
    if value is None:
        return None
    if not isinstance(value, list | str):
        raise JqError(f"Cannot index {type_of(value)} with object")
    first, last = bounds(len(value), start, stop)
    return value[first:last]


def get_path(value: Any, path: Sequence[Any]) -> Any:
    """The value at a path; null below null. Raises `JqError`."""
    for key in path:
        if value is None:
            return None
        value = get(value, key)
    return value


def set_path(value: Any, path: Sequence[Any], new: Any, budget: Budget) -> Any:
    """A copy of the value with `new` at a path. Raises `JqError`."""
    if not path:
        return new
    if len(path) > MAX_LEVELS:
        raise JqLimit(f"a path has more than {MAX_LEVELS} parts")
    key = path[0]
    if isinstance(key, dict):
        return _set_slice(value, key, path, new, budget)
    inner = set_path(get(value, key), path[1:], new, budget)
    if isinstance(key, str):
        budget.make(1 + len(value or ()))
        return {**(value or {}), key: inner}
    return _set_item(value or [], key, inner, budget)


def _set_item(value: list[Any], key: Any, inner: Any, budget: Budget) -> list[Any]:
    place = math.floor(key)
    if place < 0:
        place += len(value)
        if place < 0:
            raise JqError("Out of bounds negative array index")
    budget.make(1 + max(len(value), place))
    result = [*value, *[None] * (place + 1 - len(value))]
    result[place] = inner
    return result


def _set_slice(value: Any, key: dict[str, Any], path: Sequence[Any], new: Any, budget: Budget) -> Any:
    if value is not None and not isinstance(value, list):
        raise JqError(f"Cannot update field at object index of {type_of(value)}")
    items = value or []
    first, last = bounds(len(items), key.get("start"), key.get("end"))
    inner = set_path(items[first:last], path[1:], new, budget)
    if not isinstance(inner, list):
        raise JqError("A slice of an array can only be assigned another array")
    budget.make(len(items) + len(inner))
    return [*items[:first], *inner, *items[last:]]


def delete_path(value: Any, path: Sequence[Any], budget: Budget) -> Any:
    """A copy of the value without what is at a path. Raises `JqError`."""
    if value is None or not path:
        return None
    key = path[0]
    if len(path) > 1:
        inner = get(value, key)
        return value if inner is None else set_path(value, (key,), delete_path(inner, path[1:], budget), budget)
    if isinstance(value, list | dict):
        budget.make(len(value))
        return _without(value, key)
    raise _not_deleted(value, key)


def _without(value: Any, key: Any) -> Any:
    if isinstance(value, dict) and isinstance(key, str):
        return {name: item for name, item in value.items() if name != key}
    if isinstance(value, list) and (isinstance(key, dict) or is_number(key)):
        first, last = _places(value, key)
        return [*value[:first], *value[last:]]
    raise _not_deleted(value, key)


def _not_deleted(value: Any, key: Any) -> JqError:
    return JqError(f"Cannot delete field at {'object' if isinstance(key, str) else 'array'} index of {type_of(value)}")


def _places(value: list[Any], key: Any) -> tuple[int, int]:
    """The part of an array that a key names."""
    if isinstance(key, dict):
        return bounds(len(value), key.get("start"), key.get("end"))
    place = math.floor(key) + (len(value) if key < 0 else 0)
    return (place, place + 1) if 0 <= place < len(value) else (0, 0)
