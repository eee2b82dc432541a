"""What is wrong with documents of the Serverless Workflow DSL is told when they are read."""

from __future__ import annotations

import pytest
from tierflow_flow import FlowError, parse

from .documents import HEAD

PROBLEMS = [
    ("do: [{a: {set: {n: '${ .a + }'}}}]", "do[0].a.set.n"),
    ("do: [{a: {set: {n: '${ $nope }'}}}]", "$nope is not there"),
    ("do: [{a: {set: {n: 1}, then: nowhere}}]", "no task 'nowhere'"),
    ("do: [{a: {sett: {n: 1}}}]", "is no task"),
    ("do: [{a: {set: {n: 1}, wait: PT1S}}]", "several tasks at once"),
    ("do: [{a: {wait: P1Y}}]", "no duration"),
    ("do: [{a: {call: grpc, with: {}}}]", "UNSUPPORTED: calls of grpc"),
    ("do: [{a: {run: {container: {image: x}}}}]", "UNSUPPORTED: running containers"),
    ("do: [{a: {raise: {error: gone}}}]", "use.errors has no 'gone'"),
    ("do: [{a: {set: {n: 1}}}, {a: {set: {n: 2}}}]", "two tasks named 'a'"),
    ("do: [{a: {call: f}}]\nuse: {functions: {f: {call: f}}}", "calls itself"),
    ("do: [{a: {for: {in: .x}, do: [{b: {set: {n: '${ $item }'}}}]}}, {c: {set: {n: '${ $item }'}}}]", "$item is not"),
    ("do: [{a: {try: [{b: {wait: PT1S}}], catch: {retry: none}}}]", "use.retries has no 'none'"),
    ("do: [{a: {call: http, with: {method: get, endpoint: 'nowhere'}}}]", "no absolute URI"),
    ("schedule: {cron: '* * * * *'}\ndo: [{a: {wait: PT1S}}]", "UNSUPPORTED: schedules"),
    ("do: [{a: {fork: {branches: []}}}]", "at least one branch"),
    ("do: {a: 1}", "expected a list of tasks"),
]


@pytest.mark.parametrize(("text", "part"), PROBLEMS)
def test_what_is_wrong_is_told_with_its_place(text: str, part: str) -> None:
    """E5: every problem with its path and line, before anything runs; what this version does not do says so."""
    with pytest.raises(FlowError) as caught:
        parse(HEAD + text)
    found = caught.value.problems
    assert any(part in problem.description or part in problem.path for problem in found), found
    assert all(problem.line for problem in found)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """E5: no problem hides another."""
    with pytest.raises(FlowError) as caught:
        parse(HEAD + "do:\n" + "".join(f"  - t{i}: {{set: {{n: '${{ .a + }}'}}, then: x{i}}}\n" for i in range(5)))
    assert len(caught.value.problems) == 10
    assert sorted({problem.line for problem in caught.value.problems}) == [3, 4, 5, 6, 7]
