"""Whose outputs a flow's templates look into: stored ones must be at hand before something is decided."""

from __future__ import annotations

from collections.abc import Iterator

from tierflow_expressions.templates import CompiledTemplate

from tierflow_flow.levels import Level
from tierflow_flow.reading import StepParts


def contents(level: Level) -> Iterator[str]:
    """Paths of steps into whose outputs some template of a block looks, as far as it is not only handed on; of the blocks within it as well."""
    for step in level.parts.steps:
        for name, template in level.templates[step.id].items():
            handed_on = template.whole_steps if _hands_on(level, step, name) else frozenset()
            yield from map(level.path_of, template.steps - handed_on)
            yield from _around(level, template, step)
    for end in (level.output, level.until):
        if end is not None:
            yield from map(level.path_of, end.steps)
            yield from _around(level, end, None)
    if level.holder is not None and level.output is None:
        yield from level.leaves
    for inner in level.inner.values():
        yield from contents(inner)


def _hands_on(level: Level, step: StepParts, name: str) -> bool:
    """Whether a template may hand stored values on: those of the outermost block are seen to by the run, as ever."""
    return (name in ("with", "undo") and "call" in step.keys) or (level.outer is None and name != "then")


def _around(level: Level, template: CompiledTemplate, step: StepParts | None) -> Iterator[str]:
    """The loops of which the last output is read, and the step itself where its own is."""
    names = {reference.name for expression in template.expressions for reference in expression.references}
    if "output" in names and step is not None:
        yield level.prefix + step.id
    if "loop" in names:
        yield from _loops(level, step)


def _loops(level: Level, step: StepParts | None) -> Iterator[str]:
    """The loop that a step is, and those around it."""
    if step is not None and step.kind.name == "loop":
        yield level.prefix + step.id
    around: Level | None = level
    while around is not None and around.holder is not None and around.outer is not None:
        if around.holder.kind.name == "loop":
            yield around.outer.prefix + around.holder.id
        around = around.outer
