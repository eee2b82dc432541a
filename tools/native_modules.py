"""Which modules `make native` compiles, and what it makes of their source first."""

from __future__ import annotations

import ast
import pathlib
import re

FUTURE = "from __future__ import annotations"
MARKS = re.compile(r"(typing\.)?(Final|ClassVar)\b")
"""What is written where a type is, and is none."""
PACKAGES = (
    "libs/runtime",
    "libs/durable",
    "libs/flow",
    "services/coordinator",
    "services/executor",
    "services/orchestrator",
)
MODULES = (
    "tierflow_runtime/{errors,filling,form,logs,moves,names,payloads,publisher,requests,streams,subjects,tracecontext,wire}.py",
    "tierflow_runtime/contract*.py",
    "tierflow_durable/{batch,births,clock,entity,host,ids,owning,packing,relay,routing,timers,writer}.py",
    "tierflow_flow/templates.py",
    "tierflow_coordinator/core/*.py",
    "tierflow_coordinator/{access,admission,engine,links,machine,orchestrators,progress,room,runs,sessions,submission,tracing,views,waiting,wire}.py",
    "tierflow_executor/{delivery,endings,engine,runner,streams,wheel,wire}.py",
    "tierflow_executor/core/*.py",
    "tierflow_orchestrator/core/*.py",
    "tierflow_orchestrator/core/kinds/*.py",
    "tierflow_orchestrator/{attempt_requests,checks,commanding,dispatcher,engine,link,machine,results,sessions,slots,spans,starting,views}.py",
    "tierflow_orchestrator/{views_steering,wire,wire_approvals,wire_blocks,wire_filling,wire_reading,wire_serverless,wire_steering}.py",
)
STRUCTS = re.compile(r"\bfield\(|^class \w+\((Event|Command|Effect)\)", re.MULTILINE)
"""Modules of nothing but msgspec's structs stay as they are: mypyc takes the marks of their fields for values, and they are classes of C already."""


def matching(tree: pathlib.Path) -> list[pathlib.Path]:
    """The modules to compile, below a tree of packages. Raises SystemExit for a pattern that matches nothing."""
    found: list[pathlib.Path] = []
    for pattern in MODULES:
        some = [path for each in _spelled_out(pattern) for path in sorted(tree.glob(each)) if _can_be(path)]
        if not some:
            raise SystemExit(f"no module is called {pattern} any more: correct tools/native_modules.py")
        found += some
    return [path.relative_to(tree) for path in found]


def _can_be(path: pathlib.Path) -> bool:
    return path.name not in ("__init__.py", "event.py") and STRUCTS.search(path.read_text()) is None


def _spelled_out(pattern: str) -> list[str]:
    head, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    names, _, tail = rest.partition("}")
    return [head + name + tail for name in names.split(",")]


def quoted(source: str) -> str:
    """A module whose fields have their types as strings; its lines stay where they are.

    mypyc keeps no `int | None` in `__annotations__`, only `type`, which msgspec would take at its word; what is written as a string, and is no `|`, it keeps.
    """
    lines = source.splitlines(keepends=True)
    fields = [one for one in _types_of_fields(source) if not MARKS.match(ast.unparse(one))]
    for one in fields:
        line = lines[one.lineno - 1].encode()
        text = repr(_as_union(one)).encode()
        lines[one.lineno - 1] = (line[: one.col_offset] + text + line[one.end_col_offset or 0 :]).decode()
    return "".join(lines).replace(FUTURE, f"{FUTURE}; import typing", 1) if fields else source


def _types_of_fields(source: str) -> list[ast.expr]:
    """What is written after the colon of each field of a class; what is a string already and what goes over several lines is left out."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    found = [field.annotation for one in classes for field in one.body if isinstance(field, ast.AnnAssign)]
    return [one for one in found if one.lineno == one.end_lineno and not isinstance(one, ast.Constant)]


def _as_union(annotation: ast.expr) -> str:
    """`A | B` in the form that is a name with arguments."""
    parts: list[str] = []
    while isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        parts.append(ast.unparse(annotation.right))
        annotation = annotation.left
    parts.append(ast.unparse(annotation))
    return parts[0] if len(parts) == 1 else f"typing.Union[{', '.join(reversed(parts))}]"
