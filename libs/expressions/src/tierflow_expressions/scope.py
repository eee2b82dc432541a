"""How expressions find values: what a scope is, the walk along a path, and a scope over plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.values import kind_of

Path = tuple[str | int, ...]

NAMES = ("input", "steps", "vars", "env", "run", "item", "index", "loop", "last_error", "output", "call", "secrets")
"""The names that expressions of flows may begin with; those after `run` only in the places that have them."""


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The words of a place that has expressions: those of a flow, or those of a swarm's plan."""

    names: tuple[str, ...]
    """What an expression may begin with."""
    things: str
    """Of these: the name whose members are ids, which may have hyphens."""
    hint: str
    """For who writes an unknown name."""


FLOW = Vocabulary(NAMES, "steps", "; a step is read as steps.id.output")
PLAN = Vocabulary(("input", "runs", "board", "swarm"), "runs", "; a run is read as runs.id.output")

STATUS = "status"
"""Not for users: the functions success(), failure() and cancelled() are look-ups of `status` with the function's name as path; a scope answers with a boolean."""

_SHOWN = 12


class Scope(Protocol):
    """What expressions can see. See `NAMES`."""

    def lookup(self, name: str, path: tuple[str | int, ...]) -> Any:
        """The plain JSON value at `path` below `name`. Raises `ExpressionError` where there is none; `walk` words it.

        An error of a subclass of a scope's own (a value is there, but not loaded) passes through every expression as it is: neither default() nor has()
        nor anything else concludes something from it that could be otherwise once the value is at hand.

        The functions success(), failure() and cancelled() are look-ups of the name `status`, with the function's name as path.
        """
        ...

    def raw(self, name: str, path: tuple[str | int, ...]) -> str | None:
        """The JSON text of that value if it is at hand, so that it need not be parsed; None otherwise. Used by `resolve_json` for whole references."""
        return None


def show_path(name: str, path: Iterable[str | int]) -> str:
    """A path as an expression would write it: `steps.walk.output.files[0]`."""
    shown = name
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif part.replace("-", "_").isidentifier():
            shown += f".{part}"
        else:
            shown += f'["{part}"]'
    return shown


def names_available(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = [str(name) for name in names]
    if not listed:
        return "nothing"
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def walk(value: Any, path: Path, name: str, start: int = 0) -> Any:
    """The value at `path[start:]` below `value`, which is at `path[:start]` below `name`. Raises `ExpressionError` that says what there is instead."""
    for position in range(start, len(path)):
        part = path[position]
        try:
            if isinstance(value, dict) and isinstance(part, str):
                value = value[part]
                continue
            if isinstance(value, list) and isinstance(part, int) and part >= 0:
                value = value[part]
                continue
        except (KeyError, IndexError):
            pass
        raise ExpressionError(_missing(value, path[: position + 1], name))
    return value


def _missing(value: Any, path: Path, name: str) -> str:
    wanted, holder = show_path(name, path), show_path(name, path[:-1])
    if isinstance(value, dict):
        return f"{wanted} is not there; {holder} has: {names_available(value)}"
    if isinstance(value, list) and isinstance(path[-1], int):
        return f"{wanted} is not there; {holder} has {len(value)} items"
    return f"{wanted} is not there; {holder} is {kind_of(value)}"


class PlainScope(Scope):
    """A scope over plain values: `PlainScope({"input": {...}, "steps": {"walk": {"output": ...}}})`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def lookup(self, name: str, path: Path) -> Any:
        """The value at `path` below `name`; raises `ExpressionError`."""
        if name not in self._values:
            raise ExpressionError(f"{name} is not there; there is: {names_available(self._values)}")
        return walk(self._values[name], path, name)
