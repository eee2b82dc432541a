"""The core with the real flow language: conditions, references, scopes."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from tierflow_expressions.errors import ExpressionError
from tierflow_flow import parse
from tierflow_orchestrator.core.events import StepFailed, StepSkipped
from tierflow_orchestrator.core.scope import RunScope
from tierflow_runtime.values import Context

from .fakes import RUN_ID, START, Shell


def shell_of(text: str, **more: object) -> Shell:
    return Shell(parse("name: t\n" + text, "yaml"), **more)


def last_input(shell: Shell, step_id: str) -> object:
    return json.loads(next(str(d.input) for d in reversed(shell.dispatched) if d.step_id == step_id))


# needed step's fate, condition of the dependant, what becomes of the dependant
TRUTH = [
    ("completed", None, "SCHEDULED"),
    ("completed", "true", "SCHEDULED"),
    ("completed", "false", "SKIPPED"),
    ("completed", "success()", "SCHEDULED"),
    ("completed", "failure()", "SKIPPED"),
    ("completed", "always()", "SCHEDULED"),
    ("completed", "always() && false", "SKIPPED"),
    ("completed", "steps.a.output.n > 1", "SCHEDULED"),
    ("completed", "steps.a.output.n > 2", "SKIPPED"),
    ("completed", "cancelled()", "SKIPPED"),
    ("failed", None, "SKIPPED"),
    ("failed", "true", "SKIPPED"),
    ("failed", "success()", "SKIPPED"),
    ("failed", "failure()", "SCHEDULED"),
    ("failed", "failure() && steps.a.failure.code == 'TIMEOUT'", "SCHEDULED"),
    ("failed", "always()", "SCHEDULED"),
    ("failed", "steps.a.state == 'FAILED'", "SKIPPED"),
    ("failed", "always() && steps.a.state == 'FAILED'", "SCHEDULED"),
    ("tolerated", None, "SCHEDULED"),
    ("tolerated", "true", "SCHEDULED"),
    ("tolerated", "success()", "SCHEDULED"),
    ("tolerated", "failure()", "SKIPPED"),
    ("tolerated", "steps.a.outcome == 'FAILURE'", "SCHEDULED"),
    ("skipped", None, "SKIPPED"),
    ("skipped", "true", "SKIPPED"),
    ("skipped", "failure()", "SKIPPED"),
    ("skipped", "always()", "SCHEDULED"),
    ("after failed", "failure()", "SCHEDULED"),
    ("after failed", None, "SKIPPED"),
]


@pytest.mark.parametrize(("fate", "condition", "state"), TRUTH)
def test_conditions(fate: str, condition: str | None, state: str) -> None:
    """E10, Lesson 3: the truth table of conditions, and what becomes of dependants of what failed or was skipped."""
    on_error = "continue" if fate == "tolerated" else "stop"
    given = f", if: '{condition}'" if condition else ""
    given = given.replace("'TIMEOUT'", '"TIMEOUT"').replace("'FAILED'", '"FAILED"').replace("'FAILURE'", '"FAILURE"')
    first = {"skipped": "a: {call: h, if: 'false'}", "after failed": "z: {call: h}\n  a: {call: h, needs: z}"}.get(
        fate, f"a: {{call: h, on_error: {on_error}}}"
    )
    shell = shell_of(f"on_failure: continue\nsteps:\n  {first}\n  b: {{call: h, needs: a{given}}}\n")
    if fate == "completed":
        shell.complete("a", '{"n": 2}')
    elif fate in ("failed", "tolerated"):
        shell.fail("a", "TIMEOUT")
    elif fate == "after failed":
        shell.fail("z")
    assert shell.state("b") == state
    shell.check()


def test_skipping_goes_on() -> None:
    """E10: what depends on a skipped step is skipped in turn, to the end; the run completes."""
    shell = shell_of("steps:\n  a: {call: h, if: 'false'}\n  b: {call: h, needs: a}\n  c: {call: h, needs: b}\n")
    assert shell.run.state == "COMPLETED"
    assert [(e.step_id, e.reason) for e in shell.events(StepSkipped)] == [
        ("a", "its condition is false"),
        ("b", "needs a, which is SKIPPED"),
        ("c", "needs b, which is SKIPPED"),
    ]
    assert json.loads(str(shell.run.output)) == {"c": None}


def test_condition_that_cannot_be_evaluated() -> None:
    """E10, E15: an error in a condition fails the step; it is never taken for true or false."""
    shell = shell_of("steps:\n  a: {call: h}\n  b: {call: h, if: 'steps.a.output.missing == 1'}\n")
    shell.complete("a", "{}")
    (failed,) = shell.events(StepFailed)
    assert (failed.step_id, failed.failure.code) == ("b", "EXPRESSION_FAILED")
    assert "missing" in failed.failure.message
    assert shell.run.state == "FAILED"


def test_names() -> None:
    """E15, L1: every name of the scope; environment only as far as the flow lists it."""
    text = """
vars: {limit: 3}
env: [REGION]
steps:
  a: {call: h}
  m:
    map: ${{ input.items }}
    call: h
    with: {item: "${{ item.n }}", whole: "${{ item }}", index: "${{ index }}", a: "${{ steps.a.output.x }}"}
  b:
    call: h
    needs: m
    with:
      input: ${{ input.items[1].n }}
      var: ${{ vars.limit + 1 }}
      env: ${{ env.REGION }}
      state: ${{ steps.a.state }}
      outcome: ${{ steps.a.outcome }}
      run: ${{ run.id }}
      labels: ${{ run.labels.team }}
      created: ${{ run.created_at }}
      text: "by ${{ run.user_id }} of ${{ run.tenant }}, ${{ run.flow }}"
      outputs: ${{ steps.m.output }}
      second: ${{ steps.m.output[1] }}
"""
    context = Context(tenant="acme", user_id="ann", swarm_id="s", run_id=RUN_ID, labels={"team": "red"})
    shell = Shell(
        parse("name: t\n" + text, "yaml"), input='{"items": [{"n": 7}, {"n": 12345678901234567890}]}', context=context
    )
    shell.run.environment = {"REGION": "eu", "SECRET": "x"}
    shell.complete("a", '{"x": true}')
    assert last_input(shell, "m[0]") == {"item": 7, "whole": {"n": 7}, "index": 0, "a": True}
    assert last_input(shell, "m[1]") == {
        "item": 12345678901234567890,
        "whole": {"n": 12345678901234567890},
        "index": 1,
        "a": True,
    }
    shell.complete("m[0]", '"first"')
    shell.complete("m[1]", '"second"')
    assert last_input(shell, "b") == {
        "input": 12345678901234567890,
        "var": 4,
        "env": "eu",
        "state": "COMPLETED",
        "outcome": "SUCCESS",
        "run": RUN_ID,
        "labels": "red",
        "created": START + 1,
        "text": "by ann of acme, t",
        "outputs": ["first", "second"],
        "second": "second",
    }
    shell.check()


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("input.nothing", "input.nothing is not there"),
        ("env.REGION", "env.REGION is not set"),
        ("steps.a.output.x.y", "steps.a.output.x"),
        ("steps.skipped.output.x", "null"),
    ],
)
def test_references_that_lead_nowhere(reference: str, words: str) -> None:
    """E15: an error that says what is missing, not silent text."""
    shell = shell_of(
        "env: [REGION]\nsteps:\n  a: {call: h}\n  skipped: {call: h, if: 'false'}\n"
        f"  b: {{call: h, needs: [a, skipped], if: 'always()', with: {{v: '${{{{ {reference} }}}}'}}}}\n"
    )
    shell.complete("a", '{"x": 1}')
    failure = shell.run.steps["b"].failure
    assert failure is not None
    assert failure.code == "EXPRESSION_FAILED"
    assert words in failure.message


def test_items_that_are_no_array() -> None:
    """E15: a map over something else fails with the reason."""
    shell = shell_of("steps:\n  m: {map: '${{ input.n }}', call: h}\n", input='{"n": 5}')
    assert shell.run.steps["m"].failure.code == "EXPRESSION_FAILED"  # type: ignore[union-attr]
    assert shell.run.state == "FAILED"


def test_items_are_evaluated_again_after_a_restart() -> None:
    """K7: the items of a map are not in the journal; a run that was loaded finds them again."""
    shell = shell_of(
        "steps:\n  a: {call: h}\n  m: {map: '${{ steps.a.output }}', concurrency: 1, call: h, with: {v: '${{ item }}'}}\n"
    )
    shell.complete("a", "[10, 11]")
    shell.run = shell.folded()
    shell.complete("m[0]")
    assert last_input(shell, "m[1]") == {"v": 11}
    shell.complete("m[1]")
    assert shell.run.state == "COMPLETED"


def test_branches_share_the_context() -> None:
    """E8: 100 branches over a context of 1 MB take less than 5 MB more."""
    text = "steps:\n  m: {map: '${{ input.items }}', call: h, with: {doc: '${{ input.doc }}', i: '${{ index }}'}}\n"
    document = json.dumps({"items": list(range(100)), "doc": "x" * 1_000_000})
    flow = parse("name: t\n" + text, "yaml")
    shell = Shell(flow, auto=False, input=document)
    shell.blobs = _Forgetful()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    shell.assign()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert shell.run.in_flight == 100
    assert after - before < 5_000_000


class _Forgetful(dict):  # type: ignore[type-arg]
    """The blob store: what is given to it is in the database, not in memory."""

    def update(self, *args: object, **more: object) -> None:
        return None


def test_environment_is_closed() -> None:
    """E15: a scope refuses what the flow does not list, should an expression ever ask for it."""
    shell = shell_of("env: [REGION]\nsteps: {a: {call: h}}\n")
    shell.run.environment = {"REGION": "eu", "SECRET": "x"}
    scope = RunScope(shell.run)
    assert scope.lookup("env", ()) == {"REGION": "eu"}
    with pytest.raises(ExpressionError, match="SECRET is not in the flow's list"):
        scope.lookup("env", ("SECRET",))
