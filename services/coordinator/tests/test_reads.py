"""Reading: swarms, lists, counts, and what Tier 2 answers; scoped to the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tierflow_contracts.common.v1 import flow_pb2, state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_contracts.orchestrator.v1 import orchestrator_service_pb2 as orchestrator
from tierflow_durable.ids import uuid7
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]
ANN = (("tierflow-tenant", "acme"), ("tierflow-user", "ann"))
BOB = (("tierflow-tenant", "acme"), ("tierflow-user", "bob"))
DEV = (("tierflow-tenant", "acme"),)


async def test_list(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """Q14: swarms are listed newest first, page by page, by state, flow, labels, time and trace."""
    tier2.add_flow("other")
    first = request_of()
    first.context.labels["team"] = "red"
    requests = [first, *(request_of(flow) for flow in ("greet", "other", "greet", "greet"))]
    answers = [await tier1.submit(request) for request in requests]
    for answer in answers:
        await tier1.wait(answer.swarm_id)
    ids = [answer.swarm_id for answer in answers]

    async def listed(**fields: Any) -> list[str]:
        page = await tier1.stub.ListSwarms(api.ListSwarmsRequest(**fields))
        return [swarm.context.swarm_id for swarm in page.swarms]

    assert await listed() == sorted(ids, reverse=True)
    assert await listed(flow_name="other") == [ids[2]]
    assert await listed(labels={"team": "red"}) == [ids[0]]
    assert await listed(trace_id=answers[3].trace_id) == [ids[3]]
    assert await listed(states=[state_pb2.SWARM_STATE_RUNNING]) == []
    assert len(await listed(states=[state_pb2.SWARM_STATE_COMPLETED])) == 5
    created = (await tier1.get(ids[2])).created_at
    assert set(await listed(created_after=created)) == set(ids[2:])
    assert set(await listed(created_before=created)) == set(ids[:2])
    paged: list[str] = []
    token = ""
    while True:
        page = await tier1.stub.ListSwarms(api.ListSwarmsRequest(page_size=2, page_token=token))
        paged += [swarm.context.swarm_id for swarm in page.swarms]
        token = page.next_page_token
        if not token:
            break
    assert paged == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    "fields",
    [{"page_size": -1}, {"page_size": 1001}, {"page_token": "x"}, {"trace_id": "x"}, {"states": [99]}],
)
async def test_bad_list(tier1: Any, fields: dict[str, Any]) -> None:
    """A5: what is wrong with a filter is told by field."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.stub.ListSwarms(api.ListSwarmsRequest(**fields))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_reads_are_scoped(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """L4, H23: nobody sees another user's swarms or runs by any read; the development user sees its own tenant's, no other's."""
    answer = await tier1.stub.SubmitSwarm(request_of(), metadata=ANN)
    await eventually(lambda: tier2.acknowledgements)
    reads: list[tuple[str, Any]] = [
        ("GetSwarm", api.GetSwarmRequest(swarm_id=answer.swarm_id)),
        ("WaitSwarm", api.WaitSwarmRequest(swarm_id=answer.swarm_id)),
        ("ListEvents", api.ListEventsRequest(swarm_id=answer.swarm_id)),
        ("GetRun", api.GetRunRequest(run_id=answer.run_id)),
        ("ListSteps", api.ListStepsRequest(run_id=answer.run_id)),
    ]
    for name, request in reads:
        for allowed in (ANN, DEV):
            await getattr(tier1.stub, name)(request, metadata=allowed)
        for refused in (BOB, (), (("tierflow-user", "ann"),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(tier1.stub, name)(request, metadata=refused)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND, (name, refused)
    for name in ("PauseSwarm", "ResumeSwarm", "CancelSwarm", "StopSwarm"):
        request = getattr(api, f"{name}Request")(swarm_id=answer.swarm_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(tier1.stub, name)(request, metadata=BOB)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    counts = {}
    for caller in (ANN, BOB, DEV, ()):
        swarms = await tier1.stub.ListSwarms(api.ListSwarmsRequest(), metadata=caller)
        runs = await tier1.stub.ListRuns(api.ListRunsRequest(), metadata=caller)
        counts[caller] = (len(swarms.swarms), len(runs.runs))
    assert counts == {ANN: (1, 1), BOB: (0, 0), DEV: (1, 1), (): (0, 0)}
    sneaky = await tier1.stub.ListSwarms(api.ListSwarmsRequest(user_id="ann"), metadata=BOB)
    assert not sneaky.swarms
    filtered = orchestrator.ListRunsRequest(tenant="acme", user_id="ann")
    assert not (await tier1.stub.ListRuns(api.ListRunsRequest(filter=filtered), metadata=BOB)).runs
    assert not (await tier1.stub.ListRuns(api.ListRunsRequest(filter=filtered))).runs


async def test_wait(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """Q26: a wait ends with the swarm, or with its own time, and says which."""
    tier2.mode = "accept"
    answer = await tier1.submit(request_of())
    short = api.WaitSwarmRequest(swarm_id=answer.swarm_id, timeout=Duration(nanos=50_000_000))
    waited = await tier1.stub.WaitSwarm(short)
    assert not waited.ended
    assert waited.swarm.context.swarm_id == answer.swarm_id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.stub.WaitSwarm(api.WaitSwarmRequest(swarm_id=answer.swarm_id), timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    waiting = [asyncio.create_task(tier1.wait(answer.swarm_id)) for _ in range(10)]
    await eventually(lambda: answer.run_id in tier2.runs)
    await tier2.finish(answer.run_id)
    assert {swarm.state for swarm in await asyncio.gather(*waiting)} == {state_pb2.SWARM_STATE_COMPLETED}
    assert (await tier1.wait(answer.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED


async def test_queue(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """N4, J1, Lesson 19: with 41 swarms under way every replica counts 41, and what has ended by its end."""
    one, two = await make_coordinator(name="a"), await make_coordinator(name="b")
    await one.wait((await one.submit(request_of())).swarm_id)
    tier2.mode = "accept"
    answers = await asyncio.gather(*(one.submit(request_of()) for _ in range(41)))
    await eventually(lambda: len(tier2.runs) == 42)

    async def counted() -> bool:
        queues = [await each.stub.GetQueue(api.GetQueueRequest()) for each in (one, two)]
        return all((queue.total, queue.running, queue.completed) == (41, 41, 1) for queue in queues)

    await eventually(counted)
    await one.stub.StopSwarm(api.StopSwarmRequest(swarm_id=answers[0].swarm_id, mode=api.STOP_MODE_FORCE))
    await one.stub.PauseSwarm(api.PauseSwarmRequest(swarm_id=answers[1].swarm_id))

    async def counted_again() -> bool:
        queue = await two.stub.GetQueue(api.GetQueueRequest())
        assert queue.max_size == 100_000
        assert queue.runs.slots == 7
        return (queue.total, queue.running, queue.paused, queue.cancelled) == (40, 39, 1, 1)

    await eventually(counted_again)


async def test_facade(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """B12: what Tier 2 knows is asked of Tier 1, in the caller's name."""
    answer = await tier1.stub.SubmitSwarm(request_of(), metadata=ANN)
    await eventually(lambda: tier2.acknowledgements)
    run = (await tier1.stub.GetRun(api.GetRunRequest(run_id=answer.run_id), metadata=ANN)).run
    assert run.context.run_id == answer.run_id
    assert tier2.calls[-1][0] == "GetRun"
    assert tier2.calls[-1][1]["tierflow-tenant"] == "acme"
    assert tier2.calls[-1][1]["tierflow-user"] == "ann"
    source = flow_pb2.FlowSource(yaml="steps: {}")
    stored = await tier1.stub.RegisterFlow(api.RegisterFlowRequest(source=source), metadata=ANN)
    assert stored.created
    check = await tier1.stub.CheckFlow(api.CheckFlowRequest(flow=flow_pb2.FlowRef(hash=stored.flow.hash)))
    assert check.check.flow.hash == stored.flow.hash
    tier2.blobs["ab"] = b"content"
    chunks = [part.chunk async for part in tier1.stub.ReadBlob(api.ReadBlobRequest(sha256="ab"))]
    assert b"".join(chunks) == b"content"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.stub.GetRun(api.GetRunRequest(run_id=uuid7()))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_facade_while_tier_2_is_away(tier1: Any, tier2: FakeOrchestrator) -> None:
    """N12, Lesson 20: with no orchestrator the façade says UNAVAILABLE, at once enough to be told."""
    await tier2.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tier1.stub.GetRun(api.GetRunRequest(run_id=uuid7()), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_one_coordinator_for_all_swarms(tier1: Any, request_of: Requests) -> None:
    """B6, B8, B15, J16, O11: a thousand swarms make no further coordinator, and leave nothing running."""
    await tier1.wait((await tier1.submit(request_of())).swarm_id)
    before = len(asyncio.all_tasks())
    made = coordinators_made(tier1)
    for _ in range(10):
        answers = await asyncio.gather(*(tier1.submit(request_of()) for _ in range(100)))
        await asyncio.gather(*(tier1.wait(answer.swarm_id) for answer in answers))
    await eventually(lambda: len(asyncio.all_tasks()) <= before + 2)
    assert coordinators_made(tier1) == made
    assert 'tierflow_swarms_ended_total{state="COMPLETED"} 1001.0' in tier1.coordinator.metrics.text()
    assert not tier1.coordinator.durable.host.entities
    assert len(tier1.coordinator.engine.waiting) == 0


def coordinators_made(tier1: Any) -> str:
    """What the metric says."""
    lines = tier1.coordinator.metrics.text().splitlines()
    return next(line for line in lines if line.startswith("tierflow_coordinators_made"))
