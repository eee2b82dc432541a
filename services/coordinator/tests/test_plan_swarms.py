"""Swarms with a plan of several runs: a coordinator on a real database, with a scripted Tier 2."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.coordinator.v1 import swarm_pb2
from tierflow_runtime.errors import failure_of
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

TRIAGE = {
    "name": "answer a question",
    "input": {"json": '{"question": "why?"}'},
    "runs": [
        {"id": "triage", "flow": {"name": "greet"}},
        {
            "id": "route",
            "switch": [{"if": "runs.triage.output.verdict == 'insufficient data'", "then": ["collect"]}],
            "default": ["answer"],
        },
        {"id": "collect", "flow": {"name": "greet"}, "input": {"json": '{"about": "${{ input.question }}"}'}},
        {"id": "answer", "flow": {"name": "greet"}, "input": {"json": '{"n": "${{ runs.triage.output.n }}"}'}},
    ],
}


def plan(given: dict[str, Any] = TRIAGE, *, request_id: str = "") -> swarm_pb2.SwarmExecutionRequest:
    """A request with a plan, as a client writes it in JSON."""
    request = swarm_pb2.SwarmExecutionRequest()
    json_format.ParseDict(given, request.input.fixed)
    request.context.request_id = request_id
    return request


def states(swarm: swarm_pb2.Swarm) -> dict[str, str]:
    """Of the plan's runs, by id."""
    return {each.id: state_pb2.StepState.Name(each.state).removeprefix("STEP_STATE_") for each in swarm.plan}


async def asked(tier2: FakeOrchestrator, count: int) -> str:
    """The run that was asked for last, once there are so many."""
    await eventually(lambda: len(tier2.runs) >= count)
    return list(tier2.runs)[-1]


@pytest.mark.parametrize(
    ("verdict", "chosen", "skipped", "given"),
    [
        ("insufficient data", "collect", "answer", {"about": "why?"}),
        ("sufficient", "answer", "collect", {"n": 7}),
    ],
)
async def test_triage(
    tier1: Any, tier2: FakeOrchestrator, verdict: str, chosen: str, skipped: str, given: dict[str, Any]
) -> None:
    """B17: what triage says decides which flow is next; the others are shown as skipped, with the reason; events tell both."""
    tier2.mode = "accept"
    accepted = await tier1.submit(plan())
    assert await asked(tier2, 1) == accepted.run_id
    await tier2.finish(accepted.run_id, output=json.dumps({"verdict": verdict, "n": 7}))
    second = await asked(tier2, 2)
    request = tier2.runs[second].request
    assert json.loads(request.input.input.json) == given
    assert request.input.flow.hash
    await tier2.finish(second, output='{"done": true}')
    swarm = await tier1.wait(accepted.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_COMPLETED
    assert states(swarm) == {"triage": "COMPLETED", "route": "COMPLETED", chosen: "COMPLETED", skipped: "SKIPPED"}
    assert swarm.flow_name == "answer a question"
    assert list(swarm.run_ids) == [accepted.run_id, second]
    assert json_format.MessageToDict(swarm.output.value)[chosen] == {"done": True}
    reasons = {each.id: each.reason for each in swarm.plan}
    assert reasons[skipped].startswith("route has not chosen it")
    listed = await tier1.stub.ListEvents(api.ListEventsRequest(swarm_id=accepted.swarm_id))
    decided = [event.plan_decided.decision for event in listed.batch.events if event.HasField("plan_decided")]
    assert {each.id: each.reason for each in decided} == {name: reasons[name] for name in ("route", skipped)}


async def test_a_restart_decides_the_same(make_coordinator: Any, tier2: FakeOrchestrator) -> None:
    """B17, R16: a coordinator that dies between triage and choice, and one that dies after it: the successor goes on with what was decided, and asks for no run twice."""
    tier2.mode = "accept"
    first = await make_coordinator(name="a")
    accepted = await first.submit(plan())
    await asked(tier2, 1)
    await first.stop(graceful=False)
    await tier2.finish(accepted.run_id, output='{"verdict": "insufficient data"}')
    second = await make_coordinator(name="a")
    run = await asked(tier2, 2)
    await eventually(lambda: tier2.connected >= 1)
    await second.stop(graceful=False)
    third = await make_coordinator(name="a")
    await tier2.finish(run, output='{"got": 1}')
    swarm = await third.wait(accepted.swarm_id)
    assert states(swarm) == {"triage": "COMPLETED", "route": "COMPLETED", "collect": "COMPLETED", "answer": "SKIPPED"}
    assert len(tier2.runs) == 2


async def test_a_plan_with_nothing_to_do(tier1: Any, tier2: FakeOrchestrator) -> None:
    """B17: where every condition is false at once, the swarm is complete when it is accepted; a repetition of the request finds it."""
    given = {"runs": [{"id": "a", "flow": {"name": "greet"}, "if": "has(input.x)"}]}
    accepted = await tier1.submit(plan(given, request_id="r1"))
    swarm = await tier1.wait(accepted.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_COMPLETED
    assert states(swarm) == {"a": "SKIPPED"}
    again = await tier1.submit(plan(given, request_id="r1"))
    assert (again.swarm_id, again.created) == (accepted.swarm_id, False)
    assert not tier2.runs


async def test_flows_in_order(tier1: Any, tier2: FakeOrchestrator) -> None:
    """B17: the plain form of a fixed plan: one flow after the other."""
    request = swarm_pb2.SwarmExecutionRequest()
    flow = {"flow": {"name": "greet"}, "input": {"json": '{"name": "Ann"}'}}
    json_format.ParseDict({"flows": [flow, flow]}, request.input.fixed)
    accepted = await tier1.submit(request)
    swarm = await tier1.wait(accepted.swarm_id)
    assert states(swarm) == {"run1": "COMPLETED", "run2": "COMPLETED"}
    assert len(swarm.run_ids) == len(tier2.runs) == 2


async def test_stop_between_runs(tier1: Any, tier2: FakeOrchestrator) -> None:
    """B17, G8: what was not reached is shown as cancelled."""
    tier2.mode = "accept"
    accepted = await tier1.submit(plan())
    await asked(tier2, 1)
    await tier1.stub.StopSwarm(api.StopSwarmRequest(swarm_id=accepted.swarm_id))
    await tier2.finish(accepted.run_id, output='{"verdict": "sufficient", "n": 1}')
    swarm = await tier1.wait(accepted.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_STOPPED
    assert states(swarm)["answer"] == "CANCELLED"
    assert len(tier2.runs) == 1


async def test_refusals_are_told_at_once(
    tier1: Any, tier2: FakeOrchestrator, rows: Callable[[], Awaitable[dict[str, int]]]
) -> None:
    """B17, A5: what the plan alone tells, all of it; then what its flows tell, all of it; and nothing is stored."""
    wrong = {
        "runs": [
            {"id": "a", "flow": {"name": "greet"}, "if": "runs.b.output.x >"},
            {"id": "b", "flow": {"name": "greet"}, "needs": ["z"]},
        ]
    }
    assert await refused(tier1, wrong) == {"input.fixed.runs[0].if", "input.fixed.runs[1].needs[0]"}
    wrong = {
        "runs": [
            {"id": "a", "flow": {"name": "nobody"}},
            {"id": "b", "flow": {"name": "${{ runs.a.output.next }}"}, "among": [{"name": "greet"}, {"name": "none"}]},
        ]
    }
    assert await refused(tier1, wrong) == {"input.fixed.runs[0].flow", "input.fixed.runs[1].among[1]"}
    assert (await rows())["entity"] == 0


async def refused(tier1: Any, given: dict[str, Any]) -> set[str]:
    """The fields that a refusal names."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.submit(plan(given))
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    return {each.field for each in failure_of(caught.value).violations}


async def test_a_refused_run_of_a_plan(tier1: Any, tier2: FakeOrchestrator) -> None:
    """B17, F23: a run that Tier 2 refuses is a failed run of the plan; what is there for that runs."""
    tier2.refusal = failure_pb2.Failure(code=failure_pb2.ERROR_CODE_HANDLER_NOT_FOUND, tier=failure_pb2.TIER_2)
    given = {
        "runs": [
            {"id": "a", "flow": {"name": "greet"}},
            {"id": "tell", "flow": {"name": "greet"}, "needs": ["a"], "if": "failure()"},
        ]
    }
    accepted = await tier1.submit(plan(given))
    swarm = await tier1.wait(accepted.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_FAILED
    assert states(swarm) == {"a": "FAILED", "tell": "FAILED"}
    assert swarm.failure.code == failure_pb2.ERROR_CODE_HANDLER_NOT_FOUND


async def test_a_plan_is_not_made_anew(tier1: Any, tier2: FakeOrchestrator) -> None:
    """B17: reruns, forks and replays are of one run; said so, not done by halves."""
    accepted = await tier1.submit(plan())
    await tier1.wait(accepted.swarm_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.stub.ReplaySwarm(api.ReplaySwarmRequest(swarm_id=accepted.swarm_id))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
