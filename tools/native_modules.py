"""Which modules `make native` compiles."""

from __future__ import annotations

import ast
import pathlib

PACKAGES = (
    "libs/runtime",
    "libs/durable",
    "libs/expressions",
    "services/coordinator",
    "services/executor",
    "services/orchestrator",
)
MODULES = (
    "tierflow_runtime/{errors,filling,form,logs,moves,names,payloads,publisher,requests,streams,subjects,tracecontext,wire}.py",
    "tierflow_runtime/contract*.py",
    "tierflow_durable/{batch,births,clock,columns,entity,host,ids,outlet,owning,packing,relay,routing,timers,writer}.py",
    "tierflow_expressions/{evaluate,holes,templates,values}.py",
    "tierflow_coordinator/core/*.py",
    "tierflow_coordinator/{access,admission,engine,line,links,machine,orchestrators,progress,resting,room,runs,sessions,submission,tracing,views,waiting,wanted,wire}.py",
    "tierflow_executor/{delivery,endings,engine,runner,streams,wheel,wire}.py",
    "tierflow_executor/core/*.py",
    "tierflow_orchestrator/core/*.py",
    "tierflow_orchestrator/core/kinds/*.py",
    "tierflow_orchestrator/{attempt_requests,checks,claims,commanding,dispatcher,engine,hearing,link,machine,prerequisites,results,sessions,slots,spans,starting,views}.py",
    "tierflow_orchestrator/{views_steering,wire,wire_approvals,wire_blocks,wire_filling,wire_reading,wire_serverless,wire_steering}.py",
)


def matching(tree: pathlib.Path) -> list[pathlib.Path]:
    """The modules to compile, below a tree of packages. Raises SystemExit for a pattern that matches nothing."""
    found: list[pathlib.Path] = []
    for pattern in MODULES:
        some = [path for each in _spelled_out(pattern) for path in sorted(tree.glob(each)) if can_be(path)]
        if not some:
            raise SystemExit(f"no module is called {pattern} any more: correct tools/native_modules.py")
        found += some
    return [path.relative_to(tree) for path in found]


def can_be(path: pathlib.Path) -> bool:
    """Whether a module is compiled as the pattern says. Those with structs are not.

    mypyc drops what stands beside the bases of a class, `frozen=True` and the like, and keeps no `int | None` as the type of a field: what msgspec made of such a class would be another one.
    """
    return path.name != "__init__.py" and not any(map(_is_struct, ast.walk(ast.parse(path.read_text()))))


def _is_struct(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and (
        bool(node.keywords)
        or any(ast.unparse(each).endswith(("Struct", "Command", "Effect", "Event")) for each in node.bases)
    )


def _spelled_out(pattern: str) -> list[str]:
    head, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    names, _, tail = rest.partition("}")
    return [head + name + tail for name in names.split(",")]
