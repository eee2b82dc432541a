"""Two JSON Schemas: what changed of an input, which callers must meet, and of an output, on which readers rely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Found: TypeAlias = tuple[str, str, Any, Any, str, str]
"""Path, kind, before, after, whom it breaks, why."""

_NARROWER_IF_GREATER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_NARROWER_IF_LESS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SILENT = ("description", "title", "examples", "$comment", "default")


def input_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Iterator[Found]:
    """What changed of an input. What accepts less than before breaks callers."""
    yield from _changes("input", before or {}, after or {}, "callers", narrower_breaks=True)


def output_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Iterator[Found]:
    """What changed of an output. What promises less than before breaks readers."""
    yield from _changes("output_schema", before or {}, after or {}, "readers", narrower_breaks=False)


def _changes(
    path: str, before: Mapping[str, Any], after: Mapping[str, Any], whom: str, *, narrower_breaks: bool
) -> Iterator[Found]:
    """Differences between two schemas of objects, property by property; of other keywords, each as one."""
    old, new = before.get("properties", {}), after.get("properties", {})
    must, must_now = set(before.get("required", ())), set(after.get("required", ()))
    for name in _names(old, new):
        inner = f"{path}.{name}"
        if name not in new:
            refused = narrower_breaks and after.get("additionalProperties") is False
            why = "it is refused now" if refused else "it is no longer promised"
            broken = refused or (not narrower_breaks and name in must)
            yield inner, "removed", _brief(old[name]), None, *_broken(broken, whom, why)
        elif name not in old:
            broken = narrower_breaks and name in must_now
            yield inner, "added", None, _brief(new[name]), *_broken(broken, whom, "it is required")
        else:
            yield from _required(inner, name in must, name in must_now, whom, narrower_breaks)
            yield from _property(inner, old[name], new[name], whom, narrower_breaks=narrower_breaks)
    yield from _keywords(path, before, after, whom, narrower_breaks=narrower_breaks)


def _names(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of both, those of the first first."""
    return list(dict.fromkeys([*before, *after]))


def _broken(broken: bool, whom: str, why: str) -> tuple[str, str]:
    return (whom, why) if broken else ("", "")


def _required(path: str, must: bool, must_now: bool, whom: str, narrower_breaks: bool) -> Iterator[Found]:
    if must != must_now:
        said, said_now = ("required" if each else "optional" for each in (must, must_now))
        why = "it is required now" if must_now else "it may be absent now"
        yield path, "changed", said, said_now, *_broken(must_now == narrower_breaks, whom, why)


def _property(path: str, before: Any, after: Any, whom: str, *, narrower_breaks: bool) -> Iterator[Found]:
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        if before != after:
            yield path, "changed", before, after, whom, "nobody can say what it accepts"
        return
    yield from _changes(path, before, after, whom, narrower_breaks=narrower_breaks)


def _keywords(
    path: str, before: Mapping[str, Any], after: Mapping[str, Any], whom: str, *, narrower_breaks: bool
) -> Iterator[Found]:
    for name in _names(before, after):
        old, new = before.get(name), after.get(name)
        if name not in ("properties", "required", "additionalProperties") and old != new:
            broken = name not in _SILENT and _breaks(name, old, new, narrower_breaks=narrower_breaks)
            said = "it accepts less than before" if narrower_breaks else "it may be what it could not be before"
            yield (
                f"{path}.{name}",
                kind_of_change(name in before, name in after),
                old,
                new,
                *_broken(broken, whom, said),
            )


def kind_of_change(there: bool, there_now: bool) -> str:
    """Added, removed or changed."""
    return "changed" if there and there_now else "removed" if there else "added"


def _breaks(name: str, old: Any, new: Any, *, narrower_breaks: bool) -> bool:
    narrower, wider = _direction(name, old, new)
    return narrower if narrower_breaks else wider


def _direction(name: str, old: Any, new: Any) -> tuple[bool, bool]:
    """Whether a keyword may accept less than before, and whether it may accept more; both where nobody can say."""
    if old is None or new is None:
        return old is None, new is None
    if name in ("type", "enum"):
        was, now = _set(name, old), _set(name, new)
        return bool(was - now), bool(now - was)
    if name in (*_NARROWER_IF_GREATER, *_NARROWER_IF_LESS):
        greater = new > old
        return (greater, not greater) if name in _NARROWER_IF_GREATER else (not greater, greater)
    return True, True


def _set(name: str, value: Any) -> set[str]:
    listed = {repr(item) for item in value} if isinstance(value, list) else {repr(value)}
    return listed | {repr("integer")} if name == "type" and repr("number") in listed else listed


def _brief(schema: Any) -> Any:
    return schema.get("type", schema) if isinstance(schema, Mapping) else schema
