"""From a document to the normal form of a flow: defaults filled in, durations in microseconds, steps as a list, keys sorted; and from that to canonical text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tierflow_flow.durations import canonical_duration
from tierflow_flow.keys import DEFAULT_RETRY, FLOW, STEP_NAME
from tierflow_flow.kind_shapes import counted_join
from tierflow_flow.kinds import Kind, read_step
from tierflow_flow.limits import MAX_STEPS
from tierflow_flow.problems import Place, Problems
from tierflow_flow.shapes import INVALID
from tierflow_flow.values import kind_of

_STEP_DEFAULTS: Mapping[str, Any] = {
    "join": "all",
    "on_error": "stop",
    "tolerate": 0,
    "side_effecting": False,
    "labels": {},
    "with": {},
}
"""Left out of the normal form: absent means these for ever."""
_DURATIONS = ("initial_delay", "max_delay", "timeout", "heartbeat_timeout", "start_timeout", "total_timeout")


@dataclass(frozen=True, slots=True)
class StepParts:
    """A step in its normal form, with its place in the text."""

    id: str
    kind: Kind
    place: Place
    keys: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FlowParts:
    """A flow in its normal form; `keys` without the steps."""

    keys: Mapping[str, Any]
    steps: tuple[StepParts, ...]
    ids: frozenset[str]
    """Of all steps, those that could not be read included."""


def read_flow(value: Any, problems: Problems) -> FlowParts | None:
    """The normal form of a flow, as far as it can be read; what is wrong goes to `problems`."""
    if not isinstance(value, dict):
        problems.add((), f"a flow is a mapping, not {kind_of(value)}")
        return None
    keys = FLOW.read(value, (), problems)
    source = keys.pop("steps", None)
    defaults = keys.get("defaults", {})
    retry = {**DEFAULT_RETRY, **defaults.get("retry", {})}
    keys["defaults"] = {**defaults, "retry": retry}
    keys = {"version": "1", "on_failure": "fail_fast", "navigator": "graph", **keys}
    seen: dict[str, Place] = {}
    steps = tuple(_steps(source, keys, seen, problems)) if "steps" in value else ()
    return FlowParts(keys, steps, frozenset(seen))


def _steps(source: Any, keys: Mapping[str, Any], seen: dict[str, Place], problems: Problems) -> Iterator[StepParts]:
    if not isinstance(source, dict | list):
        problems.add(("steps",), f"expected a mapping or a list of steps, found {kind_of(source)}")
        return
    if not source:
        problems.add(("steps",), "a flow has at least one step")
    if len(source) > MAX_STEPS:
        problems.add(("steps",), f"{len(source)} steps; at most {MAX_STEPS} are allowed")
        return
    for id_, place, step in _with_ids(source, problems):
        if STEP_NAME.read(id_, place, problems) is INVALID:
            continue
        if id_ in seen:
            problems.add(place, f"step id {id_!r} twice; the first is in line {problems.line(seen[id_])}")
            continue
        seen[id_] = place
        read = read_step(step, place, problems)
        if read is not None:
            yield StepParts(id_, read[0], place, _normal(read[1], keys))


def _with_ids(source: dict[str, Any] | list[Any], problems: Problems) -> Iterator[tuple[Any, Place, Any]]:
    if isinstance(source, dict):
        for id_, step in source.items():
            yield id_, ("steps", id_), step
        return
    for index, step in enumerate(source):
        place: Place = ("steps", index)
        if not isinstance(step, dict) or "id" not in step:
            problems.add(place, "a step in a list is a mapping with the key id")
            continue
        yield step["id"], place, {key: value for key, value in step.items() if key != "id"}


def _normal(step: dict[str, Any], flow: Mapping[str, Any]) -> dict[str, Any]:
    """What does not depend on other steps, filled in or left out."""
    if step.get("join", "all") != "all":
        step["join"] = counted_join(step["join"], step.get("needs", []))
    if "retry" in step:
        step["retry"] = {**flow["defaults"]["retry"], **step["retry"]}
    return {key: value for key, value in step.items() if key not in _STEP_DEFAULTS or value != _STEP_DEFAULTS[key]}


def canonical_text(parts: FlowParts, needs: Mapping[str, tuple[str, ...]]) -> str:
    """The canonical definition: JSON with sorted keys, every need written out. It is itself a flow that `parse` reads."""
    steps = []
    for step in parts.steps:
        keys = {"id": step.id, **step.keys}
        keys.pop("needs", None)
        if needs[step.id]:
            keys["needs"] = list(needs[step.id])
        steps.append(_with_durations(keys))
    flow = {**_with_durations(parts.keys), "defaults": _with_durations(parts.keys["defaults"]), "steps": steps}
    return json.dumps(flow, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _with_durations(keys: Mapping[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {
        key: canonical_duration(value) if key in _DURATIONS else value for key, value in keys.items()
    }
    if "retry" in written:
        written["retry"] = _with_durations(written["retry"])
    return written


def content_hash(canonical: str) -> str:
    """SHA-256 of a canonical definition, 64 hex digits."""
    return hashlib.sha256(canonical.encode()).hexdigest()
