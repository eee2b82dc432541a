"""Swarms from submission to their end, over real gRPC and a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]


async def test_a_swarm_completes(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """A2, J19, C1: a swarm is stored, its run asked for with the whole envelope, its result stored and acknowledged."""
    answer = await tier1.submit(request_of(correlation_id="c-1"))
    assert answer.created
    assert answer.state == state_pb2.SWARM_STATE_STARTING
    swarm = await tier1.wait(answer.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_COMPLETED
    assert swarm.outcome == state_pb2.OUTCOME_SUCCESS
    assert swarm.output.value.struct_value.fields["name"].string_value == "Ann"
    (request,) = tier2.requests
    context = request.context
    assert (context.swarm_id, context.run_id, context.parent_id) == (answer.swarm_id, answer.run_id, answer.swarm_id)
    assert (context.tenant, context.user_id, context.correlation_id) == ("default", "dev", "c-1")
    assert context.traceparent[3:35] == answer.trace_id
    assert request.input.flow.hash in tier2.flows
    assert all(request.HasField(part) for part in ("context", "input", "allocation", "options"))
    await eventually(lambda: tier2.acknowledgements == [answer.run_id])


async def test_failure_reaches_the_client(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """F23: what arose in Tier 3 is readable at the client with code, tier and cause; internals are not."""
    tier2.mode = "accept"
    answer = await tier1.submit(request_of())
    await eventually(lambda: answer.run_id in tier2.runs)
    deep = failure_pb2.Failure(code=failure_pb2.ERROR_CODE_TIMEOUT, tier=failure_pb2.TIER_3, detail="stack")
    told = failure_pb2.Failure(
        code=failure_pb2.ERROR_CODE_STEP_FAILED, tier=failure_pb2.TIER_2, cause=deep, step_id="fetch"
    )
    await tier2.finish(answer.run_id, "FAILED", told)
    swarm = await tier1.wait(answer.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_FAILED
    assert swarm.failure.code == failure_pb2.ERROR_CODE_STEP_FAILED
    assert swarm.failure.cause.tier == failure_pb2.TIER_3
    assert swarm.failure.cause.code == failure_pb2.ERROR_CODE_TIMEOUT
    assert not swarm.failure.cause.detail


async def test_refused_run_fails_the_swarm(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """F23, Lesson 17: a refusal ends the swarm, with the refusal as cause."""
    tier2.refusal = failure_pb2.Failure(code=failure_pb2.ERROR_CODE_HANDLER_NOT_FOUND, tier=failure_pb2.TIER_2)
    answer = await tier1.submit(request_of())
    swarm = await tier1.wait(answer.swarm_id)
    assert swarm.state == state_pb2.SWARM_STATE_FAILED
    assert swarm.failure.cause.tier == failure_pb2.TIER_2


async def test_history(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """C1, H5: the journal tells every step of a swarm's way, gapless, with one terminal event; a short run's acceptance is in the same commit as its end."""
    answer = await tier1.submit(request_of())
    await tier1.wait(answer.swarm_id)
    batch = (await tier1.stub.ListEvents(api.ListEventsRequest(swarm_id=answer.swarm_id))).batch
    assert [event.WhichOneof("payload") for event in batch.events] == [
        "swarm_created",
        "run_requested",
        "run_taken",
        "swarm_state_changed",
        "run_finished",
        "swarm_ended",
    ]
    assert [event.seq for event in batch.events] == [1, 2, 3, 4, 5, 6]
    assert batch.source.swarm_id == answer.swarm_id
    page = await tier1.stub.ListEvents(api.ListEventsRequest(swarm_id=answer.swarm_id, after_seq=2, limit=3))
    assert [event.seq for event in page.batch.events] == [3, 4, 5]
    assert page.more
    runs = await tier1.stub.ListEvents(api.ListEventsRequest(swarm_id=answer.swarm_id, run_id=answer.run_id))
    assert [event.WhichOneof("payload") for event in runs.batch.events] == ["run_created", "run_ended"]


async def test_two_commits_for_a_short_run(tier1: Any, request_of: Requests) -> None:
    """H13, J19: a one-step run costs two commits in Tier 1."""
    await tier1.wait((await tier1.submit(request_of())).swarm_id)
    writer = tier1.coordinator.durable.host.writer
    before = writer.batches
    await tier1.wait((await tier1.submit(request_of())).swarm_id)
    assert writer.batches - before == 2


async def test_acceptance_is_journaled_when_the_run_takes_long(
    tier1: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """C1: a swarm whose run was taken is RUNNING soon, by what is stored."""
    tier2.mode = "accept"
    answer = await tier1.submit(request_of())

    async def running() -> bool:
        return bool((await tier1.get(answer.swarm_id)).state == state_pb2.SWARM_STATE_RUNNING)

    await eventually(running)
    await tier2.finish(answer.run_id)
    assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
