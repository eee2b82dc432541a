"""What expressions may refer to in which place, checked when a flow is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tierflow_expressions.expressions import Expression, Reference
from tierflow_expressions.scope import names_available, show_path
from tierflow_expressions.templates import CompiledTemplate, compile_template

from tierflow_flow.problems import Place, Problems
from tierflow_flow.scope import CALL_FIELDS, ERROR_FIELDS, LOOP_FIELDS, RUN_FIELDS, STEP_FIELDS


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the flow offers to its expressions."""

    input_names: frozenset[str] | None
    """None where the input may have others than those that its schema names."""
    vars: frozenset[str]
    """Constants, and variables that some step sets."""
    env: frozenset[str]
    set: frozenset[str] = frozenset()
    """Variables that some step sets."""
    secrets: frozenset[str] = frozenset()
    """Names of the secrets that the flow lists."""

    @classmethod
    def of(cls, keys: Mapping[str, Any], set_: frozenset[str]) -> Surroundings:
        """From the flow's keys."""
        schema = keys.get("input", {})
        closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
        names = frozenset(schema.get("properties", {})) if closed else None
        return cls(
            names,
            frozenset(keys.get("vars", {})) | set_,
            frozenset(keys.get("env", ())),
            set_,
            frozenset(keys.get("secrets", ())),
        )


@dataclass(frozen=True, slots=True)
class View:
    """What can be seen from one place in a flow."""

    step: Callable[[str], str]
    """What is wrong with reading the step of this id; empty where nothing is."""
    names: frozenset[str] = frozenset()
    """Of the names that not every place has: those that this one has."""

    def with_names(self, *names: str) -> View:
        """The same with further names."""
        return View(self.step, self.names | set(names))


NORM = View(lambda id_: "", frozenset(("call",)))
"""What norms see."""


@dataclass(frozen=True, slots=True)
class Checker:
    """Compiles templates and checks their references."""

    around: Surroundings
    problems: Problems
    navigator: str = "graph"
    """Of the flow, and of the blocks in it."""
    heartbeat_timeout: int | None = None
    """Of steps that do not say, microseconds."""
    allocation: Mapping[str, int] = field(default_factory=dict)
    """Of attempts of steps that do not say."""

    @classmethod
    def of(cls, keys: Mapping[str, Any], problems: Problems, set_: frozenset[str] = frozenset()) -> Checker:
        """From the flow's keys in normal form."""
        defaults = keys["defaults"]
        return cls(
            Surroundings.of(keys, set_),
            problems,
            keys["navigator"],
            defaults.get("heartbeat_timeout"),
            defaults.get("allocation", {}),
        )

    def template(
        self,
        source: Any,
        place: Place,
        *,
        as_: type[CompiledTemplate] = CompiledTemplate,
        view: View,
        whole: bool = False,
        status: bool = False,
    ) -> CompiledTemplate:
        """Compile the template at `place`.

        Args:
            source: The template.
            place: Where it is.
            as_: The class of the template.
            view: What it can see.
            whole: Whether a string must be one hole and nothing else.
            status: Whether success() and the like are to be had.
        """

        def visit(path: Place, expression: Expression) -> None:
            where = (*place, *path)
            for reference in expression.references:
                problem = self.problem(reference, view)
                if reference.name == "secrets" and not problem and expression.plain is None:
                    problem = "a secret is put in as it is: ${{ secrets.NAME }}, alone or within a text"
                if problem:
                    self.problems.add(where, f"{problem}, in ${{{{ {expression.text} }}}}")
            if expression.status and not status:
                self.problems.add(where, f"{min(expression.status)}() is for if only, in ${{{{ {expression.text} }}}}")

        def report(path: Place, description: str) -> None:
            self.problems.add((*place, *path), description)

        template = compile_template(source, report, visit, as_=as_)
        if whole and isinstance(source, str) and template.expressions and not template.whole:
            self.problems.add(place, "expected one expression and nothing around it")
        return template

    def problem(self, reference: Reference, view: View) -> str:
        """What is wrong with a reference; empty where nothing is."""
        name = reference.name
        if name in ("steps", "env") and "call" in view.names:
            return f"norms do not look at {name}: they see call, run, input and vars"
        if name == "steps":
            return self._steps(reference, view)
        if name == "secrets" and "secrets" in view.names:
            return self._secret(reference)
        if name not in _PLACES:
            return _CHECKS[name](self, reference)
        if name not in view.names:
            return f"{name} is there only {_PLACES[name]}"
        return self._first(reference, _FIELDS.get(name))

    def _steps(self, reference: Reference, view: View) -> str:
        path = reference.path
        if not path or not isinstance(path[0], str):
            return "steps takes the id of a step, written out: steps.id.output"
        if problem := view.step(path[0]):
            return problem
        if len(path) < 2 or path[1] not in STEP_FIELDS:
            return f"{show_path('steps', path[:2])} is not there; a step has: {', '.join(STEP_FIELDS)}"
        return ""

    def _secret(self, reference: Reference) -> str:
        path = reference.path
        if len(path) != 1 or not isinstance(path[0], str):
            return "secrets takes the name of a secret, written out: secrets.NAME"
        if path[0] not in self.around.secrets:
            return f"{show_path('secrets', path)} is not among the flow's secrets: {names_available(sorted(self.around.secrets))}"
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

    def _input(self, reference: Reference) -> str:
        return self._first(reference, self.around.input_names)

    def _vars(self, reference: Reference) -> str:
        return self._first(reference, self.around.vars)

    def _run(self, reference: Reference) -> str:
        return self._first(reference, RUN_FIELDS)


_CHECKS: Mapping[str, Callable[[Checker, Reference], str]] = {
    "env": Checker._env,
    "input": Checker._input,
    "vars": Checker._vars,
    "run": Checker._run,
}

_PLACES: Mapping[str, str] = {
    "item": "under with and within the steps of a map, or of a loop with for",
    "index": "under with and within the steps of a map or loop",
    "loop": "within the steps of a loop, and in its while and until",
    "last_error": "in a step that on_error names, and in then",
    "output": "under with of compensate, and under validate and set",
    "call": "in norms",
    "secrets": "under with of a step that calls a handler",
}
"""Names that not every place has."""
_FIELDS: Mapping[str, tuple[str, ...]] = {"loop": LOOP_FIELDS, "last_error": ERROR_FIELDS, "call": CALL_FIELDS}
