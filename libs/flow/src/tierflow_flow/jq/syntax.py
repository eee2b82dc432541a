"""The tree of a jq expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Identity:
    """`.`."""


@dataclass(frozen=True, slots=True)
class Recurse:
    """`..`."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Any


@dataclass(frozen=True, slots=True)
class Text:
    r"""A string with `\\( )`; each value in it is written by `format`."""

    pieces: tuple[str | Node, ...]
    format: str


@dataclass(frozen=True, slots=True)
class Format:
    """`@base64` and the like, as a function."""

    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """`target[key]`, `target.name`."""

    target: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Slice:
    """`target[from:to]`."""

    target: Node
    start: Node | None
    stop: Node | None


@dataclass(frozen=True, slots=True)
class Each:
    """`target[]`."""

    target: Node


@dataclass(frozen=True, slots=True)
class Pipe:
    """`left | right`."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Comma:
    """`left, right`."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Negate:
    """`-value`."""

    value: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic and comparison."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Logic:
    """`and`, `or`."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Alternative:
    """`left // right`."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Assign:
    """`=`, `|=`, `+=` and the like; `op` without its `=`: empty, `|`, `+`, ..."""

    op: str
    target: Node
    value: Node


@dataclass(frozen=True, slots=True)
class If:
    """`if condition then yes else no end`."""

    condition: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True)
class Try:
    """`try body catch handler`, `body?`."""

    body: Node
    handler: Node | None


@dataclass(frozen=True, slots=True)
class Reduce:
    """`reduce source as pattern (start; update)`."""

    source: Node
    pattern: Pattern
    start: Node
    update: Node


@dataclass(frozen=True, slots=True)
class Foreach:
    """`foreach source as pattern (start; update; extract)`."""

    source: Node
    pattern: Pattern
    start: Node
    update: Node
    extract: Node | None


@dataclass(frozen=True, slots=True)
class Function:
    """`def name(parameters): body;`."""

    name: str
    parameters: tuple[str, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Define:
    """A function, and what may call it."""

    function: Function
    rest: Node


@dataclass(frozen=True, slots=True)
class Call:
    """`name(arguments)`."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Bind:
    """`source as pattern | body`; the patterns after the first are those after `?//`."""

    source: Node
    patterns: tuple[Pattern, ...]
    body: Node


@dataclass(frozen=True, slots=True)
class Label:
    """`label $name | body`."""

    name: str
    body: Node


@dataclass(frozen=True, slots=True)
class BreakTo:
    """`break $name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Array:
    """`[items]`."""

    items: Node | None


@dataclass(frozen=True, slots=True)
class Object:
    """`{key: value}`."""

    entries: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class NamePattern:
    """`$name`."""

    name: str


@dataclass(frozen=True, slots=True)
class ArrayPattern:
    """`[pattern, ...]`."""

    items: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class ObjectPattern:
    """`{key: pattern}`; a key that is bound itself has its name."""

    entries: tuple[tuple[Node, str, Pattern | None], ...]


Pattern: TypeAlias = NamePattern | ArrayPattern | ObjectPattern
Node: TypeAlias = (
    Identity
    | Recurse
    | Literal
    | Text
    | Format
    | Index
    | Slice
    | Each
    | Pipe
    | Comma
    | Negate
    | Binary
    | Logic
    | Alternative
    | Assign
    | If
    | Try
    | Reduce
    | Foreach
    | Define
    | Call
    | Variable
    | Bind
    | Label
    | BreakTo
    | Array
    | Object
)


def names_of(pattern: Pattern) -> list[str]:
    """The variables that a pattern binds."""
    if isinstance(pattern, NamePattern):
        return [pattern.name]
    if isinstance(pattern, ArrayPattern):
        return [name for item in pattern.items for name in names_of(item)]
    found = []
    for _, name, inner in pattern.entries:
        if name:
            found.append(name)
        if inner is not None:
            found.extend(names_of(inner))
    return found
