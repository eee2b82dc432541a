"""Drawings of documents of the Serverless Workflow DSL: tasks within tasks, one after another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tierflow_flow import Flow
from tierflow_flow.serverless import Program, Task


def tree(flow: Flow) -> str:
    """A tree for the terminal."""
    program = _program(flow)
    rows = list(_branches(program, program.tasks[program.root], ""))
    width = max((len(left) for left, _ in rows), default=0)
    return "\n".join(
        [f"{flow.name}@{flow.version}", *(f"{left.ljust(width)}  {right}".rstrip() for left, right in rows)]
    )


def mermaid(flow: Flow) -> str:
    """A Mermaid flowchart."""
    program = _program(flow)
    names = {pointer: f"t{number}" for number, pointer in enumerate(program.tasks)}
    return "\n".join(["flowchart TD", *_boxes(program, program.tasks[program.root], names, "    ")])


def _program(flow: Flow) -> Program:
    if flow.program is None:
        raise ValueError(f"{flow.name} is no document")
    return flow.program


def _what(task: Task) -> str:
    said = task.handler or {"function": f"call {task.definition.get('call')}"}.get(task.kind, task.kind)
    return said if task.then == "continue" else f"{said}, then {task.then}"


def _inner(task: Task) -> list[tuple[str, str]]:
    return [(name, pointer) for name, pointers in task.lists.items() for pointer in pointers]


def _branches(program: Program, task: Task, indent: str) -> Iterator[tuple[str, str]]:
    inner = _inner(task)
    for place, (name, pointer) in enumerate(inner):
        other, last = program.tasks[pointer], place == len(inner) - 1
        which = f"{name}: " if name in ("catch", "branches") else ""
        yield f"{indent}{'└─ ' if last else '├─ '}{which}{other.name}", _what(other)
        yield from _branches(program, other, indent + ("   " if last else "│  "))


def _boxes(program: Program, task: Task, names: dict[str, str], indent: str) -> Iterator[str]:
    for name, pointers in task.lists.items():
        for pointer in pointers:
            other = program.tasks[pointer]
            if other.lists:
                yield f'{indent}subgraph {names[pointer]}["{_escaped(other)}"]'
                yield from _boxes(program, other, names, indent + "    ")
                yield f"{indent}end"
            else:
                yield f'{indent}{names[pointer]}["{_escaped(other)}<br/>{_what(other)}"]'
        for before, after in itertools.pairwise(pointers) if name != "branches" else ():
            yield f"{indent}{names[before]} --> {names[after]}"


def _escaped(task: Task) -> str:
    return task.name.replace('"', "#quot;")
