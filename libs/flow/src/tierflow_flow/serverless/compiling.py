"""From a document's tasks to compiled ones: what all tasks have in common, and lists of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tierflow_expressions.values import kind_of

from tierflow_flow.limits import MAX_STEPS
from tierflow_flow.problems import Place, Problems
from tierflow_flow.serverless import extensions
from tierflow_flow.serverless.program import Task
from tierflow_flow.serverless.reader import Part
from tierflow_flow.serverless.values import Value

COMMON: Final = ("if", "input", "output", "export", "timeout", "then", "metadata")
DIRECTIVES: Final = ("continue", "exit", "end")
_LONGEST_NAME: Final = 200
_DEEPEST: Final = 20


class Compiler:
    """Compiles the tasks of one document; `use` is its section of that name."""

    def __init__(self, use: Part, problems: Problems) -> None:
        self.use = use
        self.problems = problems
        self.tasks: dict[str, Task] = {}
        self.secrets = tuple(name for name in use.items("secrets") if isinstance(name, str))
        self.released: set[str] = set()
        """Secrets that executors fill in, because an authentication uses them by name."""
        self.calling: tuple[str, ...] = ()
        """Functions inside which it is."""
        self.extensions = extensions.read(use, problems)
        self._extending = False
        self._depth = 0

    def list(self, source: Any, place: Place, pointer: str, names: frozenset[str]) -> tuple[str, ...]:
        """The tasks of a list.

        Args:
            source: The list.
            place: Where it is in the text.
            pointer: The pointer that its tasks begin with.
            names: Variables that its expressions may read.
        """
        if not isinstance(source, list):
            self.problems.add(place, f"expected a list of tasks, found {kind_of(source)}")
            return ()
        self._depth += 1
        if self._depth > _DEEPEST:
            self.problems.add(place, f"tasks are nested deeper than {_DEEPEST} levels")
            self._depth -= 1
            return ()
        found: dict[str, Place] = {}
        for index, item in enumerate(source):
            self._item(item, (*place, index), (f"{pointer}/{index}", names), found)
        pointers = tuple(found)
        for inner, there in found.items():
            self._check_then(self.tasks[inner], there, pointers)
        self._depth -= 1
        return pointers

    def _item(self, item: Any, place: Place, where: tuple[str, frozenset[str]], found: dict[str, Place]) -> None:
        if not isinstance(item, dict) or len(item) != 1:
            self.problems.add(place, "expected an object with one key, the task's name")
            return
        [(name, source)] = item.items()
        name = str(name)
        if not 0 < len(name) <= _LONGEST_NAME or "/" in name:
            self.problems.add(place, f"a task's name has 1 to {_LONGEST_NAME} characters, and no slash")
            return
        if any(self.tasks[other].name == name for other in found):
            self.problems.add((*place, name), f"the list has two tasks named {name!r}")
            return
        pointer = f"{where[0]}/{name}"
        if self.task(source, (*place, name), pointer, where[1]):
            found[pointer] = (*place, name)

    def task(self, source: Any, place: Place, pointer: str, names: frozenset[str]) -> bool:
        """Compiles a task; whether there is one."""
        from tierflow_flow.serverless.kinds import KINDS

        part = Part(source, place, self.problems, names)
        kind = self._kind(part, source, place)
        if not kind:
            return False
        if len(self.tasks) >= MAX_STEPS:
            if len(self.tasks) == MAX_STEPS:
                self.problems.add(place, f"more than {MAX_STEPS} tasks")
            return False
        read: Callable[[Compiler, Part, Task], Task] = KINDS[kind]
        around = () if self._extending else tuple(each for each in self.extensions if each.concerns(kind))
        own = extensions.inner_pointer(pointer, len(around))
        bare = Task(own, pointer.rpartition("/")[2], kind, part.source)
        self.tasks[own] = bare
        self.tasks[own] = self._common(part, read(self, part, bare))
        if around:
            self._extending = True
            extensions.extend(self, self.tasks[own], around, pointer)
            self._extending = False
        return True

    def _kind(self, part: Part, source: Any, place: Place) -> str:
        """The key that tells what a task is; empty where there is none, or are several."""
        from tierflow_flow.serverless.kinds import KINDS

        marks = [mark for mark in KINDS if mark in part]
        if "for" in marks and "do" in marks:
            marks.remove("do")
        if len(marks) == 1:
            return marks[0]
        if isinstance(source, dict):
            text = f"is several tasks at once: {', '.join(marks)}"
            self.problems.add(place, text if marks else f"is no task: expected one of {', '.join(KINDS)}")
        return ""

    def _common(self, part: Part, task: Task) -> Task:
        data = self.data(part)
        if "metadata" in part:
            part.part("metadata")
        return replace(task, then=part.text("then", "continue"), timeout=self.timeout(part), **data)

    def data(self, part: Part) -> dict[str, Any]:
        """What is said about the data of a task or of the document."""
        read: dict[str, Any] = {"condition": part.condition("if")}
        for section, key in (("input", "from"), ("output", "as"), ("export", "as")):
            if section not in part:
                continue
            inner = part.part(section)
            inner.only(("schema", key))
            read[f"{section}_{key}"] = inner.shape(key)
            read[f"{section}_schema"] = inner.schema("schema")
        return read

    def timeout(self, part: Part) -> Value | None:
        """A timeout, inline or by name."""
        if "timeout" not in part:
            return None
        if isinstance(part.source["timeout"], str):
            named = self.named("timeouts", part, "timeout")
            return None if named is None else named.duration("after")
        inner = part.part("timeout")
        inner.only(("after",), required=("after",))
        return inner.duration("after")

    def named(self, section: str, part: Part, key: str) -> Part | None:
        """What a name under `use` stands for; None where there is none, which is a problem."""
        name = part.text(key)
        known = self.use.source.get(section, {})
        if isinstance(known, Mapping) and name in known:
            return Part(known[name], ("use", section, name), self.problems, part.names)
        hint = self.problems.hint(name, known) if isinstance(known, Mapping) else ""
        part.wrong(key, f"use.{section} has no {name[:60]!r}{hint}")
        return None

    def _check_then(self, task: Task, place: Place, siblings: tuple[str, ...]) -> None:
        """A directive names the end of something, or a task of the same list."""
        names = [self.tasks[pointer].name for pointer in siblings]
        wanted = [("then", task.then)]
        wanted += [(f"switch.{name}", case_then) for name, _, case_then in task.settings.get("cases", ())]
        for where, then in wanted:
            if then not in DIRECTIVES and then not in names:
                hint = self.problems.hint(then, names)
                self.problems.add(
                    (*place, *where.split(".")[:1]),
                    f"{where}: no task {then[:60]!r} in this list{hint}; or one of {', '.join(DIRECTIVES)}",
                )
