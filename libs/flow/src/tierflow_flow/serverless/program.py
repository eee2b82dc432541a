"""A document of the CNCF Serverless Workflow DSL as data: what its checker yields and its navigator walks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tierflow_flow.serverless.values import Value

SPEC_TYPES: Final = "https://serverlessworkflow.io/spec/1.0.0/errors/"
"""How the types of the DSL's own errors begin."""
OLD_TYPES: Final = "https://serverlessworkflow.io/dsl/errors/types/"
"""How they began in earlier drafts; both are taken for the same."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON Schema that data must match."""

    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """One task. `pointer` is its JSON pointer in the document; steps of a run are named after it."""

    pointer: str
    name: str
    kind: str
    definition: Mapping[str, Any]
    condition: Value | None = None
    input_from: Value | None = None
    input_schema: Schema | None = None
    output_as: Value | None = None
    output_schema: Schema | None = None
    export_as: Value | None = None
    export_schema: Schema | None = None
    timeout: Value | None = None
    """Evaluates to a duration as the DSL writes it."""
    then: str = "continue"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What only its kind has, compiled."""
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pointers of the tasks in it, by the key that holds them."""
    handler: str = ""
    """Of tasks that an executor performs."""


@dataclass(frozen=True, slots=True)
class Program:
    """A whole document, compiled."""

    document: Mapping[str, Any]
    root: str
    tasks: Mapping[str, Task]
    secrets: tuple[str, ...]
    listens: bool
    """Whether it waits for events anywhere."""


def secrets_of(task: Task) -> tuple[str, ...]:
    """The secrets of executors that a call needs: that which its authentication uses by name."""
    authentication = task.settings.get("authentication")
    return (authentication[1],) if authentication is not None and isinstance(authentication[1], str) else ()


def next_in(program: Program, siblings: tuple[str, ...], pointer: str) -> str | None:
    """The task after this one in its list; None after the last."""
    place = siblings.index(pointer) + 1
    return siblings[place] if place < len(siblings) else None


def named_in(program: Program, siblings: tuple[str, ...], name: str) -> str | None:
    """The task of this name in a list."""
    return next((pointer for pointer in siblings if program.tasks[pointer].name == name), None)


def same_type(left: str, right: str) -> bool:
    """Whether two error types are the same, however old the document is."""
    return _short(left) == _short(right)


def _short(kind: str) -> str:
    for start in (SPEC_TYPES, OLD_TYPES):
        if kind.startswith(start):
            return kind.removeprefix(start)
    return kind
