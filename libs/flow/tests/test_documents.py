"""What is published says what the code does: the reference, the JSON Schema, the examples."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import jsonschema_rs
import pytest
from tierflow_expressions import limits as bounds
from tierflow_expressions.evaluate import Frame
from tierflow_expressions.expressions import compile_expression
from tierflow_expressions.functions import FUNCTIONS, STATUS_FUNCTIONS
from tierflow_expressions.scope import NAMES, PlainScope
from tierflow_flow import limits, parse
from tierflow_flow.keys import DEFAULTS, FLOW, RETRY
from tierflow_flow.kinds import KINDS, PLANNED
from tierflow_flow.schema import flow_schema, flow_schema_text
from tierflow_flow.scope import RUN_FIELDS, STEP_FIELDS
from tierflow_flow.source import read_document

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs/flows.md").read_text()
EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").rglob("*")
    if (path.suffix == ".yaml" and not path.stem.endswith(".test")) or path.name == "clean-up.json"
    if "\ndocument:" not in path.read_text()  # documents of the Serverless Workflow DSL are no flows of this language
    if "\nruns:" not in path.read_text()  # nor are plans, which are Tier 1's
)
SCHEMA = jsonschema_rs.validator_for(flow_schema())


def fragments(language: str) -> list[str]:
    """The examples on the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert rows is not None
    return [[cell.strip() for cell in re.split(r"(?<!\|)\|(?!\|)", row)[1:-1]] for row in rows.group().splitlines()[2:]]


def whole(fragment: str) -> str:
    """A fragment with what a flow needs at least."""
    lines = "" if re.search(r"^name:", fragment, re.MULTILINE) else "name: fragment\n"
    steps = "" if re.search(r"^steps:", fragment, re.MULTILINE) else "steps: {a: {call: echo}}\n"
    return lines + fragment + steps


@pytest.mark.parametrize("fragment", fragments("yaml"))
def test_every_example_of_the_reference_is_a_flow(fragment: str) -> None:
    """E2: what is shown works, and editors agree."""
    text = whole(fragment)
    parse(text)
    SCHEMA.validate(read_document(text, "yaml").value)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_every_example_is_a_flow(path: pathlib.Path) -> None:
    """E2: each file parses, fits the published schema, and its canonical form too."""
    text, form = path.read_text(), path.suffix[1:]
    flow = parse(text, form)
    SCHEMA.validate(read_document(text, form).value)
    SCHEMA.validate(json.loads(flow.canonical))
    assert parse(flow.canonical, "json").hash == flow.hash


def test_there_are_enough_examples() -> None:
    """E2: the list is not empty by a wrong path."""
    assert len(EXAMPLES) >= 6
    assert len(fragments("yaml")) >= 10


def test_both_forms_of_input_on_the_page_are_the_same() -> None:
    """E15: as the page says."""
    short, full = (whole(fragment) for fragment in fragments("yaml") if fragment.startswith("input:"))
    assert parse(short).hash == parse(full).hash


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("## Keys of a flow", set(FLOW.keys)),
        ("### Keys of defaults", set(DEFAULTS.keys)),
        ("### Keys of retry", set(RETRY.keys)),
        ("## Keys of a step", {"id"} | {key for kind in KINDS.values() for key in kind.section.keys}),
        ("### Functions", {*FUNCTIONS, "has", "default"}),
        ("## Conditions and skipping", {f"{name}()" for name in STATUS_FUNCTIONS}),
    ],
)
def test_the_reference_lists_what_there_is(heading: str, keys: set[str]) -> None:
    """E2: no key or function is missing, none is invented."""
    assert {row[0].strip("`") for row in table(heading)} == keys


def test_the_reference_names_the_scopes_and_their_fields() -> None:
    """E15: likewise."""
    rows = {row[0]: row[1] for row in table("## Expressions")}
    assert set(", ".join(rows).replace("`", "").split(", ")) == set(NAMES)
    assert set(re.findall(r"`([a-z_]+)`", rows["`run`"])) == set(RUN_FIELDS)
    assert set(STEP_FIELDS) <= set(re.findall(r"`([a-z]+)`", rows["`steps`"]))
    assert not {"approval"} & set(PLANNED)


@pytest.mark.parametrize("row", table("### Functions"), ids=lambda row: row[0])
def test_functions_give_what_the_reference_says(row: list[str]) -> None:
    """E10: each example, evaluated."""
    found = compile_expression(row[1].strip("`")).evaluate(Frame(PlainScope({"input": {}})))
    assert found == json.loads(row[2].strip("`"))


def test_the_reference_has_the_bounds() -> None:
    """F8, Lesson 27: the numbers on the page are those of the code."""
    day = 86_400_000_000
    numbers = [
        limits.MAX_TEXT,
        limits.MAX_CANONICAL,
        limits.MAX_STEPS,
        limits.MAX_DEPTH,
        limits.MAX_NODES,
        limits.MAX_CHARACTERS,
        limits.MAX_NAME,
        limits.MAX_HANDLER,
        limits.MAX_ATTEMPTS,
        limits.MAX_DELAY // day,
        limits.MAX_TIMEOUT // day,
        limits.MAX_RUN_TIMEOUT // day,
        limits.MAX_CONCURRENCY,
        limits.MAX_CASES,
        limits.MAX_BLOCKS,
        limits.MAX_PATH,
        limits.MAX_ITERATIONS,
        limits.MAX_GROWN,
        limits.MAX_CALLS,
        limits.MAX_CREDITS,
        limits.MAX_RULES,
        bounds.MAX_EXPRESSION,
        bounds.MAX_COST,
        bounds.MAX_RESULT_NODES,
        bounds.MAX_RANGE,
        bounds.MAX_RESOLVED,
        limits.MAX_PROBLEMS,
    ]
    assert [int(re.search(r"[\d,]+", row[1])[0].replace(",", "")) for row in table("## Bounds")] == numbers


def test_the_published_schema_is_up_to_date() -> None:
    """E2: `python -m tierflow_flow.schema > schema/flow.schema.json` brings it up to date."""
    assert (ROOT / "schema/flow.schema.json").read_text() == flow_schema_text()


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": 1},
        {"timeout": 30},
        {"timeout": "soon"},
        {"on_failure": "stop"},
        {"concurrency": 0},
        {"name": "a b"},
        {"steps": {}},
        {"steps": {"a b": {"call": "x"}}},
        {"steps": {"a": {}}},
        {"steps": {"a": {"call": "x", "whit": {}}}},
        {"steps": {"a": {"call": "x", "tolerate": 1}}},
        {"steps": {"a": {"call": "x", "map": 3}}},
        {"steps": {"a": {"call": "x", "retry": {"max_attempts": 101}}}},
        {"steps": [{"call": "x"}]},
        {"defaults": {"retry": {"factor": 0}}},
        {"env": ["A-B"]},
    ],
)
def test_the_published_schema_refuses_what_is_plainly_wrong(change: dict[str, Any]) -> None:
    """E2: editors show these mistakes."""
    document = {"name": "f", "steps": {"a": {"call": "x"}}}
    assert SCHEMA.is_valid(document)
    assert not SCHEMA.is_valid({**document, **change})
