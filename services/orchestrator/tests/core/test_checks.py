"""Inputs and outputs of steps, against schemas and rules."""

from __future__ import annotations

import json

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core import decide, missing_blobs
from tierflow_orchestrator.core.commands import AssignSlot, ReportResult
from tierflow_runtime.values import BlobRef

from .fakes import Shell

RULES = """
name: t
defaults: {retry: {max_attempts: 2, initial_delay: 1s}}
vars: {most: 10}
steps:
  a:
    call: h
    output_schema: {type: object}
    validate:
      - output.n < vars.most
      - {rule: "output.n != 5", message: Five is bad luck., on_fail: fail}
      - {rule: "output.n > 1", message: One is few., on_fail: warn}
      - {rule: "has(output.m) || output.n != 7", message: Seven needs m., on_fail: warn}
"""


@pytest.mark.parametrize(
    ("output", "state", "told"),
    [
        ({"n": 3}, "COMPLETED", []),
        ({"n": 0}, "COMPLETED", ["One is few."]),
        ({"n": 7}, "COMPLETED", ["Seven needs m."]),
        ({"n": 10}, "BACKOFF", ["does not keep the rule output.n < vars.most"]),
        ({"n": 5}, "FAILED", ["Five is bad luck."]),
        ({"x": 5}, "FAILED", ["does not keep the rule output.n < vars.most", "Five is bad luck."]),
        ([], "BACKOFF", ['[] is not of type "object"']),
    ],
)
def test_rules_for_outputs(output: object, state: str, told: list[str]) -> None:
    """F20: a rule that is not kept fails the attempt, for good or to be tried again, or is noted; all of them are told."""
    shell = Shell(parse(RULES))
    shell.complete("a", json.dumps(output))
    step = shell.run.steps["a"]
    assert step.state == state
    if state == "COMPLETED":
        assert list(step.warnings) == told
    else:
        failure = step.failure
        assert failure is not None
        assert failure.code == "OUTPUT_INVALID"
        assert len(failure.violations) == len(told)
        for violation, words in zip(failure.violations, told, strict=True):
            assert violation.description.startswith(words)
            assert violation.field.startswith("validate[") or violation.field == "output"
    shell.check()


def test_items_are_checked_one_by_one() -> None:
    """F20: their rules see their item."""
    rule = "{rule: output == item * 2, message: wrong, on_fail: fail}"
    text = f"name: t\nsteps: {{m: {{map: [1, 2], call: h, tolerate: 1, with: {{i: '${{{{ item }}}}'}}, validate: [{rule}]}}}}"
    shell = Shell(parse(text))
    shell.complete("m[0]", "2")
    shell.complete("m[1]", "5")
    assert (shell.state("m[0]"), shell.state("m[1]"), shell.run.outcome) == ("COMPLETED", "FAILED", "PARTIAL")


def test_a_stored_output_is_read_before_its_rules() -> None:
    """R33, F20: a large value is at hand when it is looked into."""
    shell = Shell(parse("name: t\nsteps: {a: {call: h, validate: [size(output) > 3]}}"))
    ref = BlobRef(sha256="a" * 64, size=100_000)
    report = ReportResult(attempt_id=shell.attempt_id("a"), state="COMPLETED", output=ref)
    assert missing_blobs(shell.run, report) == [ref.sha256]
    shell.run.contents[ref.sha256] = "[1, 2, 3, 4]"
    shell.tell(report)
    assert shell.run.state == "COMPLETED"


SCHEMA = json.dumps({"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]})


@pytest.mark.parametrize(
    ("given", "field"), [("{amount: 1.5}", ""), ("{amount: abc}", "input.amount"), ("{}", "input"), ("", "input")]
)
def test_inputs_are_compared_with_the_handlers_schema_before_dispatch(given: str, field: str) -> None:
    """B2, L7, F20: the step fails typed, with the path, and no attempt is made."""
    shell = Shell(parse(f"name: t\nsteps: {{a: {{call: h, with: {given or '{}'}}}}}"), auto=False)
    decide(shell.run, AssignSlot(step_id="a", executor_id="e", input_schema=SCHEMA), shell.now)
    if not field:
        assert shell.state("a") == "SCHEDULED"
        return
    failure = shell.run.steps["a"].failure
    assert failure is not None
    assert (failure.code, failure.retryable, shell.run.attempts) == ("INPUT_INVALID", False, 0)
    assert [violation.field for violation in failure.violations] == [field]


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ("validate: []", "steps.a.validate", "from 1 to 100 rules"),
        ("validate: [{message: x}]", "steps.a.validate[0]", "rule is missing"),
        ("validate: [{rule: output.x, on_fail: warm}]", "steps.a.validate[0].on_fail", "did you mean warn"),
        ("validate: ['outputs.x']", "steps.a.validate[0].rule", "did you mean output"),
        (
            "with: {x: '${{ output.x }}'}",
            "steps.a.with.x",
            "output is there only under with of compensate, and under validate",
        ),
        ("validate: ['steps.a.output == 1']", "steps.a", "cycle: a -> a"),
    ],
)
def test_what_cannot_be_is_told(keys: str, path: str, words: str) -> None:
    """E5, E15: with path, line and hint."""
    with pytest.raises(Exception, match="steps") as raised:
        parse(f"name: t\nsteps:\n  a:\n    call: h\n    {keys}\n")
    (problem,) = raised.value.problems  # type: ignore[attr-defined]
    assert problem.path == path
    assert words in problem.description
    assert problem.line in (3, 5)
