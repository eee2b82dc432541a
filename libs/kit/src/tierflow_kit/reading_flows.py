"""What a flow reads: every expression of it with its place, and what each looks up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tierflow_flow import Flow, StepSpec
from tierflow_flow.expressions import Reference
from tierflow_flow.templates import CompiledTemplate


@dataclass(frozen=True, slots=True)
class Reading:
    """A look-up, and the step whose expression it is; empty for the flow's output."""

    step: str
    reference: Reference


def templates(spec: StepSpec) -> Iterator[CompiledTemplate]:
    """Every template of a step."""
    for template in (spec.with_, spec.condition, spec.items, *spec.templates.values()):
        if isinstance(template, CompiledTemplate):
            yield template


def readings(flow: Flow) -> list[Reading]:
    """Every look-up of the flow."""
    found = [
        Reading(spec.id, reference)
        for spec in flow.steps
        for template in templates(spec)
        for expression in template.expressions
        for reference in expression.references
    ]
    if isinstance(flow.output, CompiledTemplate):
        found += [
            Reading("", reference) for expression in flow.output.expressions for reference in expression.references
        ]
    return found


def steps_read(flow: Flow) -> dict[str, set[str]]:
    """For each step the fields that are read of it; `*` where it is read whole."""
    found: dict[str, set[str]] = {}
    for reading in readings(flow):
        if reading.reference.name == "steps" and reading.reference.path:
            step, *rest = reading.reference.path
            found.setdefault(str(step), set()).add(str(rest[0]) if rest else "*")
    return found


def names_read(flow: Flow, name: str) -> set[str] | None:
    """The names below `input`, `vars` or `env` that are read; None where all of it is read at once."""
    found: set[str] = set()
    for reading in readings(flow):
        if reading.reference.name == name:
            if not reading.reference.path:
                return None
            found.add(str(reading.reference.path[0]))
    return found
