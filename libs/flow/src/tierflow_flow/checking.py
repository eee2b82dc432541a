"""What expressions may refer to in which place, checked when a flow is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tierflow_flow.expressions import Expression, Reference
from tierflow_flow.problems import Place, Problems
from tierflow_flow.scope import CALL_FIELDS, RUN_FIELDS, STEP_FIELDS, names_available, show_path
from tierflow_flow.templates import CompiledTemplate, compile_template


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the flow offers to its expressions."""

    steps: frozenset[str]
    input_names: frozenset[str] | None
    """None where the input may have others than those that its schema names."""
    vars: frozenset[str]
    env: frozenset[str]

    @classmethod
    def of(cls, keys: Mapping[str, Any], steps: frozenset[str]) -> Surroundings:
        """From the flow's keys."""
        schema = keys.get("input", {})
        closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        names = frozenset(schema.get("properties", {})) if closed else None
        return cls(steps, names, frozenset(keys.get("vars", {})), frozenset(keys.get("env", ())))


@dataclass(frozen=True, slots=True)
class Checker:
    """Compiles templates and checks their references."""

    around: Surroundings
    problems: Problems

    def template(
        self,
        source: Any,
        place: Place,
        *,
        as_: type[CompiledTemplate] = CompiledTemplate,
        whole: bool = False,
        item: bool = False,
        status: bool = False,
        norm: bool = False,
    ) -> CompiledTemplate:
        """Compile the template at `place`.

        Args:
            source: The template.
            place: Where it is.
            as_: The class of the template.
            whole: Whether a string must be one hole and nothing else.
            item: Whether item and index are to be had.
            status: Whether success() and the like are to be had.
            norm: Whether it is a norm's: call is to be had, steps are not.
        """

        def visit(path: Place, expression: Expression) -> None:
            where = (*place, *path)
            for reference in expression.references:
                if problem := self.problem(reference, item=item, norm=norm):
                    self.problems.add(where, f"{problem}, in ${{{{ {expression.text} }}}}")
            if expression.status and not status:
                self.problems.add(where, f"{min(expression.status)}() is for if only, in ${{{{ {expression.text} }}}}")

        def report(path: Place, description: str) -> None:
            self.problems.add((*place, *path), description)

        template = compile_template(source, report, visit, as_=as_)
        if whole and isinstance(source, str) and template.expressions and not template.whole:
            self.problems.add(place, "expected one expression and nothing around it")
        return template

    def problem(self, reference: Reference, *, item: bool, norm: bool = False) -> str:
        """What is wrong with a reference; empty where nothing is."""
        if norm and reference.name in ("steps", "env"):
            return f"norms do not look at {reference.name}: they see call, run, input and vars"
        if reference.name in ("item", "index"):
            return "" if item else f"{reference.name} is there only under with of a map"
        if reference.name == "call" and not norm:
            return "call is there only in norms"
        return _CHECKS[reference.name](self, reference)

    def _steps(self, reference: Reference) -> str:
        path = reference.path
        if not path or not isinstance(path[0], str):
            return "steps takes the id of a step, written out: steps.id.output"
        if path[0] not in self.around.steps:
            return f"unknown step {path[0]!r}{self.problems.hint(path[0], self.around.steps)}"
        if len(path) < 2 or path[1] not in STEP_FIELDS:
            return f"{show_path('steps', path[:2])} is not there; a step has: {', '.join(STEP_FIELDS)}"
        return ""

    def _env(self, reference: Reference) -> str:
        path = reference.path
        if len(path) != 1 or not isinstance(path[0], str):
            return "env takes the name of a variable, written out: env.NAME"
        if path[0] not in self.around.env:
            return f"{show_path('env', path)} is not among the flow's env: {names_available(sorted(self.around.env))}"
        return ""

    def _first(self, reference: Reference, known: frozenset[str] | tuple[str, ...] | None) -> str:
        if not reference.path or known is None or reference.path[0] in known:
            return ""
        first = reference.path[0]
        hint = self.problems.hint(first, known) if isinstance(first, str) else ""
        return f"{show_path(reference.name, (first,))} is not there; {reference.name} has: {names_available(sorted(known))}{hint}"

    def _call(self, reference: Reference) -> str:
        return self._first(reference, CALL_FIELDS)

    def _input(self, reference: Reference) -> str:
        return self._first(reference, self.around.input_names)

    def _vars(self, reference: Reference) -> str:
        return self._first(reference, self.around.vars)

    def _run(self, reference: Reference) -> str:
        return self._first(reference, RUN_FIELDS)


_CHECKS: Mapping[str, Callable[[Checker, Reference], str]] = {
    "steps": Checker._steps,
    "call": Checker._call,
    "env": Checker._env,
    "input": Checker._input,
    "vars": Checker._vars,
    "run": Checker._run,
}
