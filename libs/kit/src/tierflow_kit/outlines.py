"""Flows as pictures: a tree for terminals, Mermaid for documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tierflow_flow import Flow, StepSpec
from tierflow_flow.durations import parse_duration

from tierflow_kit import spoken

_CANONICAL_SPAN = re.compile(r"[0-9]+us")


class Outline:
    """A flow, laid out: what each step is in a few words, and below which other step a tree shows it."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.keys: Mapping[str, Mapping[str, Any]] = {step["id"]: step for step in json.loads(flow.canonical)["steps"]}
        self.depth = self._depths()

    def _depths(self) -> dict[str, int]:
        """How many steps come before each at least, one after the other."""
        depth = dict.fromkeys(self.flow.roots, 0)
        waiting = {spec.id: len(spec.needs) for spec in self.flow.steps}
        ready = list(self.flow.roots)
        for step_id in ready:
            for other in self.flow.dependants[step_id]:
                depth[other] = max(depth.get(other, 0), depth[step_id] + 1)
                waiting[other] -= 1
                if not waiting[other]:
                    ready.append(other)
        return depth

    def parent(self, spec: StepSpec) -> str:
        """The need below which a tree shows a step: the switch that chooses it, else the last one to come; empty for a root."""
        if spec.chosen_by:
            return spec.chosen_by
        return max(spec.needs, key=lambda need: self.depth[need], default="")

    def is_above(self, need: str, spec: StepSpec) -> bool:
        """Whether the tree shows a need on the way down to a step."""
        above = self.parent(spec)
        while above and above != need:
            above = self.parent(self.flow.by_id[above])
        return above == need

    def what(self, spec: StepSpec) -> str:
        """What a step does, in a few words."""
        keys = self.keys[spec.id]
        said: Any = keys.get(spec.kind)
        if spec.kind == "map":
            return f"map {spec.handler} over {_unwrapped(said)}"
        if spec.kind == "fail":
            return f"fail {said['code']}"
        if spec.kind == "approval":
            who = [*_names(said.get("users")), *_names(said.get("roles"))]
            return f"approval by {' or '.join(who)}" + (
                f", {said['needed']} of them" if said.get("needed", 1) > 1 else ""
            )
        if spec.kind == "wait":
            [(how, value)] = said.items()
            return f"wait {'until ' if how == 'until' else ''}{_unwrapped(_span(value))}"
        if isinstance(said, str):
            limit = keys.get("timeout") if not spec.handler else None
            return f"{spec.kind} {said}" + (f" for at most {_span(limit)}" if limit else "")
        return spec.kind

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
    outline = Outline(flow)
    below: dict[str, list[StepSpec]] = {}
    for spec in flow.steps:
        below.setdefault(outline.parent(spec), []).append(spec)
    head = f"{flow.name}@{flow.version}" + (f": {flow.description}" if flow.description else "")
    rows = list(_branches(outline, below))
    width = max(len(name) for name, _ in rows)
    return "\n".join([head, *(f"{name.ljust(width)}  {said}" for name, said in rows)])


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
    if condition := outline.condition(spec):
        parts.append(f"if {condition}")
    if others := [need for need in spec.needs if not outline.is_above(need, spec)]:
        parts.append(f"also after {', '.join(others)}")
    if spec.on_error == "continue":
        parts.append("may fail")
    return ", ".join(parts)


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
    """The flow as a Mermaid flowchart."""
    outline = Outline(flow)
    names = {spec.id: f"s{number}" for number, spec in enumerate(flow.steps)}
    lines = ["flowchart TD"]
    for spec in flow.steps:
        label = f'"{_escaped(spec.name or spec.id)}<br/>{_escaped(outline.what(spec))}"'
        lines.append(f"    {names[spec.id]}{_SHAPES.get(spec.kind, '[%s]') % label}")
    for spec in flow.steps:
        cases, condition = outline.cases(spec), outline.condition(spec)
        for need in spec.needs:
            said = " or ".join(cases) if need == spec.chosen_by else condition
            arrow = (
                f'-->|"{_escaped(said)}"|' if need == spec.chosen_by else f'-.->|"{_escaped(said)}"|' if said else "-->"
            )
            lines.append(f"    {names[need]} {arrow} {names[spec.id]}")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    for found, instead in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", " ")):
        text = text.replace(found, instead)
    return text if len(text) <= 80 else text[:77] + "..."
