"""A run whose decision failed by a defect."""

import pytest
from tierflow_flow import parse
from tierflow_orchestrator.core import commands
from tierflow_orchestrator.core.decide import decide
from tierflow_orchestrator.core.run import Run
from tierflow_runtime.values import Allocation, Context, Failure, Options

FLOW = """
name: pair
version: "1"
steps:
  a: {call: echo}
  b: {call: echo, needs: [a]}
"""


@pytest.fixture
def run() -> Run:
    made = Run.fresh("01a1f88f-34a2-75f6-b366-62d27d61b674")
    made.flow = parse(FLOW, "yaml")
    create = commands.CreateRun(
        context=Context(run_id=made.id), flow_hash=made.flow.hash, flow_name="pair", flow_version="1", input=None,
        allocation=Allocation(), options=Options(),
    )  # fmt: skip
    decide(made, create, 1)
    decide(made, commands.AssignSlot(step_id="a", executor_id="e/1"), 2)
    return made


@pytest.mark.parametrize("before", [[], [commands.Pause(command_id="p")], [commands.Cancel(command_id="c")]])
def test_abort_ends_in_any_state(run: Run, before: list[commands.Command]) -> None:
    """F28, Lesson 17: an execution whose decision failed does not stay RUNNING: it is FAILED with INTERNAL, whatever state it was in."""
    for command in before:
        decide(run, command, 3)
    failure = Failure(code="INTERNAL", message="a defect")
    decision = decide(run, commands.Abort(failure=failure), 4)
    assert decision.reply.applied
    assert (run.state, run.failure) == ("FAILED", failure)
    assert not run.live
    assert not decide(run, commands.Abort(failure=failure), 5).reply.applied
