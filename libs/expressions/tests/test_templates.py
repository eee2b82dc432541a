"""Values with holes: types, interpolation, JSON text, what they read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_expressions.errors import ExpressionError
from tierflow_expressions.scope import PlainScope, walk
from tierflow_expressions.templates import CompiledTemplate, ConditionTemplate, ItemsTemplate, compile_template

SCOPE = PlainScope(
    {
        "input": {"name": "Ann", "n": 3, "none": None, "list": [1, "a"], "quote": 'say "hi"\n'},
        "steps": {"fetch-page": {"output": {"files": [{"name": "x"}]}, "state": "COMPLETED"}},
        "vars": {"big": 123456789012345678901234567890},
    }
)


def template(source: Any, as_: type[CompiledTemplate] = CompiledTemplate) -> CompiledTemplate:
    """A template without problems."""
    problems: list[tuple[tuple[str | int, ...], str]] = []
    compiled = compile_template(source, lambda path, text: problems.append((path, text)), as_=as_)
    assert not problems
    return compiled


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        (5, 5),
        (None, None),
        ([], []),
        ({}, {}),
        ("${{ input.n }}", 3),
        ("${{input.n}}", 3),
        ("${{ input.none }}", None),
        ("${{ input.list }}", [1, "a"]),
        ("${{ steps.fetch-page.output.files[0].name }}", "x"),
        ('${{ steps["fetch-page"].output["files"][0] }}', {"name": "x"}),
        (" ${{ input.n }}", " 3"),
        ("Hello ${{ input.name }}!", "Hello Ann!"),
        ("${{ input.name }}${{ input.n }}", "Ann3"),
        ("${{ input.none }} and ${{ input.list }}", 'null and [1,"a"]'),
        ("n=${{ input.n > 2 }}", "n=true"),
        ("$${{ input.n }}", "${{ input.n }}"),
        ("a $${{ b }} ${{ input.n }} $${{", "a ${{ b }} 3 ${{"),
        ("$ { } {{ }} ${ } $$", "$ { } {{ }} ${ } $$"),
        ('${{ "}}" + "${{" }}', "}}${{"),
        ("${{ {'a': {'b': {}}} }}", {"a": {"b": {}}}),
        ("${{ {'a': {'b': {}}}}}", {"a": {"b": {}}}),
        ("${{ vars.big }}", 123456789012345678901234567890),
        ("x${{ vars.big }}", "x123456789012345678901234567890"),
        ("${{ input.quote }}", 'say "hi"\n'),
        ("<${{ input.quote }}>", '<say "hi"\n>'),
        (
            {"a": ["${{ input.n }}", {"b": "x ${{ input.n }}"}], "c": {}, "d": "${{ input.list }}"},
            {"a": [3, {"b": "x 3"}], "c": {}, "d": [1, "a"]},
        ),
        ({"${{ input.n }}": 1}, {"${{ input.n }}": 1}),
    ],
)
def test_holes_are_filled_with_values_of_their_own_type(source: Any, expected: Any) -> None:
    """E15: a whole hole keeps its type, a hole in text becomes text; keys are never templates."""
    compiled = template(source)
    assert compiled.resolve(SCOPE) == expected
    assert json.loads(compiled.resolve_json(SCOPE)) == expected


def test_text_of_a_constant_is_made_once() -> None:
    """E15: nothing is left to do for a template without holes."""
    compiled = template({"a": [1, {"b": None}], "c": "$${{ x }}"})
    assert compiled.constant
    assert compiled.resolve_json(SCOPE) == '{"a":[1,{"b":null}],"c":"${{ x }}"}'
    assert compiled.resolve_json(SCOPE) is compiled.resolve_json(SCOPE)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("${{ input.nothing }}", "input.nothing is not there; input has: name, n, none, list, quote"),
        ("${{ steps.other.output }}", "steps.other is not there; steps has: fetch-page"),
        ("a ${{ input.list[2] }}", "input.list[2] is not there; input.list has 2 items"),
        ("${{ item }}", "item is not there; there is: input, steps, vars"),
        ("${{ input.n + input.name }}", "+ does not take an integer and a string, in ${{ input.n + input.name }}"),
        ("${{ from_json('[' + '1') }}", "from_json() cannot read it"),
    ],
)
def test_reference_that_leads_nowhere_is_an_error_that_says_what_there_is(source: str, message: str) -> None:
    """E15: an unresolved reference is never silent text or null; the message names the path and what is available."""
    compiled = template({"deep": [source]})
    for resolve in (compiled.resolve, compiled.resolve_json):
        with pytest.raises(ExpressionError) as caught:
            resolve(SCOPE)
        assert message in str(caught.value)


class RawScope(PlainScope):
    """Has JSON texts at hand, and nothing else."""

    def __init__(self, texts: dict[tuple[str, tuple[str | int, ...]], str]) -> None:
        super().__init__({})
        self.texts = texts

    def raw(self, name: str, path: tuple[str | int, ...]) -> str | None:
        """The text."""
        return self.texts.get((name, path))


def test_json_text_that_is_at_hand_is_handed_on_as_it_is() -> None:
    """E15, Lesson 27: a step's whole output is passed on without being parsed, digits and all."""
    text = '{ "n": 1.10, "big": 123456789012345678901234567890 }'
    scope = RawScope({("steps", ("a", "output")): text})
    assert template("${{ steps.a.output }}").resolve_json(scope) == text
    assert template({"x": ["${{ steps.a.output }}", 1]}).resolve_json(scope) == f'{{"x":[{text},1]}}'
    with pytest.raises(ExpressionError):
        template("a ${{ steps.a.output }}").resolve_json(scope)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(JSON)
def test_a_whole_reference_is_the_identity(value: Any) -> None:
    """E15: whatever JSON a step returns, the next step gets the same, integers of any length included."""
    scope = PlainScope({"steps": {"a": {"output": value}}})
    compiled = template({"x": "${{ steps.a.output }}"})
    assert compiled.resolve(scope) == {"x": value}
    assert json.loads(compiled.resolve_json(scope)) == {"x": value}


@settings(deadline=None)
@given(JSON)
def test_a_template_without_holes_is_the_identity(value: Any) -> None:
    """E15: what is no hole is left alone."""
    escaped = json.loads(json.dumps(value).replace("${{", "$${{"))
    compiled = template(escaped)
    assert compiled.constant
    assert json.loads(compiled.resolve_json(SCOPE)) == compiled.resolve(SCOPE)


@pytest.mark.parametrize(
    ("source", "steps", "whole"),
    [
        ("constant", set(), set()),
        ("${{ steps.a.output }}", {"a"}, {"a"}),
        ({"x": ["${{ steps.a.output }}"], "y": "${{ steps.b.output }}"}, {"a", "b"}, {"a", "b"}),
        ("${{ steps.a.output.x }}", {"a"}, set()),
        ("in ${{ steps.a.output }} text", {"a"}, set()),
        ("${{ size(steps.a.output) }}", {"a"}, set()),
        ("${{ has(steps.a.output.x) || default(steps.b.output, 1) == 2 }}", {"a", "b"}, set()),
        ("${{ steps.a.state }}", {"a"}, {"a"}),
        (["${{ steps.a.output }}", "${{ steps.a.output.x }}"], {"a"}, set()),
        ("${{ [1].map(steps_, steps.a.output) }}", {"a"}, set()),
    ],
)
def test_steps_that_are_read_are_known(source: Any, steps: set[str], whole: set[str]) -> None:
    """E5, Lesson 27: what a template reads is a need; what it looks into must be loaded, what it only hands on need not be."""
    compiled = template(source)
    assert compiled.steps == steps
    assert compiled.whole_steps == whole


def test_items_and_conditions_are_looked_into() -> None:
    """E10: a whole output as items of a map is needed with its content."""
    assert template("${{ steps.a.output }}", ItemsTemplate).whole_steps == frozenset()
    assert template("${{ steps.a.output }}", ConditionTemplate).whole_steps == frozenset()


def test_condition_is_true_or_false_and_nothing_else() -> None:
    """E10: no value is taken for true."""
    assert template("${{ input.n > 2 }}", ConditionTemplate).resolve(SCOPE) is True
    assert template("${{ input.n < 2 }}", ConditionTemplate).resolve_json(SCOPE) == "false"
    for source, found in (
        ("${{ input.n }}", "an integer"),
        ("${{ input.none }}", "null"),
        ("${{ 'true' }}", "a string"),
    ):
        with pytest.raises(ExpressionError, match=f"expected true or false, found {found}"):
            template(source, ConditionTemplate).resolve(SCOPE)


def test_items_are_an_array_and_nothing_else() -> None:
    """Q8: neither text nor an object is taken for a list."""
    assert template("${{ input.list }}", ItemsTemplate).resolve(SCOPE) == [1, "a"]
    assert template([1, "${{ input.n }}"], ItemsTemplate).resolve_json(SCOPE) == "[1,3]"
    compiled = template("${{ input }}", ItemsTemplate)
    for resolve in (compiled.resolve, compiled.resolve_json):
        with pytest.raises(ExpressionError, match="expected an array"):
            resolve(SCOPE)


class NotLoadedError(ExpressionError):
    """A scope's own error."""


class LazyScope(PlainScope):
    """A scope some of whose values are not loaded."""

    def lookup(self, name: str, path: tuple[str | int, ...]) -> Any:
        """The value, or NotLoadedError below steps."""
        if name == "steps":
            raise NotLoadedError("not loaded")
        return walk({"a": 1, "no": False}, path, name)


@pytest.mark.parametrize(
    "text",
    [
        "steps.a.output",
        "text",
        "default(steps.a.output, 1)",
        "has(steps.a.output.x)",
        "steps.a.output == 1 || false",
        "steps.a.output == 1 || input.nothing",
        "input.nothing || steps.a.output == 1",
        "steps.a.output == 1 && true",
        "[1, 2].exists(x, x == 1 ? input.nothing : steps.a.output)",
        "[2, 1].exists(x, x == 1 ? input.nothing : steps.a.output)",
        "[1].all(x, steps.a.output == x)",
        "steps.a.output ? 1 : 2",
    ],
)
def test_nothing_is_concluded_from_a_value_that_is_not_loaded(text: str) -> None:
    """E15: an error of the scope's own passes through every expression, so that the owner can load the value and ask again."""
    source = "in text ${{ steps.a.output }}" if text == "text" else f"${{{{ {text} }}}}"
    for resolve in (template(source).resolve, template(source).resolve_json):
        with pytest.raises(NotLoadedError):
            resolve(LazyScope({}))


@pytest.mark.parametrize(
    "text", ["input.a == 1 || steps.a.output", "steps.a.output || true", "input.no && steps.a.output"]
)
def test_a_value_that_does_not_matter_need_not_be_loaded(text: str) -> None:
    """E15: where the other side decides, there is nothing to load."""
    assert template(f"${{{{ {text} }}}}").resolve(LazyScope({})) in (True, False)


@pytest.mark.parametrize("source", ["x${{ input.big }}" * 40, ["${{ input.big }}"] * 40])
def test_what_is_filled_in_is_bounded(source: Any) -> None:
    """Lesson 27: a value that nobody could store is refused where it is made."""
    scope = PlainScope({"input": {"big": "x" * (1 << 20)}})
    with pytest.raises(ExpressionError, match="more than 33554432 characters"):
        template(source).resolve_json(scope)
