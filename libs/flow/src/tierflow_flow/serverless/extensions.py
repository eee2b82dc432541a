"""`use.extensions`: tasks before and after every task of a kind.

A task that is extended becomes a task with three lists: what comes before, the task itself, what comes after. What they hand on is the task's own output; only where a task
before it leaves by `then: exit`, that one's output stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tierflow_flow.problems import Problems
from tierflow_flow.serverless.program import Task
from tierflow_flow.serverless.reader import Part
from tierflow_flow.serverless.values import STANDARD

if TYPE_CHECKING:
    from tierflow_flow.serverless.compiling import Compiler

INSIDE: Final = "extended"
"""In the pointer of a task that is extended, before its name."""
_KINDS: Final = ("all", "call", "composite", "emit", "for", "listen", "raise", "run", "set", "switch", "try", "wait")
_COMPOSITE: Final = ("do", "fork")


@dataclass(frozen=True, slots=True)
class Extension:
    """What is said of the tasks of a kind; `part` is where."""

    part: Part
    extends: str

    def concerns(self, kind: str) -> bool:
        """Whether a task of this kind is extended."""
        return self.extends in ("all", kind) or (self.extends == "composite" and kind in _COMPOSITE)


def read(use: Part, problems: Problems) -> tuple[Extension, ...]:
    """The extensions of a document, the outermost first."""
    found = []
    for index, item in enumerate(use.items("extensions")):
        if not isinstance(item, dict) or len(item) != 1:
            problems.add(("use", "extensions", index), "expected an object with one key, the extension's name")
            continue
        [(name, source)] = item.items()
        part = Part(source, ("use", "extensions", index, str(name)), problems, STANDARD)
        part.only(("extend", "when", "before", "after"), required=("extend",))
        found.append(Extension(part, part.one_of("extend", _KINDS, "all")))
    return tuple(found)


def inner_pointer(pointer: str, levels: int) -> str:
    """The pointer of a task inside so many extensions."""
    return pointer + f"/{INSIDE}/{pointer.rpartition('/')[2]}" * levels


def extend(compiler: Compiler, task: Task, extensions: tuple[Extension, ...], pointer: str) -> None:
    """Puts a compiled task into the tasks that extend it, the outermost of which has the pointer of the document.

    Args:
        compiler: Compiles the tasks before and after.
        task: The task, compiled under `inner_pointer`.
        extensions: Those that concern it, the outermost first.
        pointer: Where the task is in the document.
    """
    inner = replace(task, condition=None, then="continue")
    compiler.tasks[task.pointer] = inner
    for level in range(len(extensions) - 1, -1, -1):
        here, part = inner_pointer(pointer, level), extensions[level].part
        lists = {
            key: compiler.list(part.source.get(key) or [], (*part.place, key), f"{here}/{key}", STANDARD)
            for key in ("before", "after")
        }
        own = (inner.pointer,)
        inner = Task(
            here,
            task.name,
            INSIDE,
            task.definition,
            settings={"when": part.condition("when"), "cases": task.settings.get("cases", ())},
            lists={"before": lists["before"], "do": own, "alone": own, "after": lists["after"]},
        )
        compiler.tasks[here] = inner
    compiler.tasks[pointer] = replace(inner, condition=task.condition, then=task.then)
