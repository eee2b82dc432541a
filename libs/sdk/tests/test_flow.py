"""The flow builder: the same documents as written by hand."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from tierflow import expr, flow, fn
from tierflow.flow import Expression, FlowBuilder, escape
from tierflow_flow import Flow, parse

ROOT = pathlib.Path(__file__).parents[3]

REPORT = """
name: code-report
version: "1"
description: A report.
input:
  directory: {type: string, default: "."}
defaults:
  retry: {max_attempts: 4, initial_delay: 500ms, never_retry_on: [DENIED]}
  timeout: 30s
  heartbeat_timeout: 5s
on_failure: continue
timeout: 10m
concurrency: 50
vars: {limit: 3}
env: [HOME]
navigator: graph
steps:
  walk:
    call: report.walk
    with: {directory: "${{ input.directory }}", home: "${{ env.HOME }}", name: "n", timeout: 5}
  analyse:
    name: Analyse
    map: ${{ steps.walk.output.files }}
    concurrency: 16
    tolerate: 3
    call: report.analyse
    with: {path: "${{ item }}", index: "${{ index }}", run: "${{ run.id }}", lines: {of: ["${{ item.lines[0] }}"]}}
    retry: {max_attempts: 2, max_delay: 10s}
    timeout: 20s
    heartbeat_timeout: 2s
  reduce:
    call: report.reduce
    needs: [analyse, walk]
    if: always() && size(steps.walk.output.files) > vars.limit
    with: {files: "${{ steps.analyse.output }}", title: "Report on ${{ input.directory }}!"}
    on_error: continue
    on_lost: ask
    side_effecting: true
    output_schema: {type: object}
    labels: {gpu: "a"}
  send: {call: echo, with: "${{ steps.reduce.output }}"}
output: {report: "${{ steps.reduce.output.markdown }}", state: "${{ steps.send.state }}"}
output_schema: {type: object}
"""


def report() -> FlowBuilder:
    """The same in Python."""
    f = flow(
        "code-report",
        version="1",
        description="A report.",
        input={"directory": {"type": "string", "default": "."}},
        retry={"max_attempts": 4, "initial_delay": timedelta(milliseconds=500), "never_retry_on": ["DENIED"]},
        step_timeout="30s",
        heartbeat_timeout=timedelta(seconds=5),
        on_failure="continue",
        timeout=timedelta(minutes=10),
        concurrency=50,
        vars={"limit": 3},
        env=["HOME"],
        navigator="graph",
        output_schema={"type": "object"},
    )
    walk = f.call(
        "walk", "report.walk", directory=f.input.directory, home=f.env.HOME, with_={"name": "n", "timeout": 5}
    )
    analyse = f.map(
        "analyse",
        "report.analyse",
        over=walk.output.files,
        concurrency=16,
        tolerate=3,
        name="Analyse",
        retry={"max_attempts": 2, "max_delay": "10s"},
        timeout="20s",
        heartbeat_timeout="2s",
        path=f.item,
        index=f.index,
        run=f.run.id,
        lines={"of": (f.item.lines[0],)},
    )
    reduce = f.call(
        "reduce",
        "report.reduce",
        needs=[analyse, "walk"],
        if_=expr("always() && size(steps.walk.output.files) > vars.limit"),
        on_error="continue",
        on_lost="ask",
        side_effecting=True,
        output_schema={"type": "object"},
        labels={"gpu": "a"},
        files=analyse,
        title=f"Report on {f.input.directory}!",
    )
    send = f.call("send", "echo", with_=reduce.output)
    f.output = {"report": reduce.output.markdown, "state": send.state}
    return f


def test_builder_and_yaml_are_one_flow() -> None:
    """E2: the same document, so the same hash; every option of the builder is in it."""
    assert parse(report().to_json(), "json").canonical == parse(REPORT).canonical
    assert parse(report().to_json(), "json").hash == parse(REPORT).hash


def test_the_example_of_the_reference_is_the_flow_of_the_reference() -> None:
    """E2: what docs/flows.md shows in Python runs and is a flow."""
    page = (ROOT / "docs/flows.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    made = subprocess.run(
        [sys.executable, "-c", code.group(1) + "\nprint(document)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    made_flow = parse(made.stdout, "json")
    assert [step.id for step in made_flow.steps] == ["walk", "analyse", "reduce"]
    assert made_flow.by_id["reduce"].needs == ("walk", "analyse")


def test_sdk_does_without_the_flow_library() -> None:
    """E2: the builder makes a document; checking is the services'."""
    code = "import sys, tierflow; tierflow.flow('f').to_json(); sys.exit('tierflow_flow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


F = flow("f")
A = F.call("check-out", "x")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (F.input.a, "input.a"),
        (F.input["a b"], 'input["a b"]'),
        (F.input.a[0].b, "input.a[0].b"),
        (F.input.a[F.index], "input.a[index]"),
        (A.output.x, "steps.check-out.output.x"),
        (A.failure.code, "steps.check-out.failure.code"),
        (A.state == "COMPLETED", 'steps.check-out.state == "COMPLETED"'),
        (F.input.n != None, "input.n != null"),  # noqa: E711 - null of the language
        ((F.input.n > 1) & (F.input.n <= 2.5), "(input.n > 1) && (input.n <= 2.5)"),
        ((F.input.n < 1) | ~F.input.ok, "(input.n < 1) || (!input.ok)"),
        (~(F.input.n >= 1), "!(input.n >= 1)"),
        (F.input.n + 1, "input.n + 1"),
        (1 + F.input.n, "1 + input.n"),
        (10 - F.input.n * 2, "10 - (input.n * 2)"),
        (2 / (F.input.n / 3), "2 / (input.n / 3)"),
        (2 * F.input.n % 5, "(2 * input.n) % 5"),
        ("a" + F.input.s + 'b"', '("a" + input.s) + "b\\""'),
        (F.input.n - 1, "input.n - 1"),
        (fn.size(F.input.a), "size(input.a)"),
        (fn.default(F.input.a, {"b": [None, True, F.input.c]}), 'default(input.a, {"b": [null, true, input.c]})'),
        (fn.failure(), "failure()"),
        (fn.from_json(F.input.a).b, "from_json(input.a).b"),
        ((F.input.a + F.input.b)[0], "(input.a + input.b)[0]"),
        (expr(" size(input.a) "), "size(input.a)"),
        (fn.join(["ä", "\n", "\u2028"], ", "), 'join(["ä", "\\n", "\u2028"], ", ")'),
    ],
)
def test_operators_make_expressions(expression: Expression, text: str) -> None:
    """E10: what Python writes is what the language reads."""
    assert str(expression) == f"${{{{ {text} }}}}"
    f = flow("f")
    f.call("check-out", "x")
    f.map(
        "b",
        "x",
        over=[1],
        if_=expr("true") if "failure()" not in text else fn.failure(),
        v=None if "failure()" in text else expression,
    )
    assert isinstance(parse(f.to_json(), "json"), Flow)


def test_what_is_known_only_later_cannot_be_used_now() -> None:
    """E15: mistakes with references show where they are made."""
    for mistake in (lambda: bool(F.input.a), lambda: [*F.input.a], lambda: f"{F.input.a:>10}", lambda: {F.input.a: 1}):
        with pytest.raises(TypeError):
            mistake()
    with pytest.raises(AttributeError):
        _ = F.input._private
    with pytest.raises(AttributeError):
        _ = fn._private


def test_durations_are_text_or_timedelta() -> None:
    """Q4: a bare number is refused, with a word on inputs of that name."""
    with pytest.raises(TypeError, match="goes into with_"):
        flow("f").call("a", "http.request", timeout=10)
    with pytest.raises(TypeError, match="initial_delay"):
        flow("f", retry={"initial_delay": 1})


def test_an_id_is_used_once() -> None:
    """E5: a second step of the same id would replace the first in silence."""
    f = flow("f")
    f.call("a", "x")
    with pytest.raises(ValueError, match="'a' already"):
        f.map("a", "x", over=[])


def test_an_expression_gives_all_inputs_or_none() -> None:
    """E15: with_ as an expression leaves no place for further inputs."""
    with pytest.raises(TypeError, match="all inputs"):
        flow("f").call("a", "x", with_=F.input, more=1)


class Order(BaseModel):
    """An order."""

    item: str
    count: int = 1


def test_models_are_schemas() -> None:
    """E15: pydantic models describe input and output."""
    f = flow("f", input=Order, output_schema=Order)
    f.call("a", "echo", output_schema=Order, order=f.input)
    made = parse(f.to_json(), "json")
    assert made.input_schema is not None
    assert made.input_schema["required"] == ["item"]
    assert made.input_schema["properties"]["count"]["default"] == 1
    assert made.by_id["a"].output_schema == made.output_schema == made.input_schema


def test_document_is_plain_and_is_not_shared() -> None:
    """E2: to_dict gives what a file would have; changing it changes no builder."""
    f = report()
    document: dict[str, Any] = f.to_dict()
    assert json.loads(f.to_json()) == document
    document["steps"]["walk"]["call"] = "other"
    assert f.to_dict()["steps"]["walk"]["call"] == "report.walk"
    assert escape("${{ x }}") == "$${{ x }}"
    assert list(flow("f").to_dict()) == ["name", "steps"]


def test_values_that_are_no_json_are_refused() -> None:
    """Lesson 28: before anything is sent."""
    f = flow("f")
    f.call("a", "x", when=timedelta(1), nan=1.0)
    with pytest.raises(TypeError):
        f.to_json()
    f = flow("f")
    f.call("a", "x", nan=float("nan"))
    with pytest.raises(ValueError):
        f.to_json()


def test_builder_of_waits() -> None:
    """E2, E13: durations, expressions and moments; one of them."""
    f = flow("waits")
    first = f.wait("first", "2s", name="A while")
    second = f.wait("second", f.input.delay, needs=[first])
    f.wait("third", until=second.output.when, if_=expr("always()"), on_error="continue")
    yaml = """\
name: waits
steps:
  first: {wait: 2s, name: A while}
  second: {wait: "${{ input.delay }}", needs: first}
  third: {wait: {until: "${{ steps.second.output.when }}"}, if: always(), on_error: continue}
"""
    assert parse(f.to_json(), "json").canonical == parse(yaml).canonical
    with pytest.raises(TypeError, match="one of them"):
        f.wait("fourth")


def test_builder_of_switches_events_and_failures() -> None:
    """E2, E13: the same document as written by hand."""
    f = flow("chooses")
    f.switch("route", (f.input.n > 3, "big"), ("input.n > 2", ["mid", "tell"]), default="stop", name="Way")
    for step_id in ("big", "mid"):
        f.call(step_id, "echo")
    f.emit("tell", "n.seen", {"n": f.input.n})
    f.fail("stop", "TOO_SMALL", f"{f.input.n} is too small.", retryable=True)
    yaml = """\
name: chooses
steps:
  route:
    name: Way
    switch: [{if: input.n > 3, then: big}, {if: input.n > 2, then: [mid, tell]}]
    default: stop
  big: {call: echo}
  mid: {call: echo}
  tell: {emit: n.seen, with: {n: "${{ input.n }}"}}
  stop: {fail: {code: TOO_SMALL, message: "${{ input.n }} is too small.", retryable: true}}
"""
    assert parse(f.to_json(), "json").canonical == parse(yaml).canonical


def test_builder_of_approvals() -> None:
    """E2, Q17: the same document as written by hand."""
    f = flow("asks", input={"n": "number", "who": "string"})
    more = {"roles": ["boss"], "timeout": "1d"}
    f.approval("ok", f"Pay {f.input.n}?", users=["ada", f.input.who], needed=2, timeout="4h", escalate=more)
    yaml = """
name: asks
input: {n: number, who: string}
steps:
  ok:
    approval:
      message: Pay ${{ input.n }}?
      users: [ada, "${{ input.who }}"]
      needed: 2
      timeout: 4h
      escalate: {roles: [boss], timeout: 1d}
"""
    assert parse(f.to_json(), "json").canonical == parse(yaml).canonical


def test_builder_of_sub_flows() -> None:
    """E2, E12: the same document as written by hand."""
    f = flow("outer", input={"n": "integer"})
    more = {"on_error": "continue"}
    f.flow("a", "inner@2", n=f.input.n, timeout="2h", on_parent_close="wait", allocation={"steps": 3}, common=more)
    yaml = """
name: outer
input: {n: integer}
steps:
  a:
    flow: inner@2
    with: {n: "${{ input.n }}"}
    timeout: 2h
    on_parent_close: wait
    allocation: {steps: 3}
    on_error: continue
"""
    assert parse(f.to_json(), "json").canonical == parse(yaml).canonical


def test_builder_of_signals() -> None:
    """E2, Q5: the same document as written by hand."""
    f = flow("asks")
    f.signal("paid", "payment.received", schema={"type": "object"}, timeout="3d", if_=fn.always())
    yaml = "name: asks\nsteps: {paid: {signal: payment.received, schema: {type: object}, timeout: 3d, if: always()}}"
    assert parse(f.to_json(), "json").canonical == parse(yaml).canonical


def test_builder_of_joins() -> None:
    """E7: the same flow as in YAML; steps may be given as such."""
    f = flow("race")
    a, b = f.call("a", "h"), f.call("b", "h")
    f.call("one", "h", needs=[a, b], join="any")
    f.call("both", "h", needs=[a, b, "one"], join={"at_least": 2, "of": [a, b]})
    f.emit("most", "most", needs=[a, b, "both"], join=2)
    assert (
        parse(f.to_json(), "json").hash
        == parse("""
name: race
steps:
  a: {call: h}
  b: {call: h}
  one: {call: h, needs: [a, b], join: any}
  both: {call: h, needs: [a, b, one], join: {at_least: 2, of: [a, b]}}
  most: {emit: most, needs: [a, b, both], join: majority}
""").hash
    )


def test_builder_of_checks_and_timeouts() -> None:
    """F20, Q2: the same flow as in YAML."""
    f = flow("checked")
    rules = [f.output_of.n > 1, {"rule": f.output_of.n < 9, "message": "many", "on_fail": "warn"}]
    f.call("a", "h", validate=rules, start_timeout="5s", total_timeout="1m")
    assert (
        parse(f.to_json(), "json").hash
        == parse("""
name: checked
steps:
  a:
    call: h
    start_timeout: 5s
    total_timeout: 1m
    validate: [output.n > 1, {rule: output.n < 9, message: many, on_fail: warn}]
""").hash
    )
