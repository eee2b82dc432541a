"""Values on their way from step to step: a stored value that is handed on whole stays one, and is never read."""

from __future__ import annotations

from collections.abc import Iterator

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import Scope
from tierflow_flow.definition import Template
from tierflow_runtime.secrets import OPENING
from tierflow_runtime.values import BlobRef, Payload

from tierflow_orchestrator.core.blocks import find
from tierflow_orchestrator.core.payloads import payload_of
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import MissingContent, has_mark, mark
from tierflow_orchestrator.core.step import Step
from tierflow_orchestrator.core.turn import Turn


def payload_for(
    turn: Turn, template: Template, step: Step, scope: Scope, *, inside: bool = False, handles: int = 0
) -> Payload:
    """A template with its holes filled, as a payload. Raises `ExpressionError`.

    Args:
        turn: The decision under way.
        template: The template.
        step: Whose it is.
        scope: What it sees.
        inside: Whether it is evaluated within the step's block.
        handles: How many handles of secrets the template holds; with any, no value may bring one along.
    """
    run = turn.run
    text = template.resolve_json(scope)
    if handles and text.count(OPENING) != handles:
        raise ExpressionError("a value looks like the handle of a secret; it cannot stand beside one")
    if run.large and has_mark(text):
        for ref in stored(run, template, step, inside=inside):
            if text == mark(ref):
                return ref
            if mark(ref) in text:
                raise MissingContent(ref.sha256)
    return payload_of(text, turn.blobs)


def stored(run: Run, template: Template, step: Step, *, inside: bool = False) -> Iterator[BlobRef]:
    """The stored values that a template may hand on."""
    for name in template.whole_steps:
        other = find(run, step, name, inside=inside)
        if other is not None:
            yield from run.large.get(other.of, ())
    if step.role == "compensation":
        yield from run.large.get(run.steps[step.parent].of, ())
