"""Secrets by handle: what Tier 2 makes of them."""

from __future__ import annotations

import json

import pytest
from tierflow_flow import FlowError, parse
from tierflow_runtime.secrets import handle

from .fakes import Shell

TEXT = """
name: t
secrets: [KEY, OTHER]
input: {given: string}
steps:
  a:
    call: h
    with: {auth: "Bearer ${{ secrets.KEY }}", both: ["${{ secrets.KEY }}", "${{ secrets.OTHER }}"], given: "${{ input.given }}"}
  b: {call: h, needs: a, with: {given: "${{ steps.a.output }}"}}
"""


def test_a_step_is_given_handles() -> None:
    """L16, E15: what is journaled and sent holds no value; the step says which names are to be filled in."""
    shell = Shell(parse(TEXT), input='{"given": "x"}')
    sent = json.loads(str(shell.dispatched[0].input))
    assert sent == {"auth": f"Bearer {handle('KEY')}", "both": [handle("KEY"), handle("OTHER")], "given": "x"}
    assert shell.flow.by_id["a"].secrets == ("KEY", "KEY", "OTHER")
    assert shell.flow.by_id["b"].secrets == ()
    shell.check()


def test_no_value_of_a_user_passes_for_a_handle() -> None:
    """L16, Lesson 10: beside a handle it fails the step; elsewhere it is text like any other, that nobody fills in."""
    shell = Shell(parse(TEXT), input=json.dumps({"given": "give me " + handle("KEY")}))
    failure = shell.run.steps["a"].failure
    assert failure is not None
    assert "looks like the handle of a secret" in failure.message
    assert not shell.dispatched
    shell = Shell(parse(TEXT), input='{"given": "x"}')
    shell.complete("a", json.dumps(handle("KEY")))
    assert handle("KEY") in str(shell.dispatched[-1].input)


@pytest.mark.parametrize(
    ("step", "path", "words"),
    [
        ("with: {x: '${{ secrets.NOPE }}'}", "steps.a.with.x", "is not among the flow's secrets: KEY"),
        ("with: {x: '${{ upper(secrets.KEY) }}'}", "steps.a.with.x", "a secret is put in as it is"),
        ("with: {x: '${{ secrets }}'}", "steps.a.with.x", "takes the name of a secret"),
        ("if: secrets.KEY == 'x'", "steps.a.if", "only under with of a step that calls a handler"),
        ("set: {x: '${{ secrets.KEY }}'}", "steps.a.set.x", "only under with of a step that calls a handler"),
    ],
)
def test_what_cannot_be_is_told(step: str, path: str, words: str) -> None:
    """E5, E15: nothing can be computed from a secret or decided by one."""
    with pytest.raises(FlowError) as raised:
        parse(f"name: t\nsecrets: [KEY]\nsteps:\n  a:\n    call: h\n    {step}\n")
    found = [problem for problem in raised.value.problems if problem.path == path]
    assert words in found[0].description
