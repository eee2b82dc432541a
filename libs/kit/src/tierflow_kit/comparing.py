"""Two versions of a flow: what changed, and whom it breaks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tierflow_flow import Flow
from tierflow_flow.durations import parse_duration

from tierflow_kit import spoken
from tierflow_kit.blocks import canonical_steps
from tierflow_kit.comparing_schemas import input_changes, kind_of_change, output_changes

_CANONICAL_SPAN = re.compile(r"[0-9]+us")
CALLERS, READERS, RUNNING = "callers", "readers", "running"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `kind` is added, removed, renamed or changed; `breaks` names whom: callers, readers of the output, or runs that would be moved to it."""

    path: str
    kind: str
    before: Any = None
    after: Any = None
    breaks: str = ""
    why: str = ""

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs."""

    before: Flow
    after: Flow
    changes: tuple[Change, ...]

    def breaking(self, whom: str) -> tuple[Change, ...]:
        """The changes that break callers, readers or running."""
        return tuple(change for change in self.changes if change.breaks == whom)


def compare(before: Flow, after: Flow) -> Comparison:
    """What differs between two flows. Names and versions do not count."""
    one, other = json.loads(before.canonical), json.loads(after.canonical)
    changes = [
        *input_changes(before.input_schema, after.input_schema),
        *output_changes(before.output_schema, after.output_schema),
    ]
    found = [Change(path, kind, old, new, breaks, why) for path, kind, old, new, breaks, why in changes]
    found += _settings(one, other)
    found += _steps(canonical_steps(before), canonical_steps(after))
    return Comparison(before, after, tuple(found))


_BESIDES = ("name", "version", "input", "output_schema", "steps")


def _settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Change]:
    flat, flat_other = (dict(_flattened({k: v for k, v in keys.items() if k not in _BESIDES})) for keys in (one, other))
    for path in [*flat, *(path for path in flat_other if path not in flat)]:
        old, new = flat.get(path), flat_other.get(path)
        if old != new:
            made_otherwise = path.startswith("output") and path in flat
            breaks, why = (READERS, "the output is made otherwise") if made_otherwise else ("", "")
            yield Change(path, kind_of_change(path in flat, path in flat_other), old, new, breaks, why)


def _flattened(keys: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted path; mappings within mappings are gone into."""
    for name, value in keys.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, dict) and value:
            yield from _flattened(value, path)
        else:
            yield path, _shown(value)


def _shown(value: Any) -> Any:
    """Durations as people write them."""
    if isinstance(value, str) and _CANONICAL_SPAN.fullmatch(value):
        return spoken.duration(parse_duration(value))
    return value


def _steps(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    yield from _come_and_gone(before, after)
    for step_id in before:
        if step_id in after:
            yield from _step(f"steps.{step_id}", before[step_id], after[step_id])


def _come_and_gone(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    gone = [step_id for step_id in before if step_id not in after]
    fresh = [step_id for step_id in after if step_id not in before]
    renamed = _renamed(before, after, gone, fresh)
    for step_id in gone:
        path = f"steps.{step_id}"
        if step_id in renamed:
            why = "a run in which it has begun cannot be moved"
            yield Change(path, "renamed", step_id, renamed[step_id], RUNNING, why)
        else:
            yield Change(
                path, "removed", _brief(before[step_id]), None, RUNNING, "a run in which it has begun cannot be moved"
            )
    again = set(renamed.values())
    for step_id in fresh:
        if step_id not in again:
            yield Change(f"steps.{step_id}", "added", None, _brief(after[step_id]))


def _renamed(before: Mapping[str, Any], after: Mapping[str, Any], gone: list[str], fresh: list[str]) -> dict[str, str]:
    """Steps that are there under another id and are otherwise the same."""
    known = {_content(after[step_id]): step_id for step_id in fresh}
    pairs = {step_id: known[content] for step_id in gone if (content := _content(before[step_id])) in known}
    return {old: new for old, new in pairs.items() if list(pairs.values()).count(new) == 1}


def _content(step: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in step.items() if key != "needs"}, sort_keys=True)


def _brief(step: Mapping[str, Any]) -> str:
    kind = _mark(step)
    value = step.get(kind)
    said = f"{kind} {value}" if isinstance(value, str) and kind != "map" else kind
    if kind == "map":
        said = f"map {step.get('call', 'of steps')}"
    return f"{said}, after {', '.join(step['needs'])}" if step.get("needs") else said


def _mark(step: Mapping[str, Any]) -> str:
    """The key that tells its kind."""
    from tierflow_flow.kinds import KINDS

    return next((kind.mark for kind in KINDS.values() if kind.mark in step), "call")


def _step(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    if _mark(before) != _mark(after):
        yield Change(
            path, "changed", _brief(before), _brief(after), RUNNING, "a run in which it has begun cannot be moved"
        )
        return
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key == "needs":
            yield from _needs(path, old or [], new or [])
        else:
            yield Change(f"{path}.{key}", kind_of_change(key in before, key in after), _deep(old), _deep(new))


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep(item) for key, item in value.items()}
    return _shown(value)


def _needs(path: str, before: list[str], after: list[str]) -> Iterator[Change]:
    for need in before:
        if need not in after:
            yield Change(f"{path}.needs", "removed", need)
    for need in after:
        if need not in before:
            why = "a run in which the step has begun and this need has not ended cannot be moved"
            yield Change(f"{path}.needs", "added", None, need, RUNNING, why)
