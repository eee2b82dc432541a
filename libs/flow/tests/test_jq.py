"""The jq evaluator against the C library, and its bounds."""

from __future__ import annotations

import re
import time
from typing import Any

import jq as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_flow.jq import JqError, JqLimit, JqSyntaxError, compile_jq


def _words(text: str) -> list[str]:
    return text.split()


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-20, 20), st.sampled_from([0.5, -1.25, 1e10]), st.sampled_from(["", "a", "ab", "b c", "10", "é😀", "x,y"])
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=12,
)
_ATOMS = st.sampled_from(
    _words(r""". .a .b .c .[0] .[-1] .[] .[]? .a? .[1:] .[:2] .. length keys type not add sort unique min max tojson tostring
    to_entries any all values nulls scalars arrays objects strings numbers floor ascii_downcase explode paths tonumber
    first last empty error null true false 1 2 -1 0.5 "a" "b" "x\(.)y" [] {} [.[]?] {a:1} {a,b} {"c":.} $v [.[]?,1] {(.a?|tostring):1}
    transpose trim @base64 @json @text @html @uri @csv @sh tostream abs fromjson map_values(.)""")
)  # fmt: skip


_PLACES = st.sampled_from(
    [
        *_words(
            ". .a .b.c .[0] .[] .[]? .a? .[1:] .. (.a,.b) (.a|.b) (.[]?|.a?) first(.[]?) select(.a?) first recurse (.a//.b)"
        ),
        "if . then .a? else .b? end",
        "empty",
        "(1|empty)",
    ]
)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, inner)
    operators = st.sampled_from(_words("+ - * / % == != < <= > >= and or // , |"))
    updates = st.sampled_from(_words("= |= += -= *= //="))
    calls = st.sampled_from(
        _words("""map select first last limit2 until sort_by group_by unique_by min_by max_by any all recurse3 walk range has
        contains inside split join startswith ltrimstr try opt reduce foreach if label def bind paren array
        map_values add test nth skip splits setpath combinations tostream""")
    )  # fmt: skip
    return st.one_of(
        st.tuples(two, operators).map(lambda t: f"({t[0][0]}) {t[1]} ({t[0][1]})"),
        st.tuples(_PLACES, updates, inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        st.tuples(
            _PLACES,
            st.sampled_from(["path({})", "del({})", "[paths({})]", "delpaths([path({})])", "pick({})", "[path({})]"]),
        ).map(lambda t: t[1].format(t[0])),
        st.tuples(two, calls).map(lambda t: _call(t[1], *t[0])),
    )


_SHAPES = {
    "limit2": "limit(2; {0})",
    "until": "until(true; {0})",
    "recurse3": "[limit(3; recurse({0}))]",
    "has": "has(({0}))",
    "range": "[limit(5; range({0}))]",
    "try": 'try ({0}) catch "caught"',
    "opt": "({0})?",
    "reduce": "reduce ({0}) as $x (null; . + ({1}))",
    "foreach": "[foreach ({0}) as $x (0; .+1; [., $x])]",
    "if": "if ({0}) then ({1}) else . end",
    "label": "label $f | ({0}), break $f, ({1})",
    "def": "def f(g): g, ({1}); f({0})",
    "bind": "({0}) as $v | [$v, ({1})]",
    "paren": "({0}) | ({1})",
    "array": "[({0}), ({1})]",
    "any": "any(({0}); ({1}))",
    "all": "all(({0}); ({1}))",
    "index": "index(({0}))",
    "test": 'test("a"; ({0}|tostring|""))',
    "nth": "nth(1; ({0}))",
    "skip": "skip(1; ({0}))",
    "splits": '[splits("a")]',
    "setpath": 'setpath(["a"]; ({0}))',
    "combinations": "[limit(9; combinations)]",
    "tostream": "[tostream]",
    "bsearch": "bsearch({0})",
}


def _call(name: str, first: str, second: str) -> str:
    return _SHAPES.get(name, f"{name}({{0}})").replace("{0}", first).replace("{1}", second)


_EXPRESSIONS = st.recursive(_ATOMS, _grown, max_leaves=5)


def _theirs(text: str, value: Any) -> list[Any] | None:
    try:
        return list(oracle.compile(text, args={"v": 7}).input_value(value))
    except ValueError:
        return None


def _ours(text: str, value: Any) -> list[Any] | None:
    try:
        return compile_jq(text).all(value, {"v": 7})
    except JqError:
        return None


@settings(max_examples=500, deadline=None)
@given(_EXPRESSIONS, _VALUES)
def test_it_yields_what_the_c_library_yields(text: str, value: Any) -> None:
    """E2: an expression means what it means in jq 1.8; what fails there fails here."""
    try:
        found = _ours(text, value)
    except JqLimit:
        return
    assert _same(found, _theirs(text, value)), text


def _same(left: Any, right: Any) -> bool:
    """Equal values of the same kinds; numbers as close as their text in jq is; the words of errors may differ."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, bool) or isinstance(right, bool) or left is None or right is None:
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return abs(left - right) <= 1e-12 * max(abs(left), abs(right))
    return bool(left == right)


@pytest.mark.parametrize(
    "text",
    [
        "[range(1e9)]",
        "last(range(1e9))",
        "def f: f; f",
        "[recurse(.)]",
        "repeat(1)",
        "until(false; .)",
        "[limit(1e9; repeat(1))] | length",
        'reduce range(1000) as $i ("a"; . + .)',
        "reduce range(1000) as $i ([1]; . + .)",
        '"abc" * 1e9',
        "[range(5000)] | [.[] as $a | .[] as $b | $a * $b]",
        "[range(9000)] as $a | $a - $a",
        "reduce range(10000) as $i (.; [.])",
        "[range(3000)] | combinations(5)",
        '("a" * 100000) as $t | [range(1e6) | $t | test("(a+)+b")]',
    ],
)
def test_what_would_take_for_ever_ends(text: str) -> None:
    """E2, Lesson 27: an expression is stopped by its bounds, soon, and `try` does not catch that."""
    start = time.monotonic()
    for wrapped in (text, f"try ({text}) catch 1", f"({text})?"):
        with pytest.raises(JqLimit):
            compile_jq(wrapped).all(None)
    assert time.monotonic() - start < 200


@pytest.mark.parametrize(
    "text", ["(" * 500, "-" * 500 + "1", "[" * 500 + "]" * 500, '"\\(' * 100, "." + "|." * 5000, "1" + "+1" * 5000]
)
def test_deep_expressions_are_refused_when_they_are_read(text: str) -> None:
    """E2: the bounds of an expression's text hold before anything is evaluated."""
    with pytest.raises(JqSyntaxError):
        compile_jq(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("foo", "foo/0 is not defined"),
        (".a | lenght", "did you mean length"),
        ("$nope", "$nope is not there"),
        (".a +", "expected an expression"),
        ("if . then 1", "expected end"),
        ("@nope", "no format"),
        ("break $x", "not defined"),
        ("_match(1;2;3)", "not defined"),
    ],
)
def test_what_is_wrong_is_told_when_it_is_read(text: str, part: str) -> None:
    """E2: unknown functions, variables and formats are found without evaluating."""
    with pytest.raises(JqSyntaxError, match=re.escape(part)):
        compile_jq(text, frozenset({"context"}))


@pytest.mark.parametrize("text", ["env", "$ENV", "input", "halt", "now"])
def test_nothing_of_the_outside_is_read(text: str) -> None:
    """E1: neither environment nor input nor clock can be reached."""
    with pytest.raises((JqError, JqSyntaxError)):
        compile_jq(text, frozenset()).all(None)
    assert compile_jq("now").all(None, now=1.5) == [1.5]
