"""What a handler returned, against the step's schema and rules (F20)."""

from __future__ import annotations

from typing import Any

from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import walk
from tierflow_flow.definition import Rule, StepSpec
from tierflow_runtime.values import Failure, Payload, Violation

from tierflow_orchestrator.core import failures
from tierflow_orchestrator.core.payloads import INLINE_BYTES, violations
from tierflow_orchestrator.core.run import Run
from tierflow_orchestrator.core.scope import Path, RunScope, parse, text_of, write
from tierflow_orchestrator.core.step import Step, Variable
from tierflow_orchestrator.core.verdicts import Found as Found


class OutputScope:
    """A scope with `output` on top: what the step itself has returned."""

    __slots__ = ("_output", "_scope")

    def __init__(self, scope: RunScope, output: Any) -> None:
        self._scope = scope
        self._output = output

    def lookup(self, name: str, path: Path) -> Any:
        """As below, and `output`."""
        return walk(self._output, path, name) if name == "output" else self._scope.lookup(name, path)

    def raw(self, name: str, path: Path) -> str | None:
        """As below."""
        return None if name == "output" else self._scope.raw(name, path)


def check(run: Run, step: Step, spec: StepSpec, output: Payload | None) -> Found:
    """Checks an output against schema and rules; rules are looked at only where the schema is kept."""
    try:
        value = parse(text_of(run, output))
    except ExpressionError as error:
        return Found(_invalid(step, f"The output of {step.id}: {error}"))
    found = violations(spec.output_schema, value, "output") if spec.output_schema is not None else ()
    if found:
        return Found(_invalid(step, f"The output of {step.id} does not match its schema.", violations=found))
    return _rules(step, spec, OutputScope(RunScope(run, step), value)) if spec.rules else Found()


def _rules(step: Step, spec: StepSpec, scope: OutputScope) -> Found:
    broken = [(index, rule, told) for index, rule in enumerate(spec.rules) if (told := _broken(rule, scope))]
    warnings = tuple(told for _, rule, told in broken if rule.on_fail == "warn")
    found = tuple(
        Violation(field=f"validate[{index}]", description=told)
        for index, rule, told in broken
        if rule.on_fail != "warn"
    )
    if not found:
        return Found(warnings=warnings)
    final = any(rule.on_fail == "fail" for _, rule, _ in broken)
    message = f"The output of {step.id} breaks {len(found)} of its rules: {found[0].description}"
    return Found(_invalid(step, message, retryable=not final, violations=found))


def _broken(rule: Rule, scope: OutputScope) -> str:
    """What is wrong; empty where the rule is kept."""
    try:
        return "" if rule.condition.resolve(scope) is True else rule.message
    except ExpressionError as error:
        return f"{rule.message} ({error})"


def _invalid(step: Step, message: str, *, retryable: bool = True, violations: tuple[Violation, ...] = ()) -> Failure:
    return failures.of_step(step, "OUTPUT_INVALID", message, "check", retryable=retryable, violations=violations)


def assigned(run: Run, step: Step, output: Payload | None) -> tuple[Variable, ...]:
    """The variables that a step sets which has this output. Raises `ExpressionError`."""
    sets = run.spec(step).sets
    if sets is None:
        return ()
    found = sets.resolve(OutputScope(RunScope(run, step), parse(text_of(run, output))))
    texts = {name: write(value) for name, value in found.items()}
    for name, text in texts.items():
        if len(text) * 4 > INLINE_BYTES and len(text.encode()) > INLINE_BYTES:
            raise ExpressionError(f"{name} would have more than {INLINE_BYTES} bytes; a variable is small")
    return tuple(Variable(name, text) for name, text in texts.items())
