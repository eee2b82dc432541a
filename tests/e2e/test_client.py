"""The client against the real services: submit, wait, watch, large values, restarts."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tierflow import Client, Conflict, Event, ExecutionFailed, InvalidRequest, NotFound, flow
from tierflow_contracts.common.v1.payload_pb2 import Payload
from tierflow_testing.stack import Stack, StackOptions

ECHO = {
    "name": "echo-back",
    "version": "1",
    "steps": {"echo": {"call": "echo", "with": {"said": "${{ input.say }}"}}},
    "output": "${{ steps.echo.output }}",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Stack(tmp_path_factory.mktemp("client"), StackOptions()) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with Client(stack.address, patience=60) as client:
        yield client


def _nap(seconds: float) -> dict[str, Any]:
    return {"name": f"nap-{seconds}", "version": "1", "steps": {"nap": {"call": "sleep", "with": {"seconds": seconds}}}}


async def test_submit_and_wait(client: Client) -> None:
    """B12, O1, O3, Q26, S4: through all tiers and back, with ids, usage and a trace."""
    handle = await client.submit(ECHO, {"say": [1, 2**53 + 1, "ü"]}, labels={"team": "x"})
    assert await handle.result(60) == {"said": [1, 2**53 + 1, "ü"]}
    result = await handle.wait()
    assert (result.state, result.outcome, result.usage.steps, result.trace_id) == (
        "COMPLETED",
        "SUCCESS",
        1,
        handle.trace_id,
    )
    assert len(handle.trace_id) == 32
    stored = await handle.describe()
    assert (dict(stored.context.labels), list(stored.run_ids)) == ({"team": "x"}, [handle.run_id])
    assert [s.context.swarm_id async for s in client.list(labels={"team": "x"})] == [handle.id]
    assert [step.step_id async for step in client.steps(handle.run_id)] == ["echo"]
    assert await client.handle(handle.id).result(60) == {"said": [1, 2**53 + 1, "ü"]}


async def test_a_built_flow_is_submitted(client: Client) -> None:
    """A3: a flow written in Python goes the same way as one in YAML."""
    built = flow("built", version="1", input={"n": {"type": "integer"}})
    numbers = built.map("numbers", "echo", over=[1, 2, 3], value=built.item, plus=built.input.n)
    built.output = {"all": numbers.output}
    assert await client.run(built, {"n": 7}) == {"all": [{"value": n, "plus": 7} for n in (1, 2, 3)]}


async def test_the_same_request_is_one_execution(stack: Stack, client: Client) -> None:
    """A14: submitted twice at once by two clients and once more later: one swarm; another body is refused."""
    async with Client(stack.address) as other:
        handles = await asyncio.gather(*(c.submit(ECHO, {"say": 1}, "once") for c in (client, other, client, other)))
        handles.append(await client.submit(ECHO, {"say": 1}, "once"))
        assert len({handle.id for handle in handles}) == 1
        assert [await handle.result(60) for handle in handles] == [{"said": 1}] * 5
        with pytest.raises(Conflict):
            await other.submit(ECHO, {"say": 2}, "once")
        again = await other.submit(ECHO, {"say": 1}, "once")
        assert (again.created, await again.result(60)) == (False, {"said": 1})


async def test_large_outputs_come_whole(client: Client) -> None:
    """Q15: half a MiB in and out; stored once as a blob, fetched by the client, readable by its name."""
    text = "x" * 500_000
    handle = await client.submit(ECHO, {"say": text})
    assert (await handle.result(60))["said"] == text
    output: Payload = (await handle.describe()).output
    assert output.WhichOneof("kind") == "ref"
    assert json.loads(await client.read_blob(output.ref)) == {"said": text}


async def test_refusals_say_everything(client: Client) -> None:
    """F29, A5: all problems of a flow at once, with their lines; what does not exist; which handler nobody offers."""
    bad = {"name": "bad", "version": "1", "steps": {"a": {"call": "echo", "needs": ["b"]}, "c": {"with": {}}}}
    with pytest.raises(InvalidRequest) as invalid:
        await client.submit(bad)
    assert invalid.value.code == "FLOW_INVALID"
    assert len(invalid.value.violations) >= 2
    with pytest.raises(NotFound):
        await client.submit("nobody-knows-this")
    with pytest.raises(NotFound, match=r"nobody\.offers"):
        await client.submit({"name": "missing", "version": "1", "steps": {"a": {"call": "nobody.offers"}}})


async def test_failures_reach_the_caller(client: Client) -> None:
    """F23, O5: the failure of a step, from Tier 3 to the exception, with its cause."""
    failing = {
        "name": "failing",
        "version": "1",
        "steps": {"a": {"call": "sleep", "with": {"seconds": "${{ input.text }}"}, "retry": {"max_attempts": 1}}},
    }
    handle = await client.submit(failing, {"text": "soon"})
    with pytest.raises(ExecutionFailed, match=handle.id) as caught:
        await handle.result(60)
    assert caught.value.result is not None
    assert caught.value.result.state == "FAILED"
    codes, failure = [], caught.value.failure
    while True:
        codes.append(failure.step_id)
        if not failure.HasField("cause"):
            break
        failure = failure.cause
    assert "a" in codes


async def test_a_watch_is_live_and_complete(client: Client) -> None:
    """H22, H26: events as they happen; the journal has the same; resumed anywhere it is gapless."""
    handle = await client.submit(_nap(0.3))
    seen = [event async for event in handle.watch() if isinstance(event, Event)]
    facts = [(event.entity_id, event.seq) for event in seen if event.seq]
    journal = [
        (b.source.entity_id, e.seq)
        for b in (await client.events(handle.id), await client.events(handle.id, handle.run_id))
        for e in b.events
    ]
    assert sorted(facts) == sorted(journal)
    assert len(set(facts)) == len(facts)
    for place, event in enumerate(seen):
        if event.seq:
            rest = {
                (e.entity_id, e.seq)
                async for e in client.watch(handle.id, event.resume_token)
                if isinstance(e, Event) and e.seq
            }
            before = {(e.entity_id, e.seq) for e in seen[: place + 1] if e.seq}
            assert rest == set(facts) - before


async def test_pause_resume_cancel(client: Client) -> None:
    """N8: by the handle; what is repeated changes nothing."""
    handle = await client.submit(_nap(300))
    assert await handle.pause("wait")
    assert not await handle.pause("again")
    assert await handle.resume()
    assert await handle.cancel("enough")
    result = await handle.wait(60)
    assert (result.state, result.outcome) == ("STOPPED", "CANCELLED")
    assert not await handle.cancel()


async def test_everything_survives_a_restart_of_tier_1(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A14, H26, Q26, Lesson 44: kill -9 of the only coordinator amid submissions, waits and a watch: nothing is lost or done twice."""
    with Stack(tmp_path_factory.mktemp("restart"), StackOptions(supervised=True)) as stack:
        async with Client(stack.address, timeout=120, patience=120) as client:
            slow = await client.submit(_nap(3))
            watching = asyncio.create_task(_seen(client, slow.id))
            first = await asyncio.gather(*(client.submit(ECHO, {"say": n}) for n in range(100)))
            await asyncio.to_thread(stack.coordinators[0].kill)
            second = await asyncio.gather(*(client.submit(ECHO, {"say": n}) for n in range(100, 200)))
            outputs = await asyncio.gather(*(handle.result(120) for handle in (*first, *second)))
            assert [output["said"] for output in outputs] == list(range(200))
            assert (await slow.wait(120)).state == "COMPLETED"
            facts = await watching
            journal = [
                (b.source.entity_id, e.seq)
                for b in (await client.events(slow.id), await client.events(slow.id, slow.run_id))
                for e in b.events
            ]
            assert sorted(facts) == sorted(journal)
            swarms = [swarm async for swarm in client.list(flow="echo-back", limit=None)]
            assert len(swarms) == 200


async def _seen(client: Client, swarm_id: str) -> list[tuple[str, int]]:
    return [
        (event.entity_id, event.seq) async for event in client.watch(swarm_id) if isinstance(event, Event) and event.seq
    ]
