"""Functions of jq on arrays, objects and values in general."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from tierflow_flow.jq.budget import MAX_LEVELS
from tierflow_flow.jq.errors import JqError, JqLimit
from tierflow_flow.jq.formats import to_text
from tierflow_flow.jq.values import (
    compare,
    get,
    is_number,
    places_of,
    set_path,
    shown,
    text_of,
    truthy,
    type_of,
    weight,
)

if TYPE_CHECKING:
    from tierflow_flow.jq.evaluate import Evaluation


def length(ev: Evaluation, value: Any) -> Any:
    """`length`."""
    if value is None:
        return 0
    if isinstance(value, str | list | dict):
        return len(value)
    if is_number(value):
        return abs(value)
    raise JqError(f"{shown(value)} has no length")


def keys(ev: Evaluation, value: Any) -> Any:
    """`keys`."""
    if isinstance(value, dict):
        ev.budget.make(len(value))
        return sorted(value)
    return keys_unsorted(ev, value)


def keys_unsorted(ev: Evaluation, value: Any) -> Any:
    """`keys_unsorted`."""
    if not isinstance(value, list | dict):
        raise JqError(f"{shown(value)} has no keys")
    ev.budget.make(len(value))
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def has(ev: Evaluation, value: Any, key: Any) -> bool:
    """`has(key)`."""
    if isinstance(value, dict) and isinstance(key, str):
        return key in value
    if value is None:
        return False
    if isinstance(value, list) and is_number(key):
        return bool(0 <= key < len(value))
    raise JqError(
        f"Cannot check whether {type_of(value)} has a {'string' if isinstance(key, str) else type_of(key)} key"
    )


def contains(ev: Evaluation, value: Any, other: Any) -> bool:
    """`contains(other)`."""
    ev.budget.step(weight(value, ev.budget.steps) + weight(other, ev.budget.steps))
    if type_of(value) != type_of(other):
        raise JqError(f"{shown(value)} and {shown(other)} cannot have their containment checked")
    return _contains(ev, value, other)


def _contains(ev: Evaluation, value: Any, other: Any) -> bool:
    if isinstance(value, dict) and isinstance(other, dict):
        return _has_all(ev, value, other)
    if isinstance(value, list) and isinstance(other, list):
        ev.budget.step(len(value) * len(other))
        return all(_has_one(ev, value, wanted) for wanted in other)
    if isinstance(value, str):
        return str(other) in value if isinstance(other, str) else False
    return type_of(value) == type_of(other) and compare(value, other) == 0


def _has_all(ev: Evaluation, value: dict[str, Any], other: dict[str, Any]) -> bool:
    return other.keys() <= value.keys() and all(_contains(ev, value[name], item) for name, item in other.items())


def _has_one(ev: Evaluation, items: list[Any], wanted: Any) -> bool:
    return any(_contains(ev, item, wanted) for item in items)


def add(ev: Evaluation, value: Any) -> Any:
    """`add`."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        ev.budget.make(sum(map(len, value)))
        return "".join(value)
    return ev.total(item for _, item in ev.items(None, value))


def flatten(ev: Evaluation, value: Any, depth: Any = 1_000) -> Any:
    """`flatten`, `flatten(depth)`."""
    if not is_number(depth) or depth < 0:
        raise JqError("flatten depth must not be negative")
    if not isinstance(value, list | dict):
        raise JqError(f"Cannot iterate over {shown(value)}")
    found: list[Any] = []
    _flatten(ev, list(value.values()) if isinstance(value, dict) else value, depth, found, MAX_LEVELS)
    return found


def _flatten(ev: Evaluation, items: list[Any], depth: float, found: list[Any], levels: int) -> None:
    if levels == 0:
        raise JqLimit(f"a value nests deeper than {MAX_LEVELS} levels")
    for item in items:
        ev.budget.make(1)
        if isinstance(item, list) and depth > 0:
            _flatten(ev, item, depth - 1, found, levels - 1)
        else:
            found.append(item)


def reverse(ev: Evaluation, value: Any) -> Any:
    """`reverse`."""
    if value is None or value == {}:
        return []
    if not isinstance(value, list | str):
        raise JqError(f"Cannot reverse {shown(value)}")
    ev.budget.make(len(value))
    return value[::-1]


def transpose(ev: Evaluation, value: Any) -> Any:
    """`transpose`."""
    rows = [row for _, row in ev.items(None, value)]
    width = math.ceil(max((length(ev, row) for row in rows), default=0))
    ev.budget.make(width * len(rows))
    return [[get(row, column) for row in rows] for column in range(width)]


def setpath(ev: Evaluation, value: Any, path: Any, new: Any) -> Any:
    """`setpath(path; value)`."""
    if not isinstance(path, list):
        raise JqError("Path must be specified as an array")
    return set_path(value, path, new, ev.budget)


def join(ev: Evaluation, value: Any, separator: Any) -> Any:
    """`join(separator)`."""
    items = [item for _, item in ev.items(None, value)]
    if not isinstance(separator, str) and len(items) > 1:
        raise JqError(f"{shown(separator)} cannot join strings")
    text = str(separator).join(map(_joinable, items))
    ev.budget.make(len(text) + len(items))
    return text


def _joinable(item: Any) -> str:
    if isinstance(item, list | dict):
        raise JqError(f"{shown('')} and {shown(item)} cannot be added")
    return "" if item is None else to_text(item)


def indices(ev: Evaluation, value: Any, wanted: Any) -> Any:
    """`indices(wanted)`."""
    if value is None:
        return None
    if isinstance(value, str) and isinstance(wanted, str):
        ev.budget.step(len(value))
        return _found(value, wanted) if wanted else None
    if isinstance(value, list):
        listed = wanted if isinstance(wanted, list) else [wanted]
        ev.budget.step(len(value) * max(1, len(listed)))
        return places_of(value, listed)
    raise JqError(f"Cannot determine indices of {shown(wanted)} in {type_of(value)}")


def _found(text: str, wanted: str) -> list[int]:
    places: list[int] = []
    place = text.find(wanted)
    while place >= 0:
        places.append(place)
        place = text.find(wanted, place + 1)
    return places


def index(ev: Evaluation, value: Any, wanted: Any) -> Any:
    """`index(wanted)`."""
    places = indices(ev, value, wanted)
    return places[0] if places else None


def rindex(ev: Evaluation, value: Any, wanted: Any) -> Any:
    """`rindex(wanted)`."""
    places = indices(ev, value, wanted)
    return places[-1] if places else None


def bsearch(ev: Evaluation, value: Any, wanted: Any) -> Any:
    """`bsearch(wanted)`."""
    if not isinstance(value, list):
        raise JqError(f"{shown(value)} cannot be searched from")
    low, high = 0, len(value)
    while low < high:
        ev.budget.step()
        middle = (low + high) // 2
        if compare(value[middle], wanted) < 0:
            low = middle + 1
        else:
            high = middle
    return low if low < len(value) and compare(value[low], wanted) == 0 else -1 - low


def tojson(ev: Evaluation, value: Any) -> str:
    """`tojson`."""
    text = text_of(value)
    ev.budget.make(len(text))
    return text


def tostring(ev: Evaluation, value: Any) -> str:
    """`tostring`."""
    return value if isinstance(value, str) else tojson(ev, value)


ARRAYS: Final[Mapping[tuple[str, int], Callable[..., Any]]] = {
    ("length", 0): length,
    ("keys", 0): keys,
    ("keys_unsorted", 0): keys_unsorted,
    ("has", 1): has,
    ("contains", 1): contains,
    ("add", 0): add,
    ("flatten", 0): flatten,
    ("flatten", 1): flatten,
    ("reverse", 0): reverse,
    ("transpose", 0): transpose,
    ("setpath", 2): setpath,
    ("join", 1): join,
    ("indices", 1): indices,
    ("_indices", 1): indices,
    ("index", 1): index,
    ("rindex", 1): rindex,
    ("bsearch", 1): bsearch,
    ("tojson", 0): tojson,
    ("tostring", 0): tostring,
    ("type", 0): lambda ev, value: type_of(value),
    ("not", 0): lambda ev, value: not truthy(value),
}
