"""What a flow reads: every expression of it with its place, and what each looks up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tierflow_expressions.expressions import Reference
from tierflow_expressions.templates import CompiledTemplate
from tierflow_flow import Flow, StepSpec, Template

from tierflow_kit.blocks import every_step, holder, meant


@dataclass(frozen=True, slots=True)
class Reading:
    """A look-up, and the block in which it stands; empty for the flow itself."""

    block: str
    reference: Reference


def templates(spec: StepSpec) -> Iterator[CompiledTemplate]:
    """Every template of a step that stands beside it, what compensates it included."""
    found: list[Template | None] = [spec.with_, spec.condition, spec.items, *spec.templates.values()]
    found += [
        spec.rescue.then if spec.rescue else None,
        *((spec.undo.with_, *spec.undo.templates.values()) if spec.undo else ()),
    ]
    for template in found:
        if isinstance(template, CompiledTemplate):
            yield template


def readings(flow: Flow) -> list[Reading]:
    """Every look-up of the flow; `block` is where it stands, empty for the flow itself."""
    found: list[Reading] = []
    for spec in every_step(flow):
        for template in templates(spec):
            found += _of(template, holder(spec.id))
        if spec.block is not None:
            for inner in (spec.block.output, spec.block.until):
                found += _of(inner, spec.id)
    for norm in flow.norms:
        found += _of(norm.condition, "")
    return found + _of(flow.output, "")


def _of(template: Template | None, block: str) -> list[Reading]:
    if not isinstance(template, CompiledTemplate):
        return []
    return [Reading(block, reference) for expression in template.expressions for reference in expression.references]


def steps_read(flow: Flow) -> dict[str, set[str]]:
    """For each step, by id, the fields that are read of it; `*` where it is read whole."""
    found: dict[str, set[str]] = {}
    for reading in readings(flow):
        if reading.reference.name == "steps" and reading.reference.path:
            name, *rest = reading.reference.path
            found.setdefault(meant(flow, str(name), reading.block), set()).add(str(rest[0]) if rest else "*")
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
