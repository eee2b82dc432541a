"""What each key of a flow does."""

from __future__ import annotations

from typing import Any

import pytest
from tierflow_expressions.values import dumps
from tierflow_flow import from_canonical, parse
from tierflow_flow.durations import parse_duration
from tierflow_flow.schemas import fill_defaults
from tierflow_runtime.values import RetryPolicy


def flow(**keys: Any) -> Any:
    """A flow of one step with these keys."""
    return parse(dumps({"name": "f", "steps": {"a": {"call": "echo"}}, **keys}), "json")


def step(**keys: Any) -> Any:
    """The step `a` of a flow of two."""
    return flow(steps={"a": {"call": "echo", **keys}, "b": {"call": "echo"}}).by_id["a"]


DEFAULT = RetryPolicy(
    max_attempts=3,
    initial_delay=1_000_000,
    factor=2.0,
    max_delay=60_000_000,
    jitter=0.2,
    retry_on=(),
    never_retry_on=(),
)


def test_least_flow_has_the_documented_defaults() -> None:
    """F8, Q4: everything that is not said has its one default."""
    made = flow()
    assert (made.name, made.version, made.description, made.navigator) == ("f", "1", "", "graph")
    assert made.retry == DEFAULT
    assert (made.timeout, made.run_timeout, made.concurrency) == (None, None, None)
    assert (made.failure_policy, made.env, made.vars) == ("FAIL_FAST", (), {})
    assert made.input_schema is made.output is made.output_schema is None
    only = made.by_id["a"]
    assert (only.kind, only.handler, only.needs, only.retry, only.timeout) == ("call", "echo", (), None, None)
    assert (only.on_error, only.on_lost, only.side_effecting, only.tolerate) == ("stop", "", False, 0)
    assert (only.condition, only.items, only.concurrency, only.always, only.labels) == (None, None, None, False, {})
    assert only.with_.constant
    assert only.with_.resolve_json(None) == "{}"


@pytest.mark.parametrize(
    ("keys", "attribute", "expected"),
    [
        ({"name": "a.b-c_1"}, "name", "a.b-c_1"),
        ({"version": "1.2.3-rc+4"}, "version", "1.2.3-rc+4"),
        ({"description": "ä\nb"}, "description", "ä\nb"),
        ({"on_failure": "continue"}, "failure_policy", "CONTINUE"),
        ({"on_failure": "pause"}, "failure_policy", "PAUSE"),
        ({"timeout": "1h30m"}, "run_timeout", 5_400_000_000),
        ({"concurrency": 50}, "concurrency", 50),
        ({"vars": {"a": {"b": [1, None]}, "c": "$${{ x }}"}}, "vars", {"a": {"b": [1, None]}, "c": "${{ x }}"}),
        ({"env": ["HOME", "USER"]}, "env", ("HOME", "USER")),
        ({"env": "HOME"}, "env", ("HOME",)),
        ({"output_schema": {"type": "object"}}, "output_schema", {"type": "object"}),
        ({"defaults": {"timeout": "500ms"}}, "timeout", 500_000),
        ({"navigator": "sequence"}, "navigator", "sequence"),
    ],
)
def test_key_of_a_flow(keys: dict[str, Any], attribute: str, expected: object) -> None:
    """E2, Q4: each key, and what it becomes; the canonical form keeps it."""
    made = flow(**keys)
    assert getattr(made, attribute) == expected
    assert getattr(from_canonical(made.canonical), attribute) == expected


@pytest.mark.parametrize(
    ("keys", "attribute", "expected"),
    [
        ({"name": "Do it"}, "name", "Do it"),
        ({"call": "a.b_c.d-e"}, "handler", "a.b_c.d-e"),
        ({"needs": "b"}, "needs", ("b",)),
        ({"needs": ["b"]}, "needs", ("b",)),
        ({"with": {"x": "${{ steps.b.output }}"}}, "needs", ("b",)),
        ({"if": "steps.b.output.ok"}, "needs", ("b",)),
        ({"map": "${{ steps.b.output }}"}, "needs", ("b",)),
        ({"map": [1]}, "kind", "map"),
        ({"map": [1], "concurrency": 16}, "concurrency", 16),
        ({"map": [1], "tolerate": 3}, "tolerate", 3),
        ({"timeout": "20s"}, "timeout", 20_000_000),
        ({"heartbeat_timeout": "1m"}, "heartbeat_timeout", 60_000_000),
        ({"on_error": "continue"}, "on_error", "continue"),
        ({"on_lost": "ask"}, "on_lost", "ASK"),
        ({"on_lost": "fail"}, "on_lost", "FAIL"),
        ({"side_effecting": True}, "side_effecting", True),
        ({"output_schema": {"type": "object"}}, "output_schema", {"type": "object"}),
        ({"labels": {"gpu": "a"}}, "labels", {"gpu": "a"}),
        ({"if": "true"}, "always", False),
        ({"if": "always()"}, "always", True),
        ({"if": "${{ failure() && steps.b.output.x }}"}, "always", True),
        ({"if": "success() || cancelled()"}, "always", True),
    ],
)
def test_key_of_a_step(keys: dict[str, Any], attribute: str, expected: object) -> None:
    """E5, E10, F8: each key, and what it becomes; the canonical form keeps it."""
    made = flow(steps={"a": {"call": "echo", **keys}, "b": {"call": "echo"}})
    assert getattr(made.by_id["a"], attribute) == expected
    assert getattr(from_canonical(made.canonical).by_id["a"], attribute) == expected


@pytest.mark.parametrize("condition", ["steps.b.state == 'FAILED'", " ${{steps.b.state == 'FAILED'}} "])
def test_condition_with_and_without_marks_is_the_same(condition: str) -> None:
    """E10: `if` takes an expression, marks or not."""
    assert step(**{"if": condition}).condition.expressions[0].text == "steps.b.state == 'FAILED'"
    assert flow(steps={"a": {"call": "echo", "if": True}}).by_id["a"].condition.resolve(None) is True


RETRY = {
    "max_attempts": 5,
    "initial_delay": "2s",
    "factor": 3,
    "max_delay": "1m",
    "jitter": 0.5,
    "retry_on": ["TIMEOUT"],
}


def test_retry_of_a_step_overrides_the_flows_which_overrides_the_default() -> None:
    """F8, Q4: key by key, the nearest one that says something counts."""
    made = flow(
        defaults={"retry": {"max_attempts": 7, "factor": 1.5, "never_retry_on": ["DENIED"]}},
        steps={
            "none": {"call": "echo"},
            "some": {"call": "echo", "retry": {"max_attempts": 2, "jitter": 0}},
            "all": {"call": "echo", "retry": {**RETRY, "never_retry_on": []}},
        },
    )
    assert made.retry == RetryPolicy(max_attempts=7, factor=1.5, never_retry_on=("DENIED",))
    assert made.by_id["none"].retry is None
    assert made.by_id["some"].retry == RetryPolicy(max_attempts=2, factor=1.5, jitter=0.0, never_retry_on=("DENIED",))
    assert made.by_id["all"].retry == RetryPolicy(
        max_attempts=5, initial_delay=2_000_000, factor=3.0, max_delay=60_000_000, jitter=0.5, retry_on=("TIMEOUT",)
    )


def test_timeouts_of_a_step_override_the_flows() -> None:
    """F8: timeout and heartbeat_timeout likewise."""
    made = flow(
        defaults={"timeout": "1m", "heartbeat_timeout": "5s"},
        steps={"none": {"call": "echo"}, "own": {"call": "echo", "timeout": "2m", "heartbeat_timeout": "6s"}},
    )
    assert (made.timeout, made.by_id["none"].timeout, made.by_id["own"].timeout) == (60_000_000, None, 120_000_000)
    assert (made.by_id["none"].heartbeat_timeout, made.by_id["own"].heartbeat_timeout) == (5_000_000, 6_000_000)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1us", 1),
        ("500ms", 500_000),
        ("30s", 30_000_000),
        ("10m", 600_000_000),
        ("1h30m", 5_400_000_000),
        ("1.5s", 1_500_000),
        ("0s", 0),
        ("2d", 172_800_000_000),
        ("0.000001s", 1),
    ],
)
def test_durations(text: str, micros: int) -> None:
    """Q4: what people write is microseconds."""
    assert parse_duration(text) == micros


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "1 s", "1S", "1e3s", "0.1us", "1h30", "٣s", "1s\n", "9" * 200 + "s"]
)
def test_no_durations(text: str) -> None:
    """Q4: nothing is guessed."""
    with pytest.raises(ValueError):
        parse_duration(text)


def test_steps_are_a_mapping_or_a_list() -> None:
    """E2: both forms are the same flow, in the order of the text."""
    mapping = flow(steps={"z": {"call": "echo"}, "a": {"call": "echo", "needs": ["z"]}})
    listed = flow(steps=[{"id": "z", "call": "echo"}, {"id": "a", "call": "echo", "needs": "z"}])
    assert mapping.hash == listed.hash
    assert [each.id for each in mapping.steps] == ["z", "a"]


def test_graph_of_a_flow() -> None:
    """E1, E5: who needs whom, in the order of the flow, written or read from expressions."""
    made = flow(
        steps={
            "d": {"call": "x.d", "needs": ["c"], "with": {"b": "${{ steps.b.output.n }}"}},
            "a": {"call": "x.a"},
            "c": {"call": "x.c", "with": {"a": "${{ steps.a.output }}"}},
            "b": {"call": "x.b", "if": "steps.a.state == 'COMPLETED'"},
            "e": {"call": "x.b"},
        },
        output={"d": "${{ steps.d.output.x }}"},
    )
    assert {each.id: each.needs for each in made.steps} == {"d": ("c", "b"), "a": (), "c": ("a",), "b": ("a",), "e": ()}
    assert made.dependants == {"d": (), "a": ("c", "b"), "c": ("d",), "b": ("d",), "e": ()}
    assert (made.roots, made.leaves) == (("a", "e"), ("d", "e"))
    assert made.handlers == ("x.a", "x.b", "x.c", "x.d")
    assert made.content_steps == {"b", "d"}


def test_a_sequence_is_a_graph_in_which_each_step_needs_the_one_before() -> None:
    """E1, E2: the navigator is chosen by the definition, and is a pure function of it."""
    made = flow(
        navigator="sequence",
        steps=[{"id": "a", "call": "echo"}, {"id": "b", "call": "echo"}, {"id": "c", "call": "echo", "needs": "a"}],
    )
    assert [each.needs for each in made.steps] == [(), ("a",), ("a", "b")]
    again = from_canonical(made.canonical)
    assert [each.needs for each in again.steps] == [each.needs for each in made.steps]


def test_input_for_short_is_an_object_of_its_properties() -> None:
    """E15: without a default they are required, others are refused."""
    made = flow(input={"directory": {"type": "string", "default": "."}, "count": "integer"})
    assert made.input_schema == {
        "type": "object",
        "properties": {"directory": {"type": "string", "default": "."}, "count": {"type": "integer"}},
        "required": ["count"],
        "additionalProperties": False,
    }
    assert fill_defaults(made.input_schema, {"count": 1}) == {"count": 1, "directory": "."}


def test_input_in_full_is_taken_as_it_is() -> None:
    """E15: a JSON Schema of an object."""
    schema = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
    assert flow(input=schema).input_schema == schema
    assert flow(input={"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "string"}}}).input_schema


def test_defaults_fill_what_is_missing_at_every_level() -> None:
    """E15: and change nothing else, nor anything in place."""
    schema = {"properties": {"a": {"properties": {"b": {"default": 1}}}, "c": {"default": {"d": []}}, "e": True}}
    given = {"a": {}, "x": None}
    assert fill_defaults(schema, given) == {"a": {"b": 1}, "c": {"d": []}, "x": None}
    assert given == {"a": {}, "x": None}
    assert fill_defaults(None, 3) == fill_defaults({"properties": 1}, 3) == 3
