"""The stream for clients with much to do: batches in, answers and results out, over disconnects and replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from tierflow_contracts.common.v1 import failure_pb2, state_pb2
from tierflow_contracts.coordinator.v1 import coordinator_service_pb2 as api
from tierflow_durable.ids import uuid7
from tierflow_testing.fake_orchestrator import FakeOrchestrator
from tierflow_testing.waiting import eventually

Requests = Callable[..., Any]


class Client:
    """A client's side of one stream."""

    def __init__(self, stub: Any, **metadata: str) -> None:
        self._queue: asyncio.Queue[api.ExecuteSwarmsRequest | None] = asyncio.Queue()
        pairs = tuple((f"tierflow-{key}", value) for key, value in metadata.items())
        self.call = stub.ExecuteSwarms(self._requests(), metadata=pairs)
        self.answers: dict[str, api.SubmitSwarmAnswer] = {}
        self.results: list[Any] = []
        self.task = asyncio.create_task(self._read())

    def send(self, execute: list[Any] | None = None, attach: list[str] | None = None) -> None:
        self._queue.put_nowait(api.ExecuteSwarmsRequest(execute=execute or [], attach=attach or []))

    def done(self) -> None:
        self._queue.put_nowait(None)

    async def _requests(self) -> AsyncIterator[api.ExecuteSwarmsRequest]:
        while (frame := await self._queue.get()) is not None:
            yield frame

    async def _read(self) -> None:
        async for frame in self.call:
            for answer in frame.answers:
                self.answers[answer.request_id] = answer
            self.results.extend(frame.results)


async def test_many_swarms(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J1, Q26, N2: a thousand swarms in one stream are answered and end, each once; the stream ends when all is told."""
    client = Client(tier1.stub)
    for start in range(0, 1000, 100):
        client.send([request_of(request_id=f"r{n}", json=f'{{"n":{n}}}') for n in range(start, start + 100)])
    client.done()
    await asyncio.wait_for(client.task, 60)
    assert len(client.answers) == 1000
    assert all(answer.accepted.created for answer in client.answers.values())
    ids = {answer.accepted.swarm_id for answer in client.answers.values()}
    assert len(client.results) == 1000
    assert {result.context.swarm_id for result in client.results} == ids
    assert all(result.state == state_pb2.SWARM_STATE_COMPLETED for result in client.results)
    # Under load an answer may take longer than the coordinator waits: then it asks again, for the same run.
    assert len({request.context.run_id for request in tier2.requests}) == 1000
    await eventually(lambda: len(set(tier2.acknowledgements)) == 1000)
    host = tier1.coordinator.durable.host
    await eventually(lambda: not host.entities and not tier1.coordinator.engine.runs)


async def test_refusals_do_not_stop_the_others(tier1: Any, request_of: Requests) -> None:
    """F27, A5: each request is answered by itself."""
    client = Client(tier1.stub)
    bad = request_of(request_id="bad")
    bad.allocation.credits = -1
    client.send([request_of(request_id="one"), bad, request_of(), request_of(request_id="two")])
    client.done()
    await asyncio.wait_for(client.task, 60)
    assert set(client.answers) == {"one", "two", "bad", ""}
    assert client.answers["bad"].refused.violations[0].field == "allocation.credits"
    assert client.answers[""].refused.violations[0].field == "context.request_id"
    assert len(client.results) == 2


async def test_disconnect_cancels_nothing(tier1: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """J2, Q26: a client that is gone loses nothing; with the same request ids it gets the same swarms and their results."""
    tier2.mode = "accept"
    client = Client(tier1.stub)
    requests = [request_of(request_id=f"r{n}") for n in range(10)]
    client.send(requests)
    await eventually(lambda: len(client.answers) == 10 and len(tier2.runs) == 10)
    client.call.cancel()
    await asyncio.gather(client.task, return_exceptions=True)
    await eventually(lambda: len(tier1.coordinator.engine.waiting) == 0)
    for run_id in list(tier2.runs)[:5]:
        await tier2.finish(run_id)
    again = Client(tier1.stub)
    again.send(requests)
    again.done()
    await eventually(lambda: len(again.answers) == 10)
    assert not any(answer.accepted.created for answer in again.answers.values())
    assert {answer.accepted.swarm_id for answer in again.answers.values()} == {
        answer.accepted.swarm_id for answer in client.answers.values()
    }
    await eventually(lambda: len(again.results) == 5)
    for run_id in list(tier2.runs)[5:]:
        await tier2.finish(run_id)
    await asyncio.wait_for(again.task, 60)
    assert len(again.results) == 10


async def test_attach(make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests) -> None:
    """Q26, N3: a swarm can be attached to by its id, on any replica, running or ended; its result comes once."""
    one, two = await make_coordinator(name="a"), await make_coordinator(name="b")
    ended = await one.submit(request_of())
    await one.wait(ended.swarm_id)
    tier2.mode = "accept"
    running = await one.submit(request_of())
    await eventually(lambda: running.run_id in tier2.runs)
    client = Client(two.stub)
    client.send(attach=[ended.swarm_id, running.swarm_id])
    await eventually(lambda: len(client.results) == 1)
    client.send(attach=[ended.swarm_id, running.swarm_id])
    await tier2.finish(running.run_id)
    client.done()
    await asyncio.wait_for(client.task, 60)
    assert sorted(result.context.swarm_id for result in client.results) == sorted([ended.swarm_id, running.swarm_id])


async def test_attach_is_scoped(tier1: Any, request_of: Requests) -> None:
    """H23, L4: nobody attaches to what is another's, or to nothing."""
    answer = await tier1.submit(request_of())
    for metadata in ({"user": "eve"}, {"tenant": "acme"}):
        client = Client(tier1.stub, **metadata)
        client.send(attach=[answer.swarm_id])
        client.done()
        await asyncio.wait_for(client.task, 60)
        assert client.answers[""].refused.code == failure_pb2.ERROR_CODE_NOT_FOUND
        assert not client.results
    client = Client(tier1.stub)
    client.send(attach=[uuid7(), "nonsense"])
    client.done()
    await asyncio.wait_for(client.task, 60)
    assert not client.results


async def test_submit_many_in_one_call(tier1: Any, request_of: Requests) -> None:
    """Q14: many swarms in one call have one answer each, in order."""
    requests = [request_of(request_id=f"r{n}") for n in range(5)]
    requests[2].allocation.credits = -1
    answers = (await tier1.stub.SubmitSwarms(api.SubmitSwarmsRequest(requests=requests))).answers
    assert [answer.request_id for answer in answers] == [f"r{n}" for n in range(5)]
    assert [answer.WhichOneof("answer") for answer in answers] == ["accepted"] * 2 + ["refused"] + ["accepted"] * 2


async def test_draining_sends_clients_elsewhere(
    make_coordinator: Any, tier2: FakeOrchestrator, request_of: Requests
) -> None:
    """N6, Q22, Lesson 24: a coordinator that is told to stop ends streams with UNAVAILABLE and hands its swarms to its peer at once."""
    one, two = await make_coordinator(name="a"), await make_coordinator(name="b")
    tier2.mode = "accept"
    client = Client(one.stub)
    client.send([request_of(request_id="r")])
    await eventually(lambda: bool(client.answers) and len(tier2.runs) == 1)
    other = await one.submit(request_of())
    waiting = asyncio.create_task(one.wait(other.swarm_id))
    await eventually(lambda: len(one.coordinator.engine.waiting) == 2)
    await one.stop()
    for call in (client.task, waiting):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    swarm_id = client.answers["r"].accepted.swarm_id
    await eventually(lambda: swarm_id in two.coordinator.durable.host.entities)
    for run_id in list(tier2.runs):
        await tier2.finish(run_id)
    assert (await two.wait(other.swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
    assert (await two.wait(swarm_id)).state == state_pb2.SWARM_STATE_COMPLETED
