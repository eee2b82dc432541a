"""Plans, built in Python or written as a dict: what is sent."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from tierflow import InvalidRequest, expr, fn, plan
from tierflow.plan import PlanBuilder, plan_message
from tierflow.submission import swarm_request

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs/plans.md").read_text()


def sent(given: Any) -> dict[str, Any]:
    """The message as JSON, with the contract's names."""
    return json_format.MessageToDict(plan_message(given), preserving_proto_field_name=True)


def built() -> PlanBuilder:
    """Triage, a choice, and a flow that a result names."""
    p = plan("ask", output={"got": expr("runs.next.output")})
    triage = p.run("triage", "triage@2", {"q": p.input.question}, on_error="continue")
    route = p.switch("route", (triage.output.n > 2, "more"), default=["less"], needs=triage)
    p.run("more", "more", needs=[triage, route])
    p.run("less", "less", if_=fn.failure())
    p.run("next", triage.output.next, among=["a", "b@1"], if_="board.go")
    return p


WRITTEN = {
    "name": "ask",
    "runs": {
        "triage": {"flow": "triage@2", "input": {"q": "${{ input.question }}"}, "on_error": "continue"},
        "route": {
            "switch": [{"if": "${{ runs.triage.output.n > 2 }}", "then": "more"}],
            "default": "less",
            "needs": "triage",
        },
        "more": {"flow": "more", "needs": ["triage", "route"]},
        "less": {"flow": "less", "if": "${{ failure() }}"},
        "next": {"flow": "${{ runs.triage.output.next }}", "among": ["a", "b@1"], "if": "board.go"},
    },
    "output": {"got": "${{ runs.next.output }}"},
}


def test_a_builder_sends_what_a_dict_sends() -> None:
    """B17, Q21: both are the same plan; ids, expressions and flows are where the contract has them."""
    assert sent(built()) == sent(WRITTEN)
    listed = {**WRITTEN, "runs": [{"id": name, **run} for name, run in WRITTEN["runs"].items()]}  # type: ignore[attr-defined]
    assert sent(listed) == sent(WRITTEN)
    runs = {each["id"]: each for each in sent(built())["runs"]}
    assert runs["triage"]["flow"] == {"name": "triage", "version": "2"}
    assert runs["route"]["switch"] == [{"if": "${{ runs.triage.output.n > 2 }}", "then": ["more"]}]
    assert runs["more"]["needs"] == ["triage", "route"]
    assert runs["next"]["flow"] == {"name": "${{ runs.triage.output.next }}"}


def test_a_request_has_the_plan_and_its_input() -> None:
    """B17: the input of a submission is the plan's input."""
    request = swarm_request(plan_message(WRITTEN), {"question": "why?"}, "r1")
    assert request.input.fixed.input.json == '{"question":"why?"}'
    assert len(request.input.fixed.runs) == 5


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"runs": {"a": {"flow": "x", "when": "true"}}}, "input.fixed.runs[0].when"),
        ({"runs": {"a": {"switch": [{"when": "true"}]}}}, "input.fixed.runs[0].switch[0].when"),
        ({"runs": {"a": "x"}}, "input.fixed.runs[0]"),
        ({"runs": {}, "steps": 1}, "input.fixed.steps"),
    ],
)
def test_keys_that_there_are_not(given: dict[str, Any], field: str) -> None:
    """B17, A5: a word that means nothing is refused with its place, before anything is sent."""
    with pytest.raises(InvalidRequest) as refused:
        plan_message(given)
    assert [each.field for each in refused.value.violations] == [field]


def test_a_run_twice() -> None:
    """B17: ids are unique."""
    p = plan()
    p.run("a", "x")
    with pytest.raises(InvalidRequest, match="twice"):
        p.run("a", "y")


def test_the_page_shows_the_example() -> None:
    """B17, S3: the plan on the page is the one in examples/, and the Python beside it makes a plan."""
    (shown,) = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert shown == yaml.safe_load((ROOT / "examples/triage/plan.yaml").read_text())
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("handle = await client.submit", "made = lambda *_: None\nkept = (p,)\nmade"), names)
    assert [each["id"] for each in sent(names["p"])["runs"]] == ["triage", "collect", "answer"]
