"""Flows as pictures: a tree for terminals, Mermaid for documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tierflow_flow import Flow, StepSpec
from tierflow_flow.durations import parse_duration

from tierflow_kit import documents, spoken
from tierflow_kit.blocks import canonical_steps, every_step, holder, rescuers

_CANONICAL_SPAN = re.compile(r"[0-9]+us")


class Outline:
    """A flow, laid out: what each step is in a few words, and below which other step a tree shows it."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.steps = tuple(every_step(flow))
        self.keys: Mapping[str, Mapping[str, Any]] = canonical_steps(flow)
        self.called_for = rescuers(flow)
        self.depth = self._depths()

    def _depths(self) -> dict[str, int]:
        """How many steps of its block come before each at least, one after the other."""
        waiting = {spec.id: len(spec.needs) for spec in self.steps}
        ready = [step_id for step_id, count in waiting.items() if not count]
        depth = dict.fromkeys(ready, 0)
        for step_id in ready:
            for other in self.flow.dependants[step_id]:
                depth[other] = max(depth.get(other, 0), depth[step_id] + 1)
                waiting[other] -= 1
                if not waiting[other]:
                    ready.append(other)
        return depth

    def parent(self, spec: StepSpec) -> str:
        """The step below which a tree shows another: the switch that chooses it, the last one that it needs, whose error it handles, or who holds it; empty for a root."""
        if spec.chosen_by:
            return spec.chosen_by
        if spec.id in self.called_for:
            return self.called_for[spec.id][0]
        return max(spec.needs, key=lambda need: self.depth[need], default=holder(spec.id))

    def is_above(self, need: str, spec: StepSpec) -> bool:
        """Whether the tree shows a need on the way down to a step."""
        above = self.parent(spec)
        while above and above != need:
            above = self.parent(self.flow.by_id[above])
        return above == need

    def what(self, spec: StepSpec) -> str:
        """What a step does, in a few words."""
        keys = self.keys[spec.id]
        said = _SAID.get(spec.kind)
        if said is not None:
            return said(keys)
        value = keys.get(spec.kind)
        if not isinstance(value, str):
            return spec.kind
        limit = keys.get("timeout") if not spec.handler else None
        return f"{spec.kind} {value}" + (f" for at most {_span(limit)}" if limit else "")

    def cases(self, spec: StepSpec) -> list[str]:
        """The cases in which a switch chooses this step."""
        if not spec.chosen_by:
            return []
        keys = self.keys[spec.chosen_by]
        found = [_unwrapped(case["if"]) for case in keys["switch"] if spec.id in case["then"]]
        return found + (["otherwise"] if spec.id in keys.get("default", ()) else [])

    def condition(self, spec: StepSpec) -> str:
        """Its condition, without `${{ }}`; empty where there is none."""
        return _unwrapped(self.keys[spec.id].get("if", ""))


def _map(keys: Mapping[str, Any]) -> str:
    return f"map {keys.get('call', 'of steps')} over {_unwrapped(keys['map'])}"


def _wait(keys: Mapping[str, Any]) -> str:
    [(how, value)] = keys["wait"].items()
    return f"wait {'until ' if how == 'until' else ''}{_unwrapped(_span(value))}"


def _approval(keys: Mapping[str, Any]) -> str:
    said = keys["approval"]
    who = [*_names(said.get("users")), *_names(said.get("roles"))]
    return f"approval by {' or '.join(who)}" + (f", {said['needed']} of them" if said.get("needed", 1) > 1 else "")


def _loop(keys: Mapping[str, Any]) -> str:
    said = keys["loop"]
    parts = [f"{name} {_unwrapped(said[name])}" for name in ("for", "while", "until") if name in said]
    parts += [f"every {_span(said['delay'])}"] if "delay" in said else []
    return f"loop {', '.join(parts)}"


_SAID: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "map": _map,
    "map_block": _map,
    "group": lambda keys: "group",
    "fail": lambda keys: f"fail {keys['fail']['code']}",
    "wait": _wait,
    "approval": _approval,
    "loop": _loop,
}
"""How kinds are described whose own key has no plain text."""


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(name) for name in value or ()]


def _span(value: Any) -> Any:
    return (
        spoken.duration(parse_duration(value)) if isinstance(value, str) and _CANONICAL_SPAN.fullmatch(value) else value
    )


def _unwrapped(value: Any) -> str:
    if not isinstance(value, str):
        return spoken.value(value, 60)
    whole = re.fullmatch(r"\$\{\{ (.*) \}\}", value, re.DOTALL)
    return whole[1] if whole and "${{" not in whole[1] else value


def tree(flow: Flow) -> str:
    """The flow as a tree of lines: each step below the one that it waits for last, with what it needs besides."""
    if flow.program is not None:
        return documents.tree(flow)
    outline = Outline(flow)
    below: dict[str, list[StepSpec]] = {}
    for spec in outline.steps:
        below.setdefault(outline.parent(spec), []).append(spec)
    for inner in below.values():
        inner.sort(key=_inner_first)
    head = f"{flow.name}@{flow.version}" + (f": {flow.description}" if flow.description else "")
    rows = list(_branches(outline, below))
    width = max(len(name) for name, _ in rows)
    return "\n".join([head, *(f"{name.ljust(width)}  {said}" for name, said in rows)])


def _inner_first(spec: StepSpec) -> bool:
    """What is held by a step comes before what comes after it."""
    return not holder(spec.id)


def _branches(outline: Outline, below: Mapping[str, list[StepSpec]]) -> Iterator[tuple[str, str]]:
    """Each step with the lines that lead to it, and what is said of it. Goes by a stack: flows may be ten thousand steps long."""
    waiting = _with_last(below.get("", []), "")
    while waiting:
        spec, indent, last = waiting.pop()
        yield f"{indent}{'└─ ' if last else '├─ '}{spec.id}", _said(outline, spec)
        waiting.extend(_with_last(below.get(spec.id, []), indent + ("   " if last else "│  ")))


def _with_last(specs: list[StepSpec], indent: str) -> list[tuple[StepSpec, str, bool]]:
    return [(spec, indent, number == len(specs) - 1) for number, spec in enumerate(specs)][::-1]


def _said(outline: Outline, spec: StepSpec) -> str:
    parts = [outline.what(spec)]
    if cases := outline.cases(spec):
        parts.append(f"where {' or '.join(cases)}")
    if failing := outline.called_for.get(spec.id):
        parts.append(f"where {' or '.join(failing)} fails")
    if condition := outline.condition(spec):
        parts.append(f"if {condition}")
    if spec.join is not None:
        parts.append(f"after {spec.join.at_least} of {', '.join(spec.join.of)}")
    elif others := [need for need in spec.needs if not outline.is_above(need, spec)]:
        parts.append(f"also after {', '.join(others)}")
    return ", ".join([*parts, *_besides(spec)])


def _besides(spec: StepSpec) -> Iterator[str]:
    if spec.on_error == "continue":
        yield "may fail"
    if spec.undo is not None:
        yield f"undone by {spec.undo.handler}"


_SHAPES = {
    "switch": "{%s}",
    "wait": "([%s])",
    "signal": "([%s])",
    "approval": "([%s])",
    "emit": ">%s]",
    "fail": "((%s))",
    "map": "[[%s]]",
}
"""How Mermaid draws a kind; all others as a box."""


def mermaid(flow: Flow) -> str:
    """The flow as a Mermaid flowchart; blocks are boxes around their steps."""
    if flow.program is not None:
        return documents.mermaid(flow)
    outline = Outline(flow)
    names = {spec.id: f"s{number}" for number, spec in enumerate(outline.steps)}
    inner: dict[str, list[StepSpec]] = {}
    for spec in outline.steps:
        inner.setdefault(holder(spec.id), []).append(spec)
    lines = ["flowchart TD", *_boxes(outline, names, inner, "", "    ")]
    for spec in outline.steps:
        lines += [f"    {names[need]} {_arrow(outline, spec, need)} {names[spec.id]}" for need in spec.needs]
        lines += [
            f'    {names[failing]} -.->|"fails"| {names[spec.id]}' for failing in outline.called_for.get(spec.id, ())
        ]
    return "\n".join(lines)


def _boxes(
    outline: Outline, names: Mapping[str, str], inner: Mapping[str, list[StepSpec]], of: str, indent: str
) -> Iterator[str]:
    """The steps of a block. Blocks are eight deep at most."""
    for spec in inner.get(of, ()):
        label = f'"{_escaped(spec.name or spec.local)}<br/>{_escaped(outline.what(spec))}"'
        if spec.id in inner:
            yield f"{indent}subgraph {names[spec.id]} [{label}]"
            yield from _boxes(outline, names, inner, spec.id, indent + "    ")
            yield f"{indent}end"
        else:
            yield f"{indent}{names[spec.id]}{_SHAPES.get(spec.kind, '[%s]') % label}"


def _arrow(outline: Outline, spec: StepSpec, need: str) -> str:
    if need == spec.chosen_by:
        return f'-->|"{_escaped(" or ".join(outline.cases(spec)))}"|'
    condition = outline.condition(spec)
    return f'-.->|"{_escaped(condition)}"|' if condition else "-->"


def _escaped(text: str) -> str:
    for found, instead in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", " ")):
        text = text.replace(found, instead)
    return text if len(text) <= 80 else text[:77] + "..."
