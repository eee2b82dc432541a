"""What is said to people who write what other languages have. See E5."""

from __future__ import annotations

import pytest
from tierflow_flow import FlowError, parse


def problems(text: str) -> list[str]:
    with pytest.raises(FlowError) as caught:
        parse(text)
    return [problem.description for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("uses: actions/checkout", "unknown key; did you mean call?"),
        ("call: h, dependsOn: b", "unknown key; did you mean needs?"),
        ("call: h, when: 1 < 2", "unknown key; did you mean if?"),
        ("call: h, foreach: [1]", "unknown key; did you mean map?"),
        ("call: h, args: {}", "unknown key; did you mean with?"),
        ("call: h, retries: 3", "unknown key; did you mean retry?"),
        ("call: h, continue-on-error: true", "unknown key; did you mean on_error?"),
        ("call: h, zzz: 1", "unknown key"),
        ("call: h, if: size(f(1, 2)) == 0", "unknown key; put what has commas in quotes, within braces and brackets"),
        (
            "call: h, retry: 3",
            "expected a mapping, found an integer; its keys: max_attempts, initial_delay, factor, max_delay, ...",
        ),
        (
            "call: h, timeout: 30",
            "expected a duration such as 500ms, 30s, 10m or 1h30m, found an integer; did you mean 30s?",
        ),
        ("call: h, needs: 'b, c'", "'b, c' is one text; several are a list: [b, c]"),
        ("call: h, if: 1 = 2", "unexpected character '='; == compares (at character 7 of '${{ 1 = 2 }}')"),
        ("call: h, if: true and false", "unexpected 'and'; write && (at character 10 of '${{ true and false }}')"),
        (
            "call: h, if: 'len([1]) > 0'",
            "unknown function len(); did you mean size? (at character 5 of '${{ len([1]) > 0 }}')",
        ),
    ],
)
def test_a_step_with_words_from_elsewhere(step: str, expected: str) -> None:
    """E5: the message names what it is called here."""
    assert expected in problems(f"name: f\nsteps:\n  a: {{{step}}}\n")


def test_a_flow_with_words_from_elsewhere() -> None:
    """E5: keys of the flow as well; names in expressions; tabs."""
    assert "unknown key; did you mean steps?" in problems("name: f\njobs: {}\n")
    [unknown] = problems("name: f\nsteps: {a: {call: h, with: {x: '${{ b.output }}'}}}\n")
    assert "; a step is read as steps.id.output" in unknown
    [brackets] = problems("name: f\nsteps:\n  a: {call: h, if: size([1]) > 0}\n")
    assert brackets.endswith("; put expressions with ': ', ' #', braces or brackets in quotes")
    [tabs] = problems("name: f\nsteps:\n\ta: {call: h}\n")
    assert tabs.endswith("; indent with spaces, not with tabs")
