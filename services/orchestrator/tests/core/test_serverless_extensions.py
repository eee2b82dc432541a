"""Extensions of documents: tasks before and after others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tierflow_flow import FlowError, parse

from .documents import HEAD, Doc

AROUND = """
use:
  extensions:
    - noted:
        extend: call
        when: $task.definition.call == "h"
        before: [{tell: {call: note, with: {of: '${ .n }'}}}]
        after: [{told: {call: note, with: {gave: '${ . }'}}}]
do:
  - one: {call: h, with: {n: '${ .n }'}, output: {as: '{m: .}'}}
  - other: {call: g, with: {m: '${ .m }'}}
"""


def given(it: Doc, step_id: str) -> Any:
    """What a step's handler was given."""
    return json.loads(str(it.run.steps[step_id].input))


def test_before_and_after() -> None:
    """E2: they see what goes in and what comes out, and change neither; where `when` is false, the task is alone."""
    it = Doc(AROUND, {"n": 1})
    it.complete("/do/0/one/before/0/tell", '"ignored"')
    assert given(it, "/do/0/one/before/0/tell") == {"of": 1}
    assert given(it, "/do/0/one/extended/one") == {"n": 1}
    it.complete("/do/0/one/extended/one", "5")
    assert given(it, "/do/0/one/after/0/told") == {"gave": {"m": 5}}
    it.complete("/do/0/one/after/0/told", '"ignored"')
    assert given(it, "/do/1/other/extended/other") == {"m": 5}
    it.complete("/do/1/other/extended/other", "6")
    assert it.output == 6
    assert "/do/1/other/before/0/tell" not in it.run.steps


def test_exit_leaves_what_is_extended() -> None:
    """E2: what a task before it gave stands for the task, which is not performed."""
    it = Doc(
        """
        use: {extensions: [{mock: {extend: call, before: [{answer: {set: {a: 1}, then: exit}}]}}]}
        do: [{one: {call: h}}, {two: {set: {got: '${ .a }'}}}]
        """
    )
    assert it.output == {"got": 1}


def test_errors_and_directions_are_the_tasks_own() -> None:
    """E2, E5: a switch says where it goes on, an error where in the text it arose, however many extensions there are."""
    it = Doc(
        """
        use: {extensions: [{a: {extend: all}}, {b: {extend: switch, after: [{x: {set: {}}}]}}, {c: {extend: composite}}]}
        do:
          - way: {switch: [{yes: {when: .n == 1, then: last}}]}
          - no: {set: {n: 0}}
          - last: {do: [{bad: {raise: {error: {type: 'https://a.b/c', status: 400}}}}]}
        """,
        {"n": 1},
    )
    assert it.error["instance"] == "/do/2/last/do/0/bad"
    assert not any("/no" in step_id for step_id in it.run.steps)


def test_an_error_before_it_is_caught_as_its_own() -> None:
    """E2: what fails before it is caught around it."""
    it = Doc(
        """
        use: {extensions: [{a: {extend: call, before: [{no: {raise: {error: {type: 'https://a.b/c', status: 400}}}}]}}]}
        do: [{t: {try: [{one: {call: h}}], catch: {do: [{n: {set: {caught: '${ $error.status }'}}}]}}}]
        """
    )
    assert it.output == {"caught": 400}


@pytest.mark.parametrize(
    ("extension", "part"),
    [
        ("{a: {before: []}}", "extend is missing"),
        ("{a: {extend: calls}}", "is not one of all, call"),
        ("{a: {extend: call, before: [{x: {sett: {}}}]}}", "is no task"),
        ("1", "one key, the extension's name"),
    ],
)
def test_what_is_wrong_with_one(extension: str, part: str) -> None:
    """E5: it is told with its place."""
    with pytest.raises(FlowError) as caught:
        parse(HEAD + f"use: {{extensions: [{extension}]}}\ndo: [{{one: {{call: h}}}}]")
    assert any(part in problem.description for problem in caught.value.problems), caught.value.problems
