"""One flow in several forms: YAML, JSON, the canonical definition; what the hash covers; flows that nobody has thought of."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tierflow_expressions.values import dumps, loads
from tierflow_flow import Flow, FlowError, Problem, from_canonical, parse
from tierflow_flow.cache import FlowCache

REPORT = """
name: code-report
version: "1"
input: {directory: {type: string, default: "."}}
timeout: 10m
vars: {limit: 3}
steps:
  walk: {call: report.walk, with: {directory: "${{ input.directory }}", depth: 2}}
  analyse:
    map: ${{ steps.walk.output.files }}
    concurrency: 16
    call: report.analyse
    with: {path: "${{ item }}", index: "${{ index }}"}
    retry: {max_attempts: 2}
  reduce: {call: report.reduce, if: always(), with: {files: "${{ steps.analyse.output }}"}}
output: {report: "${{ steps.reduce.output.markdown }}"}
"""


def test_yaml_json_and_canonical_form_have_one_hash() -> None:
    """E2: the hash names the flow, not its text."""
    flow = parse(REPORT, "yaml")
    assert flow.hash == hashlib.sha256(flow.canonical.encode()).hexdigest()
    as_json = """{"steps": [
        {"id": "walk", "with": {"depth": 2, "directory": "${{input.directory}}"}, "call": "report.walk", "labels": {}},
        {"id": "analyse", "needs": "walk", "map": "${{ steps.walk.output.files }}", "call": "report.analyse", "tolerate": 0,
         "concurrency": 16, "with": {"index": "${{ index }}", "path": "${{  item }}"},
         "retry": {"max_attempts": 2, "initial_delay": "1000ms", "factor": 2.0, "max_delay": "1m"}},
        {"id": "reduce", "call": "report.reduce", "if": "${{ always() }}", "with": {"files": "${{ steps.analyse.output }}"},
         "on_error": "stop", "side_effecting": false}],
        "output": {"report": "${{ steps.reduce.output.markdown }}"}, "vars": {"limit": 3}, "timeout": "600s",
        "defaults": {"retry": {"max_attempts": 3}}, "on_failure": "fail_fast", "navigator": "graph",
        "input": {"type": "object", "additionalProperties": false, "properties": {"directory": {"default": ".", "type": "string"}}},
        "version": "1", "name": "code-report"}"""
    assert parse(as_json, "json").canonical == flow.canonical
    assert parse(flow.canonical, "json").canonical == flow.canonical
    assert from_canonical(flow.canonical).hash == flow.hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('version: "1"', 'version: "2"'),
        ("10m", "11m"),
        ("limit: 3", "limit: 4"),
        ("limit: 3", "limit: 3.0"),
        ("concurrency: 16", "concurrency: 15"),
        ("depth: 2", 'depth: "2"'),
        ("max_attempts: 2", "max_attempts: 3"),
        ("always()", "failure()"),
        ("markdown", "html"),
        ('default: "."', 'default: ""'),
        ("reduce: {call", "reduce: {name: Reduce, call"),
    ],
)
def test_everything_that_matters_is_in_the_hash(old: str, new: str) -> None:
    """E2: another flow is another hash."""
    assert parse(REPORT).hash != parse(REPORT.replace(old, new)).hash


def test_flow_from_its_canonical_form_is_the_same_flow() -> None:
    """E2: what Tier 2 loads is what was parsed, values in the same order included."""
    flow = parse(
        "name: f\nvars: {z: 1, a: 2}\nsteps: {b: {call: x, with: {z: 1, a: '${{ values(vars) }}'}}, a: {call: y}}"
    )
    again = from_canonical(flow.canonical)
    assert [step.id for step in again.steps] == ["b", "a"]
    assert list(again.vars) == list(flow.vars) == ["a", "z"]
    assert list(again.by_id["b"].with_.tree) == list(flow.by_id["b"].with_.tree) == ["a", "z"]
    assert (again.roots, again.leaves, again.dependants) == (flow.roots, flow.leaves, flow.dependants)


def test_stored_definition_keeps_its_hash() -> None:
    """Lesson 30: a definition that an older version wrote otherwise still loads, under the hash that it was stored with."""
    stored = '{"name": "old", "steps": [{"id": "a", "call": "echo"}], "version": "1"}'
    flow = from_canonical(stored)
    assert flow.canonical == stored
    assert flow.hash == hashlib.sha256(stored.encode()).hexdigest()


def test_flows_used_lately_are_kept_compiled() -> None:
    """E2: a definition is compiled once per version and process."""
    canonical = parse(REPORT).canonical
    assert from_canonical(canonical) is from_canonical(str(canonical.encode(), "utf-8"))


def test_cache_drops_what_was_not_used_for_longest() -> None:
    """E2: memory is bounded by the size of the definitions."""
    flows = [parse(f"name: f{i}\nsteps: {{a: {{call: x}}}}") for i in range(4)]
    cache = FlowCache(max_bytes=3 * len(flows[0].canonical))
    for flow in flows[:3]:
        cache.put(flow)
    assert cache.get(flows[0].hash) is flows[0]
    cache.put(flows[3])
    assert [cache.get(flow.hash) for flow in flows] == [flows[0], None, flows[2], flows[3]]
    small = FlowCache(max_bytes=1)
    small.put(flows[0])
    small.put(flows[0])
    small.put(flows[1])
    assert (len(small), small.get(flows[1].hash)) == (1, flows[1])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"name": 1e999}', "[" * 100_000, '{"a":' * 5_000, "1" * 5_000, "\x00", "\ud800"]
)
def test_definition_that_is_none_is_refused(text: str) -> None:
    """Lesson 28: nothing but FlowError, whatever was stored."""
    with pytest.raises(FlowError):
        from_canonical(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("", None),
        ("null", None),
        ("true", True),
        ("True", True),
        ("yes", "yes"),
        ("on", "on"),
        ("no", "no"),
        ("'true'", "true"),
        ("12", 12),
        ("-12", -12),
        ("+12", 12),
        ("0x1f", 31),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("12345678901234567890123", 12345678901234567890123),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("a b", "a b"),
        ("-", [None]),
        ("|\n    a\n    b\n", "a\nb\n"),
        (">-\n    a\n    b\n", "a b"),
        ("[a, 1, {b: 2}]", ["a", 1, {"b": 2}]),
        ("{1: a, true: b, null: c}", {"1": "a", "true": "b", "null": "c"}),
        ('"\\u00e4\\n"', "ä\n"),
    ],
)
def test_yaml_means_what_yaml_1_2_says(text: str, value: object) -> None:
    """E15: no `no` that becomes false, no date, no octal by surprise."""
    flow = parse(f"name: f\nsteps: {{a: {{call: x}}}}\nvars:\n  v:\n    {text}\n")
    assert flow.vars == {"v": value}
    assert type(flow.vars["v"]) is type(value)


def test_aliases_stand_for_what_they_name() -> None:
    """E2: anchors save repetition; a definition has them written out."""
    flow = parse("name: f\nvars: {a: &a {x: [1]}}\nsteps: {s: {call: y, with: *a}, t: &t {call: z}, u: *t}")
    assert flow.canonical.count('{"x":[1]}') == 2
    assert flow.by_id["u"].handler == "z"


IDS = st.lists(st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True), min_size=1, max_size=8, unique=True)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12).map(
        lambda text: text.replace("${{", "")
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A valid flow: steps need and read only steps before them, then all are shuffled."""
    ids = draw(IDS)
    steps: dict[str, dict[str, Any]] = {}
    for position, id_ in enumerate(ids):
        before = st.lists(st.sampled_from(ids[:position]), unique=True, max_size=3) if position else st.just([])
        step: dict[str, Any] = {"call": draw(st.sampled_from(["echo", "http.request", "x.y-z.w_1"]))}
        if needs := draw(before):
            step["needs"] = needs
        read = draw(before)
        inputs: dict[str, Any] = {f"r{i}": f"${{{{ steps.{other}.output.a[0] }}}}" for i, other in enumerate(read)}
        if draw(st.booleans()):
            inputs["constant"] = draw(VALUES)
        if inputs:
            step["with"] = inputs
        if draw(st.booleans()):
            step["map"] = draw(
                st.sampled_from(["${{ input.items }}", [1, 2], [f"${{{{steps.{o}.output}}}}" for o in read]])
            )
            step["tolerate"] = draw(st.integers(0, 9))
        if draw(st.booleans()):
            step["retry"] = {
                "max_attempts": draw(st.integers(1, 100)),
                "initial_delay": f"{draw(st.integers(0, 999))}ms",
            }
        if draw(st.booleans()):
            step["if"] = draw(st.sampled_from(["always()", "input.x == 1", True, "${{ failure() }}"]))
        steps[id_] = step
    order = draw(st.permutations(list(steps)))
    return {"name": "f", "vars": {"v": draw(VALUES)}, "steps": {id_: steps[id_] for id_ in order}}


@settings(max_examples=200, deadline=None)
@given(documents())
def test_every_graph_without_cycles_parses_and_its_canonical_form_is_a_fixed_point(document: dict[str, Any]) -> None:
    """E1, E2, E5: for any flow; and its graph is what its parts say, twice the same."""
    flow = parse(dumps(document), "json")
    again = parse(flow.canonical, "json")
    assert (again.canonical, again.hash) == (flow.canonical, flow.hash)
    assert from_canonical(flow.canonical).dependants == flow.dependants
    assert flow.vars["v"] == document["vars"]["v"]
    assert _order_exists(flow)
    for id_, step in document["steps"].items():
        assert set(step.get("needs", ())) <= set(flow.by_id[id_].needs)
        assert flow.by_id[id_].with_.steps <= set(flow.by_id[id_].needs)
    assert {(a, b) for a, others in flow.dependants.items() for b in others} == {
        (a, step.id) for step in flow.steps for a in step.needs
    }


def _order_exists(flow: Flow) -> bool:
    done: set[str] = set()
    for _ in flow.steps:
        done |= {step.id for step in flow.steps if set(step.needs) <= done}
    return done == set(flow.by_id)


@settings(max_examples=100, deadline=None)
@given(documents(), st.data())
def test_a_cycle_anywhere_is_refused(document: dict[str, Any], data: st.DataObject) -> None:
    """E5: for any flow, closing any path makes it invalid, and the cycle that is named is one."""
    flow = parse(dumps(document), "json")
    last = data.draw(st.sampled_from(list(document["steps"])))
    first = data.draw(st.sampled_from(sorted(_above(flow, last) | {last})))
    step = document["steps"][first]
    step["needs"] = [*step.get("needs", []), *([] if last in step.get("needs", []) else [last])]
    with pytest.raises(FlowError) as caught:
        parse(dumps(document), "json")
    assert [problem.description.split(":")[0] for problem in caught.value.problems] == ["cycle"]
    cycle = caught.value.problems[0].description.removeprefix("cycle: ").split(" -> ")
    assert cycle[0] == cycle[-1]
    needs = {each.id: set(each.needs) for each in flow.steps}
    needs[first] = needs[first] | {last}
    assert all(before in needs[after] for before, after in itertools.pairwise(cycle))


def _above(flow: Flow, id_: str) -> set[str]:
    found: set[str] = set()
    waiting = [id_]
    while waiting:
        for other in flow.by_id[waiting.pop()].needs:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


PIECES = st.sampled_from(
    [
        "name",
        "steps",
        ":",
        " ",
        "\n",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        ",",
        "${{",
        "}}",
        "&a",
        "*a",
        "!!x",
        ">",
        "#",
        "call",
        "with",
        "needs",
        "a",
        "1",
        "~",
        "?",
        "%",
        "@",
        "\t",
        "\\",
        "---",
        "...",
        "<<",
        "input.x",
        "(",
        ")",
        "\x01",
        "é",
        "😀",
    ]
)


def problems_of(text: str, form: str) -> list[Problem]:
    """What is wrong with a text; empty for a flow."""
    try:
        parse(text, form)
    except FlowError as error:
        return error.problems or [Problem("", "")]
    return []


@settings(max_examples=600, deadline=None)
@given(st.text(max_size=60) | st.lists(PIECES, max_size=40).map("".join), st.sampled_from(["yaml", "json"]))
def test_no_text_raises_anything_but_flow_error(text: str, form: str) -> None:
    """Lesson 28: whatever is sent, and each problem has its words."""
    inside = '{"name":"f","steps":{"a":{"call":"x","if":' + dumps(_clean(text)) + "}}}"
    for source in (text, f"name: f\nsteps: {{a: {{call: x}}}}\noutput: {text}", inside):
        assert all(problem.description and problem.path for problem in problems_of(source, form))


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["name", "steps", "call", "with", "if", "map", "needs", "retry", "vars", "input", "env", "a"]
                ),
                inner,
            )
        ),
        max_leaves=25,
    )
)
def test_no_value_raises_anything_but_flow_error(value: Any) -> None:
    """Lesson 28: values of any shape at any key."""
    assert all(problem.description and problem.path for problem in problems_of(json.dumps(value), "json"))


@settings(deadline=None)
@given(VALUES)
def test_json_text_and_back_is_the_identity(value: Any) -> None:
    """E15: digits are kept."""
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("[1, 9007199254740993]", [1, 9007199254740993]),
        ('[18446744073709551616, "12345678901234567890"]', [1 << 64, "12345678901234567890"]),
        ("1.5", 1.5),
    ],
)
def test_long_numbers_are_exact(text: str, value: object) -> None:
    """E15: integers beyond 64 bits, where orjson has floats."""
    assert loads(text) == value


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {1, 2}, "\ud800", {"a": 1 << 70, "b": "\ud800"}, object()]
)
def test_what_is_no_json_is_refused(value: object) -> None:
    """Lesson 28: never written as null."""
    with pytest.raises(ValueError):
        dumps(value)
