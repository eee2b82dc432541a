"""The events of documents that are walked task by task, beyond those of all steps."""

from __future__ import annotations

import msgspec
from tierflow_runtime.values import Payload

from tierflow_orchestrator.core.event import Event


class StepEntered(Event):
    """A task of a document began: the step becomes known, READY."""

    step_id: str
    definition: str
    """The task's pointer."""
    parent: str = ""
    list_: str = ""
    """The list of the task around it that it is in."""
    round: int = 0
    """The iteration or the try of that list."""
    input: Payload | None = None
    """None: what the task around it has for its next one."""
    items: Payload | None = None
    """What a loop goes through."""
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    """What the task around it has bound for it: JSON texts by name."""


class ContextExported(Event):
    """A task set the context of its document."""

    step_id: str
    context: Payload


class EventConsumed(Event):
    """A task that listens took an event that was received."""

    step_id: str
    place: int
    """Where the event is among those that wait."""
    for_filter: int
    """The filter that it is for, from 0; below 0: the one, counted from -1 down, that ends the listening."""
    keys: dict[str, str] = msgspec.field(default_factory=dict)
    """Correlations that it bound: JSON texts by name."""
