"""The kinds of steps. A kind is told by the key that only it has; a further kind is one more entry here and what the core does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierflow_flow.keys import CALL_KEYS, MAP_KEYS, STEP_KEYS, STEP_NAME
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, Section, section
from tierflow_flow.shapes import INVALID


@dataclass(frozen=True)
class Kind:
    """A kind of step: its name, the key that tells it, its keys."""

    name: str
    mark: str
    section: Section
    own_keys: frozenset[str]


def _kind(name: str, mark: str, keys: tuple[Key, ...]) -> Kind:
    return Kind(name, mark, section(*STEP_KEYS, *keys), frozenset(key.name for key in keys))


KINDS: Mapping[str, Kind] = {
    kind.name: kind for kind in (_kind("map", "map", MAP_KEYS), _kind("call", "call", CALL_KEYS))
}
"""In the order in which their marks are looked for."""

PLANNED = ("switch", "loop", "flow", "wait", "signal", "approval", "emit", "fail", "group", "agent", "join", "parallel")
"""Words that people will try; none of them is known yet."""


def kind_of_step(step: Mapping[str, Any], place: Place, problems: Problems) -> Kind | None:
    """The kind of a step; where there is none it is a problem."""
    for word in PLANNED:
        if word in step:
            problems.add((*place, word), f"steps of kind {word} are not known; known kinds: {', '.join(sorted(KINDS))}")
            return None
    for kind in KINDS.values():
        if kind.mark in step:
            return kind
    return KINDS["call"]


def read_step(step: Any, place: Place, problems: Problems) -> tuple[Kind, dict[str, Any]] | None:
    """The kind and the normal form of a step (without its id), or None."""
    if not isinstance(step, dict):
        problems.add(place, "a step is a mapping with the key call")
        return None
    kind = kind_of_step(step, place, problems)
    if kind is None:
        return None
    foreign = _foreign(step, kind)
    for name, other in foreign.items():
        problems.add((*place, name), f"belongs to steps of kind {other.name}")
    read = kind.section.read({name: value for name, value in step.items() if name not in foreign}, place, problems)
    return None if read is INVALID else (kind, read)


def _foreign(step: Mapping[str, Any], kind: Kind) -> dict[str, Kind]:
    """Keys that only steps of other kinds have, each with that kind."""
    own = kind.section.keys
    return {name: other for other in KINDS.values() for name in other.own_keys if name in step and name not in own}


def step_schema(*, listed: bool) -> dict[str, Any]:
    """The JSON Schema of a step; `listed` for steps in a list, which have an id."""
    keys = {key.name: key for key in (*STEP_KEYS, *MAP_KEYS, *CALL_KEYS)}
    if listed:
        keys = {"id": Key("id", STEP_NAME, "The step's id.", required=True), **keys}
    schema = Section(
        {
            name: Key(key.name, key.shape, key.about, key.name in ("id", "call"), key.default)
            for name, key in keys.items()
        }
    ).schema
    only_map = sorted(KINDS["map"].own_keys - KINDS["call"].own_keys - {"map"})
    return {**schema, "dependentRequired": {name: ["map"] for name in only_map}}
