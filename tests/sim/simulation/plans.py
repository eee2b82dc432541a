"""Plans of several runs: their conditions hang on what the runs gave and on how they ended, which is left to the handlers and the faults."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from tierflow_contracts.coordinator.v1 import swarm_pb2

from simulation.flows import FLOWS

_ODD = "size(json(runs.a.output)) % 2 == 1"
"""As good as chance: it hangs on what a handler said."""


def run(planned_id: str, flow: int, **keys: Any) -> dict[str, Any]:
    """A run of one of the flows of the workloads."""
    return {"id": planned_id, "flow": {"source": {"json": FLOWS[flow]}}, **keys}


def plan(*runs: dict[str, Any], **keys: Any) -> swarm_pb2.FixedPlan:
    """A plan."""
    made = swarm_pb2.FixedPlan()
    json_format.ParseDict({"runs": list(runs), "input": {"json": "{}"}, **keys}, made)
    return made


PLANS: tuple[swarm_pb2.FixedPlan, ...] = (
    plan(run("a", 0), run("b", 1, **{"if": _ODD}), run("c", 2, needs=["b"], **{"if": "always()"})),
    plan(
        run("a", 1),
        {"id": "s", "switch": [{"if": _ODD, "then": ["b"]}], "default": ["c"]},
        run("b", 0),
        run("c", 3),
        run("d", 1, needs=["b", "c"]),
        run("e", 1, needs=["d"], **{"if": "failure()"}),
    ),
    plan(
        run("a", 0, on_error="continue"),
        run("b", 1, input={"json": '{"from": "${{ runs.a.output }}", "was": "${{ runs.a.state }}"}'}),
        {
            "id": "c",
            "flow": {"name": "${{ runs.b.state == 'COMPLETED' ? 'one' : 'echo' }}"},
            "among": [{"source": {"json": FLOWS[0]}}, {"source": {"json": FLOWS[1]}}],
            "needs": ["b"],
            "if": "always()",
        },
        output={"json": '{"was": "${{ runs.c.flow }}"}'},
    ),
)
"""Triage; a choice whose branches meet; a flow that is named by a result, of those that may be."""
