"""From a document to the normal form of a flow: defaults filled in, durations in microseconds, steps as a list, keys sorted; and from that to canonical text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tierflow_expressions.values import kind_of

from tierflow_flow.durations import canonical_duration
from tierflow_flow.keys import DEFAULT_RETRY, FLOW, STEP_NAME
from tierflow_flow.kind_shapes import counted_join
from tierflow_flow.kinds import Kind, read_step
from tierflow_flow.limits import MAX_BLOCKS, MAX_PATH, MAX_STEPS
from tierflow_flow.problems import Place, Problems
from tierflow_flow.shapes import INVALID

_STEP_DEFAULTS: Mapping[str, Any] = {
    "join": "all",
    "on_error": "stop",
    "tolerate": 0,
    "side_effecting": False,
    "grows": False,
    "labels": {},
    "priority": 0,
    "with": {},
}
"""Left out of the normal form: absent means these for ever."""
DEFAULT_TTL = 24 * 3_600 * 1_000_000
"""Microseconds for which a stored result may be used where a step does not say."""
_DURATIONS = (
    "initial_delay",
    "max_delay",
    "timeout",
    "heartbeat_timeout",
    "start_timeout",
    "total_timeout",
    "delay",
    "ttl",
)
_WITHIN = ("retry", "loop", "compensate", "cache")
"""Keys of steps with durations in them."""


@dataclass(frozen=True, slots=True)
class StepParts:
    """A step in its normal form, with its place in the text."""

    id: str
    kind: Kind
    place: Place
    keys: Mapping[str, Any]
    """Without the steps within it."""
    block: BlockParts | None = None


@dataclass(frozen=True, slots=True)
class BlockParts:
    """Steps that stand beside each other, in their normal form."""

    steps: tuple[StepParts, ...]
    ids: frozenset[str]
    """Of all steps, those that could not be read included."""


@dataclass(frozen=True, slots=True)
class FlowParts:
    """A flow in its normal form; `keys` without the steps."""

    keys: Mapping[str, Any]
    block: BlockParts


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
    reader = _Steps(keys, problems)
    block = reader.read(source, (), ()) if "steps" in value else BlockParts((), frozenset())
    return FlowParts(keys, block)


class _Steps:
    """Reads the steps of a flow and of the blocks in it."""

    def __init__(self, keys: Mapping[str, Any], problems: Problems) -> None:
        self.keys = keys
        self.problems = problems
        self.count = 0

    def read(self, source: Any, around: Place, path: tuple[str, ...]) -> BlockParts:
        """The steps of the flow, or of the block at `around`; `path` has the ids of the steps around them."""
        seen: dict[str, Place] = {}
        steps = tuple(self._steps(source, (*around, "steps"), seen, path))
        return BlockParts(steps, frozenset(seen))

    def _steps(self, source: Any, place: Place, seen: dict[str, Place], path: tuple[str, ...]) -> Iterator[StepParts]:
        if not self._countable(source, place, path):
            return
        for id_, at, step in _with_ids(source, place, self.problems):
            if not self._named(id_, at, seen, path):
                continue
            read = read_step(step, at, self.problems)
            if read is None:
                continue
            kind, keys = read
            within = "steps" in keys
            block = self.read(keys.pop("steps"), at, (*path, id_)) if within else None
            yield StepParts(id_, kind, at, _normal(keys, self.keys), block)

    def _countable(self, source: Any, place: Place, path: tuple[str, ...]) -> bool:
        problems = self.problems
        if not isinstance(source, dict | list):
            problems.add(place, f"expected a mapping or a list of steps, found {kind_of(source)}")
            return False
        if len(path) > MAX_BLOCKS:
            problems.add(place, f"steps within steps, {len(path)} deep; at most {MAX_BLOCKS} are allowed")
            return False
        if not source:
            problems.add(place, f"a {'block' if path else 'flow'} has at least one step")
        self.count += len(source)
        if self.count > MAX_STEPS:
            problems.add(place, f"{self.count} steps; at most {MAX_STEPS} are allowed")
        return self.count <= MAX_STEPS

    def _named(self, id_: Any, place: Place, seen: dict[str, Place], path: tuple[str, ...]) -> bool:
        """Whether the step has an id, and one of its own."""
        problems = self.problems
        if STEP_NAME.read(id_, place, problems) is INVALID:
            return False
        if id_ in seen:
            problems.add(place, f"step id {id_!r} twice; the first is in line {problems.line(seen[id_])}")
            return False
        seen[id_] = place
        if path and len("/".join((*path, id_))) > MAX_PATH:
            problems.add(place, f"longer than {MAX_PATH} characters with the ids of the steps around it")
            return False
        return True


def _with_ids(
    source: dict[str, Any] | list[Any], around: Place, problems: Problems
) -> Iterator[tuple[Any, Place, Any]]:
    if isinstance(source, dict):
        for id_, step in source.items():
            yield id_, (*around, id_), step
        return
    for index, step in enumerate(source):
        place: Place = (*around, index)
        if not isinstance(step, dict) or "id" not in step:
            problems.add(place, "a step in a list is a mapping with the key id")
            continue
        yield step["id"], place, {key: value for key, value in step.items() if key != "id"}


def _normal(step: dict[str, Any], flow: Mapping[str, Any]) -> dict[str, Any]:
    """What does not depend on other steps, filled in or left out."""
    if step.get("join", "all") != "all":
        step["join"] = counted_join(step["join"], step.get("needs", []))
    if "cache" in step:
        step["cache"] = {"ttl": DEFAULT_TTL, "scope": "flow", "version": "1", **step["cache"]}
    for keys in (step, step.get("compensate", {})):
        if "retry" in keys:
            keys["retry"] = {**flow["defaults"]["retry"], **keys["retry"]}
    return {key: value for key, value in step.items() if key not in _STEP_DEFAULTS or value != _STEP_DEFAULTS[key]}


Needed: TypeAlias = Mapping[str, tuple[str, ...]]
"""By the path of a step: the ids of those beside it that it waits for."""


def canonical_text(parts: FlowParts, needs: Needed) -> str:
    """The canonical definition: JSON with sorted keys, every need written out. It is itself a flow that `parse` reads."""
    steps = _written(parts.block, "", needs)
    flow = {**_with_durations(parts.keys), "defaults": _with_durations(parts.keys["defaults"]), "steps": steps}
    return json.dumps(flow, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _written(block: BlockParts, prefix: str, needs: Needed) -> list[dict[str, Any]]:
    """The steps of a block, `prefix` before their ids."""
    steps = []
    for step in block.steps:
        keys = {"id": step.id, **step.keys}
        keys.pop("needs", None)
        if needs[prefix + step.id]:
            keys["needs"] = list(needs[prefix + step.id])
        written = _with_durations(keys)
        if step.block is not None:
            written["steps"] = _written(step.block, f"{prefix}{step.id}/", needs)
        steps.append(written)
    return steps


def _with_durations(keys: Mapping[str, Any]) -> dict[str, Any]:
    written: dict[str, Any] = {
        key: canonical_duration(value) if key in _DURATIONS else value for key, value in keys.items()
    }
    for name in _WITHIN:
        if name in written:
            written[name] = _with_durations(written[name])
    return written


def content_hash(canonical: str) -> str:
    """SHA-256 of a canonical definition, 64 hex digits."""
    return hashlib.sha256(canonical.encode()).hexdigest()
