"""Texts that are too large, too deep or too costly, and answers that would be."""

from __future__ import annotations

import re

import pytest
from tierflow_expressions.holes import _split
from tierflow_flow import FlowError, Problem, parse
from tierflow_flow.limits import MAX_STEPS

ONE = "name: f\nsteps:\n  a: {call: echo}\n"
"""A flow without problems; lines are added."""


def problems(text: str) -> list[Problem]:
    """What is wrong with a text."""
    with pytest.raises(FlowError) as caught:
        parse(text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("x" * ((1 << 20) + 1), "larger than 1048576 bytes"),
        ("é" * (1 << 19) + "é", "larger than 1048576 bytes"),
        ("name: f\nvars: " + "[" * 70 + "]" * 70, "nested deeper than 64 levels"),
        ("[" * 500_000, "nested deeper than 64 levels"),
        ("{a: " * 200_000, "nested deeper than 64 levels"),
        ("- " * 500_000, "nested deeper than 64 levels"),
        ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)), "more than 400000 values"),
        ("a: &a " + "x" * 100_000 + "\nb: [" + ",".join(["*a"] * 100) + "]", "more than 4194304 characters"),
        ("a: &a {" + "k" * 1000 + ": 1}\nb: [" + ",".join(["*a"] * 10_000) + "]", "more than 4194304 characters"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, "nested deeper than 64 levels"),
        ("name: f\nsteps:\n" + "".join(f"  s{i}: {{call: x}}\n" for i in range(MAX_STEPS + 1)), f"{MAX_STEPS + 1} steps; at most {MAX_STEPS}"),
    ],
    ids=["bytes", "utf-8", "deep", "open [", "open {", "open -", "laughs", "long alias", "long key", "deep alias", "steps"],
)  # fmt: skip
def test_text_that_is_too_large_is_refused(text: str, description: str) -> None:
    """R5, Lesson 27: size, depth and number are bounded before anything is built, aliases with all that they stand for."""
    assert description in problems(text)[0].description


def test_what_is_too_large_when_written_in_full_is_refused() -> None:
    """Lesson 27: the definition that is stored and sent has a bound of its own."""
    text = f"name: f\nsteps:\n  s: {{call: x, with: &w {{a: {'x' * 400}}}}}\n"
    text += "".join(f"  s{i}: {{call: x, with: *w}}\n" for i in range(8_000))
    assert "larger than 3145728 bytes when written in full" in problems(text)[0].description


def test_problems_are_many_but_bounded() -> None:
    """E5: a thousand are told, the rest is counted."""
    found = problems("name: f\nsteps:\n" + "".join(f"  s{i}: {{cal: x}}\n" for i in range(5_000)))
    assert len(found) == 1001
    assert re.fullmatch(r"9000 more problems", found[-1].description)


def test_wrong_text_that_is_repeated_by_aliases_is_looked_at_once() -> None:
    """Lesson 27: a few bytes cannot cost minutes: eight thousand aliases of one wrong expression are one parse."""
    wrong = "${{ " + "+".join(["1"] * 90) + " + }}"
    before = _split.cache_info().misses
    found = problems(f"{ONE}output: [&a '{wrong}', {', '.join(['*a'] * 8_000)}]\n")
    assert _split.cache_info().misses == before + 1
    assert [problem.path for problem in found[1:1000]] == [f"output[{i}]" for i in range(1, 1000)]


def test_messages_are_bounded() -> None:
    """Lesson 27: a thousand problems fit into one answer, however long names and places are."""
    deep = (
        "{"
        + "k" * 90
        + ": "
        + "{"
        + "l" * 90
        + ": "
        + "{"
        + "m" * 90
        + ": ['${{ input }', '${{ "
        + "v" * 4000
        + " }}'"
        + "]}}}"
    )
    found = problems(f"{ONE}output: {deep}\n{'n' * 900}: 1\n")
    assert len(found) == 3
    assert all(len(problem.path) <= 310 and len(problem.description) <= 610 for problem in found)
