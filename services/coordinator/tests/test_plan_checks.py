"""What is wrong with a plan is told all at once, with its place."""

from __future__ import annotations

import pathlib
import sys

import pytest
from tierflow_contracts.common.v1 import flow_pb2, payload_pb2, plan_pb2
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_coordinator.core.plan import PlannedRun
from tierflow_coordinator.core.plan_checks import Checked
from tierflow_coordinator.plans import shape_problems

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from plan_world import choice, planned


def problems(*runs: PlannedRun, output: str = "") -> dict[str, str]:
    """By place."""
    return dict(Checked(runs, output).problems)


@pytest.mark.parametrize(
    ("runs", "place", "told"),
    [
        ([planned("a"), planned("a")], "runs[1].id", "is there twice"),
        ([planned("a b")], "runs[0].id", "letters, digits"),
        ([planned("")], "runs[0].id", "required"),
        ([planned("a", needs=("bb",)), planned("b")], "runs[0].needs[0]", "no run 'bb'; did you mean b?"),
        ([planned("a", needs=("a",))], "runs[0].needs[0]", "cannot wait for itself"),
        ([planned("a", condition="runs.c.output == 1")], "runs[0].if", "there is no run 'c'"),
        ([planned("a", condition="steps.c.output == 1")], "runs[0].if", "unknown name 'steps'; known: input, runs"),
        ([planned("a", condition="runs.a.output == 1")], "runs[0].if", "a cannot read itself"),
        ([planned("a"), planned("b", condition="runs.a.result")], "runs[1].if", "a run has: output, state"),
        ([planned("a", condition="swarm.name == ''")], "runs[0].if", "swarm has: id, tenant"),
        ([planned("a", condition="input.x ==")], "runs[0].if", "expected a value, found the end"),
        ([planned("a", condition="x" * 5000)], "runs[0].if", "longer than 4096"),
        ([planned("a", condition="cancelled()")], "runs[0].if", "cancelled() is for flows"),
        ([planned("a", input='{"b": ["${{ runs.zz.output }}"]}')], "runs[0].input.b[0]", "no run 'zz'"),
        ([planned("a", input='{"b": "${{ failure() }}"}')], "runs[0].input.b", "for the if of a run only"),
        ([planned("a", input="[1]")], "runs[0].input", "expected a JSON object"),
        ([PlannedRun(id="a")], "runs[0]", "expected a flow, or a switch"),
        ([planned("a", default=("b",)), planned("b")], "runs[0]", "has a flow and a switch"),
        ([choice("s", ("true", ("q",)))], "runs[0].switch[0].then[0]", "there is no run 'q'"),
        ([choice("s", ("", ("a",))), planned("a")], "runs[0].switch[0].if", "required"),
        ([choice("s", ("true", ())), planned("a")], "runs[0].switch[0].then", "required"),
        (
            [choice("s", ("true", ("a",))), choice("t", ("true", ("a",))), planned("a")],
            "runs[1].switch[0].then[0]",
            "named by s already",
        ),
        (
            [planned("a", needs=("b",)), planned("b", condition="runs.a.output.x")],
            "runs[0]",
            "waits for itself: a -> b -> a",
        ),
    ],
)
def test_each_problem_has_its_place(runs: list[PlannedRun], place: str, told: str) -> None:
    """B17, A5, E5: unknown references, cycles and expressions that cannot be are refused, and say where."""
    assert told in problems(*runs)[place]


def test_all_problems_at_once() -> None:
    """B17, A5: nobody has to submit five times to hear of five mistakes."""
    found = problems(
        planned("a", condition="runs.x.output", needs=("y",)),
        planned("b", input='{"c": "${{ nonsense }}"}'),
        output='"${{ runs.z.output }}"',
    )
    assert set(found) == {"runs[0].if", "runs[0].needs[0]", "runs[1].input.c", "output"}


def test_bounds() -> None:
    """B17: more than a hundred runs are no plan."""
    assert "1 to 100" in problems(*[planned(f"r{n}") for n in range(101)])["runs"]
    assert "1 to 100" in problems()["runs"]


def test_what_is_read_is_waited_for() -> None:
    """B17, E10: needs follow from expressions and choices, as in flows."""
    checked = Checked(
        [
            planned("a"),
            planned("b", condition="runs.a.output.x", input='{"c": "${{ runs.c.output }}"}'),
            planned("c"),
            choice("s", ("runs.a.output.y", ("d",))),
            planned("d"),
        ]
    )
    assert not checked.problems
    assert {run.id: run.needs for run in checked.runs} == {"a": (), "b": ("a", "c"), "c": (), "s": ("a",), "d": ("s",)}


def test_fields_of_requests() -> None:
    """B17, A5: the messages themselves are looked at; flows in order are told of as the client has sent them."""
    ref = flow_pb2.FlowRef(name="a")
    named = flow_pb2.FlowRef(name="${{ runs.a.output.next }}")
    runs = [
        plan_pb2.PlannedRun(id="a", flow=named),
        plan_pb2.PlannedRun(id="b", flow=ref, among=[ref], on_error="go on"),
        plan_pb2.PlannedRun(id="c", flow=named, among=[flow_pb2.FlowRef()]),
    ]
    _, found = shape_problems(swarm_pb2.FixedPlan(runs=runs, output=payload_pb2.Payload(json="{")))
    assert {each.field.removeprefix("input.fixed.") for each in found} == {
        "output.json",
        "runs[0].flow.name",
        "runs[1].flow.name",
        "runs[1].on_error",
        "runs[2].among[0]",
    }
    given = swarm_pb2.FixedPlan(flows=[swarm_pb2.FlowPlan(flow=ref, input=payload_pb2.Payload(json='"${{ x }}"'))])
    _, found = shape_problems(given)
    assert {each.field for each in found} == {"input.fixed.flows[0].input"}
