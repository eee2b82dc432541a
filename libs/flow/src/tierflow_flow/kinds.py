"""The kinds of steps. A kind is told by the key that only it has; a further kind is one more entry here and what the core does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tierflow_expressions.templates import ConditionTemplate, ItemsTemplate

from tierflow_flow.keys import (
    APPROVAL_KEYS,
    CALL_KEYS,
    EMIT_KEYS,
    FAIL_KEYS,
    FLOW_KEYS,
    GROUP_KEYS,
    GROWS,
    LOOP_KEYS,
    MAP_BLOCK_KEYS,
    MAP_KEYS,
    SET,
    SIGNAL_KEYS,
    STEP_KEYS,
    STEP_NAME,
    SWITCH_KEYS,
    WAIT_KEYS,
)
from tierflow_flow.problems import Place, Problems
from tierflow_flow.sections import Key, Section, section
from tierflow_flow.shapes import INVALID


class Source(NamedTuple):
    """A template in a step's normal form: by which name the compiled step has it, where it is below the step, and how it is compiled."""

    name: str
    path: Place
    value: Any
    options: Mapping[str, Any]
    """Arguments of `Checker.template`."""


@dataclass(frozen=True)
class Kind:
    """A kind of step: its name, the key that tells it, its keys, and the templates that it has besides `if` and `with`."""

    name: str
    mark: str
    section: Section
    own_keys: frozenset[str]
    sources: Callable[[Mapping[str, Any]], Iterable[Source]]


def _values(*names: str, **options: Any) -> Callable[[Mapping[str, Any]], Iterable[Source]]:
    """The values of these keys are templates."""
    return lambda keys: [Source(name, (name,), keys[name], options) for name in names if name in keys]


def _cases(keys: Mapping[str, Any]) -> Iterable[Source]:
    """The conditions of a switch."""
    options = {"as_": ConditionTemplate, "whole": True}
    return [
        Source(f"case{index}", ("switch", index, "if"), case["if"], options)
        for index, case in enumerate(keys.get("switch", ()))
    ]


def _loop(keys: Mapping[str, Any]) -> Iterable[Source]:
    """What decides about a further iteration from outside; `until` is looked at within."""
    loop = keys.get("loop", {})
    if "while" in loop:
        options = {"as_": ConditionTemplate, "whole": True, "names": ("loop", "index")}
        yield Source("while", ("loop", "while"), loop["while"], options)
    if "for" in loop:
        yield Source("for", ("loop", "for"), loop["for"], {"whole": True})


def _kind(
    name: str, keys: tuple[Key, ...], sources: Callable[[Mapping[str, Any]], Iterable[Source]], mark: str = ""
) -> Kind:
    return Kind(name, mark or name, section(*STEP_KEYS, *keys), frozenset(key.name for key in keys), sources)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("map", MAP_KEYS, _values("map", as_=ItemsTemplate, whole=True)),
        _kind("call", (*CALL_KEYS, SET, GROWS), _values()),
        _kind("approval", (*APPROVAL_KEYS, SET), _values("approval")),
        _kind("flow", FLOW_KEYS, _values()),
        _kind("emit", EMIT_KEYS, _values()),
        _kind("fail", FAIL_KEYS, _values("fail")),
        _kind("signal", (*SIGNAL_KEYS, SET), _values()),
        _kind("switch", (*SWITCH_KEYS, SET), _cases),
        _kind("wait", WAIT_KEYS, _values("wait")),
        _kind("loop", (*LOOP_KEYS, SET), _loop),
        _kind("group", (*GROUP_KEYS, SET), _values(), "steps"),
        _kind("map_block", (*MAP_BLOCK_KEYS, SET), _values("map", as_=ItemsTemplate, whole=True), "map"),
    )
}
"""In the order in which their marks are looked for."""

PLANNED = ("agent", "parallel")
"""Words that people will try; none of them is known yet."""


def kind_of_step(step: Mapping[str, Any], place: Place, problems: Problems) -> Kind | None:
    """The kind of a step; where there is none it is a problem."""
    for word in PLANNED:
        if word in step:
            problems.add(
                (*place, word),
                f"steps of kind {word} are not known; known kinds: {', '.join(sorted(KINDS.keys() - {'map_block'}))}",
            )
            return None
    if "map" in step and "steps" in step:
        return KINDS["map_block"]
    for kind in KINDS.values():
        if kind.mark in step:
            return kind
    return KINDS["call"]


def read_step(step: Any, place: Place, problems: Problems) -> tuple[Kind, dict[str, Any]] | None:
    """The kind and the normal form of a step (without its id), or None."""
    if not isinstance(step, dict):
        problems.add(place, "a step is a mapping, such as one with the key call")
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
    """The JSON Schema of a step: one for each kind; `listed` for steps in a list, which have an id."""
    return {"anyOf": [_kind_schema(kind, listed=listed) for kind in KINDS.values()]}


def _kind_schema(kind: Kind, *, listed: bool) -> dict[str, Any]:
    keys = dict(kind.section.keys)
    if listed:
        keys = {"id": Key("id", STEP_NAME, "The step's id.", required=True), **keys}
    return {"title": kind.name, **Section(keys).schema}
