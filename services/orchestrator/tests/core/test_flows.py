"""Flows as people write them, through the core: defaults of the input, conditions, what skipping means for what follows."""

import json
import pathlib

import pytest
from tierflow_flow import parse

from .fakes import Shell

EXAMPLES = pathlib.Path(__file__).parents[4] / "examples"


def example(name: str, **input_: object) -> Shell:
    """A run of an example flow."""
    path = EXAMPLES / name
    return Shell(parse(path.read_text(), path.suffix[1:]), input=json.dumps(input_))


def inputs(shell: Shell) -> dict[str, object]:
    """What was sent to executors, by step."""
    return {each.step_id: json.loads(each.input) for each in shell.dispatched}


def test_defaults_of_the_input_hold_where_nothing_was_given():
    """E15: a property with a default can be read by every expression, whether the caller gave it or not."""
    shell = example("hello.yaml")
    shell.complete("think", "null")
    shell.complete("greet", '{"greeting":"Hello, world!","letters":5}')
    assert inputs(shell) == {"think": {"seconds": 0.1}, "greet": {"greeting": "Hello, world!", "letters": 5}}
    assert shell.run.output == '{"greeting":"Hello, world!"}'
    assert inputs(example("hello.yaml", pause=2)) == {"think": {"seconds": 2}}
    whole = parse("name: f\ninput: {a: integer, b: {default: 2}}\nsteps: {s: {call: echo, with: '${{ input }}'}}")
    assert inputs(Shell(whole, input='{"a":1}')) == {"s": {"a": 1, "b": 2}}


def test_map_with_failed_items():
    """E10, Q8: items that failed are null in the map's output; conditions and counts see them."""
    shell = example("site-check.yaml", urls=["http://a", "http://b", "http://c"])
    shell.complete("fetch[0]", '{"status":200}')
    shell.fail("fetch[1]")
    shell.complete("fetch[2]", '{"status":500}')
    summary = {"checked": 3, "answered": 2, "healthy": 1}
    assert inputs(shell)["summary"] == summary
    assert inputs(shell)["fetch[1]"]["headers"]["x-request-number"] == "1"
    shell.complete("summary", json.dumps(summary))
    assert inputs(shell)["complain"] == {"text": "2 of 3 addresses are not healthy."}
    shell.complete("complain")
    assert (shell.run.state, shell.run.outcome, json.loads(shell.run.output)) == ("COMPLETED", "PARTIAL", summary)


def test_what_follows_a_failure_when_the_run_goes_on():
    """E6, E10: what needs the failed step is skipped, what asks for failure() runs."""
    shell = example("nightly-report.yaml", day="2026-11-20")
    shell.complete("visits", '{"status":200,"json":{"total":7}}')
    shell.fail("sales")
    assert inputs(shell)["alarm"]["text"].startswith("The report of 2026-11-20 was not posted: run 0190f000-")
    shell.complete("alarm")
    assert shell.states() == {
        "sales": "FAILED",
        "visits": "COMPLETED",
        "report": "SKIPPED",
        "post": "SKIPPED",
        "alarm": "COMPLETED",
    }
    assert shell.run.state == "FAILED"


CONDITIONS = (
    "",
    "success()",
    "failure()",
    "always()",
    "steps.a.state == 'COMPLETED'",
    "always() && steps.a.state != 'FAILED'",
    "!success()",
)
TABLE = {
    "completed": (1, 1, 0, 1, 1, 1, 0),
    "tolerated": (1, 1, 0, 1, 0, 0, 0),
    "failed": (0, 0, 1, 1, 0, 0, 1),
    "skipped": (0, 0, 0, 1, 0, 1, 1),
    "skipped after a failure": (0, 0, 1, 1, 0, 1, 1),
}  # fmt: skip
"""How the step `a` ended, and for each condition whether the step that needs it runs."""


@pytest.mark.parametrize("ending", TABLE)
@pytest.mark.parametrize(("position", "condition"), list(enumerate(CONDITIONS)))
def test_truth_table_of_conditions(ending: str, position: int, condition: str):
    """E10: whether a step runs follows from how what it needs has ended and from its condition, by the table in docs/flows.md."""
    step = {"call": "echo", "needs": ["a"], **({"if": condition} if condition else {})}
    first = {"call": "echo", "on_error": "continue"} if ending == "tolerated" else {"call": "echo", "needs": ["z"]}
    if ending == "skipped":
        first["if"] = False
    shell = Shell(
        parse(
            json.dumps(
                {"name": "f", "on_failure": "continue", "steps": {"z": {"call": "echo"}, "a": first, "b": step}}
            ),
            "json",
        )
    )
    (shell.fail if ending == "skipped after a failure" else shell.complete)("z")
    if ending in ("completed", "failed", "tolerated"):
        (shell.complete if ending == "completed" else shell.fail)("a")
    assert shell.state("a") in ("COMPLETED", "FAILED", "SKIPPED")
    assert shell.state("b") == ("SCHEDULED" if TABLE[ending][position] else "SKIPPED")
