"""Submissions share one stream, survive broken connections and are never lost or doubled."""

import asyncio
import hashlib
import json
import time
from pathlib import Path

import orjson
import pytest
from pydantic import BaseModel
from tierflow import (
    Budget,
    Client,
    Conflict,
    ExecutionFailed,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    Unavailable,
    exchange,
)
from tierflow.errors import made
from tierflow.results import value_of
from tierflow.submission import encode
from tierflow_contracts.common.v1 import failure_pb2
from tierflow_contracts.common.v1.payload_pb2 import BlobRef, Payload
from tierflow_testing.fake_coordinator import TRACE, FakeCoordinator
from tierflow_testing.waiting import eventually


async def test_run_returns_the_output(fake: FakeCoordinator, client: Client) -> None:
    """B12: one façade; submit and wait is one call."""
    assert await client.run("greet@2", {"name": "Ada"}) == {"name": "Ada"}
    plan = fake.frames[0].execute[0].input.flow
    assert (plan.flow.name, plan.flow.version, plan.input.json) == ("greet", "2", '{"name":"Ada"}')


async def test_submit_returns_ids_before_the_end(fake: FakeCoordinator, client: Client) -> None:
    """J19: submit returns the id before the work is done."""
    fake.hold = True
    handle = await client.submit("greet")
    assert (handle.id, handle.trace_id, handle.run_id, handle.created) == ("swarm-1", TRACE, "run-swarm-1", True)
    with pytest.raises(TimeoutError):
        await handle.result(0.02)
    await fake.finish("swarm-1")
    assert await handle.result(60) == {}
    assert (await handle.wait()).usage.steps == 1


async def test_every_request_has_an_id_and_all_of_its_parts(fake: FakeCoordinator, client: Client) -> None:
    """A3, A14: what the caller says arrives in the four parts of the request."""

    class Order(BaseModel):
        amount: int

    await client.run("a", Order(amount=2**60), labels={"team": "x"}, priority=5, timeout="1m30s", correlation_id="c", test_mode=True,
                     budget=Budget(credits=2**60, wall_time=60, steps=7))  # fmt: skip
    request = fake.frames[0].execute[0]
    assert len(request.context.request_id) == 36
    assert request.context.request_id[14] == "7"
    assert orjson.loads(request.input.flow.input.json) == {"amount": 2**60}
    assert (dict(request.context.labels), request.context.correlation_id) == ({"team": "x"}, "c")
    assert (request.options.priority, request.options.timeout.seconds, request.options.test_mode) == (5, 90, True)
    assert (request.allocation.credits, request.allocation.wall_time.seconds, request.allocation.steps) == (
        2**60,
        60,
        7,
    )
    assert not request.allocation.HasField("tokens")


async def test_integers_of_any_size_are_kept(fake: FakeCoordinator, client: Client) -> None:
    """A9: integers beyond 64 bits are sent digit by digit."""
    await client.run("a", {"n": 10**30})
    assert fake.frames[0].execute[0].input.flow.input.json == '{"n": 1' + "0" * 30 + "}"


async def test_requests_made_together_share_frames(fake: FakeCoordinator, client: Client) -> None:
    """B11, Lesson 38: what gathers while a frame is written goes in one frame, 256 at most."""
    outputs = await asyncio.gather(*(client.run("echo", {"n": n}) for n in range(1000)))
    assert outputs == [{"n": n} for n in range(1000)]
    sizes = [len(frame.execute) for frame in fake.frames]
    assert sum(sizes) == 1000
    assert len(sizes) <= 8
    assert max(sizes) <= 256


async def test_frames_are_cut_by_size(fake: FakeCoordinator, client: Client) -> None:
    """Lesson 38: many large requests are cut into frames of about 1 MiB."""
    await asyncio.gather(*(client.run("echo", {"text": "x" * 300_000}) for _ in range(10)))
    assert max(frame.ByteSize() for frame in fake.frames) < 1_300_000


async def test_a_request_too_large_is_refused_before_it_is_sent(fake: FakeCoordinator, client: Client) -> None:
    """Lesson 27, Lesson 34: checked at the producer, with a code of its own, and the stream of the others is not hurt."""
    with pytest.raises(InvalidRequest) as caught:
        await client.submit("echo", {"text": "x" * 4_000_000})
    assert caught.value.code == "PAYLOAD_TOO_LARGE"
    assert fake.frames == []


async def test_the_same_request_id_is_the_same_execution(fake: FakeCoordinator, client: Client) -> None:
    """A14: twice at once and once more later: one execution."""
    handles = await asyncio.gather(*(client.submit("a", {"n": 1}, "order-7") for _ in range(2)))
    handles.append(await client.submit("a", {"n": 1}, "order-7"))
    assert {handle.id for handle in handles} == {"swarm-1"}
    assert [await handle.result(60) for handle in handles] == [{"n": 1}] * 3
    assert len(fake.swarms) == 1


async def test_unanswered_requests_are_sent_again(fake: FakeCoordinator, client: Client) -> None:
    """A14, Lesson 44: the stream breaks before the answers; the same ids are sent again and nothing starts twice."""
    fake.cut_after = 1
    outputs = await asyncio.gather(*(client.run("echo", {"n": n}) for n in range(50)))
    assert outputs == [{"n": n} for n in range(50)]
    ids = [{request.context.request_id for request in frame.execute} for frame in fake.frames]
    assert ids[0] == ids[1]
    assert len(fake.swarms) == 50


async def test_unfinished_swarms_are_attached_to(fake: FakeCoordinator, client: Client) -> None:
    """Q26: a wait survives a restart of the coordinator, and the result of meanwhile arrives."""
    fake.hold = True
    handle = await client.submit("slow", {"n": 1})
    waiting = asyncio.create_task(handle.result(60))
    await fake.stop()
    await fake.finish(handle.id)
    await fake.start()
    assert await waiting == {"n": 1}
    assert [list(frame.attach) for frame in fake.frames if frame.attach] == [[handle.id]]


async def test_a_swarm_that_is_gone_is_not_waited_for(fake: FakeCoordinator, client: Client) -> None:
    """Lesson 13: a refused attach is told apart by its fields; who waits hears it at once."""
    fake.hold = True
    handle, other = await client.submit("slow"), await client.submit("slow", {"n": 2})
    waiting = asyncio.create_task(handle.result(60))
    await fake.stop()
    del fake.swarms[handle.id]
    await fake.start()
    with pytest.raises(NotFound, match="There is no swarm swarm-1"):
        await waiting
    await fake.finish(other.id)
    assert await other.result(60) == {"n": 2}


async def test_an_output_too_large_for_the_stream_is_read_where_it_is(fake: FakeCoordinator, client: Client) -> None:
    """Q15, Lesson 38: the stream brings the end, the output is read from the swarm."""
    fake.hold = True
    handle = await client.submit("a", {"n": 1})
    fake.bare_results = True
    await fake.finish(handle.id)
    assert await handle.result(60) == {"n": 1}


async def test_submitting_while_nobody_is_there_waits_for_patience(fake: FakeCoordinator) -> None:
    """N12: a coordinator that restarts is waited for; with no patience the error says at once what to do."""
    await fake.stop()
    async with Client(fake.address, patience=60) as patient, Client(fake.address, patience=0) as hasty:
        pending = asyncio.create_task(patient.run("a", {"n": 1}))
        with pytest.raises(Unavailable, match=r"No coordinator can be reached at 127\.0\.0\.1:\d+ .* `tierflow dev`"):
            await hasty.submit("a")
        await fake.start()
        assert await pending == {"n": 1}


async def test_a_silent_coordinator_is_given_up(fake: FakeCoordinator) -> None:
    """F29: the text names the request id with which it is safe to repeat."""
    fake.silent = True
    async with Client(fake.address, timeout=0.2) as client:
        with pytest.raises(Unavailable, match="request id order-9"):
            await client.submit("a", request_id="order-9")


async def test_refusals_are_errors_that_a_caller_can_act_on(fake: FakeCoordinator, client: Client) -> None:
    """F29, Lesson 34: each refusal has its class, its reason and what it needs; the others of its frame are not touched."""
    exhausted = made("QUEUE_FULL", "The queue is full.")
    exhausted.retry_after.seconds = 3
    bad = made(
        "FLOW_INVALID",
        "The flow is not valid.",
        failure_pb2.Violation(field="steps.a", description="is unknown", line=4),
    )
    fake.refusals = [
        exhausted,
        bad,
        made("REQUEST_ID_REUSED", "Another body."),
        made("FLOW_NOT_FOUND", "No flow x."),
        None,
    ]
    async with Client(fake.address, patience=2.0) as hasty:
        with pytest.raises(ResourceExhausted, match="try again in 3 s") as full:
            await hasty.submit("a")
    assert (full.value.reason, full.value.retry_after) == ("QUEUE_FULL", 3.0)
    with pytest.raises(InvalidRequest, match=r"steps\.a: is unknown \(line 4\)") as invalid:
        await client.submit("a")
    assert [v.field for v in invalid.value.violations] == ["steps.a"]
    with pytest.raises(Conflict):
        await client.submit("a")
    with pytest.raises(NotFound):
        await client.submit("x")
    assert await client.run("a") == {}


async def test_a_full_queue_is_asked_again(fake: FakeCoordinator, client: Client) -> None:
    """J10, Q22: who is told to come back comes back, not before the time that was named; the caller only waits."""
    full = made("QUEUE_FULL", "More swarms are submitted than can be started.")
    full.retry_after.nanos = 200_000_000
    fake.refusals = [full, full, None]
    began = time.monotonic()
    assert await client.run("a", {"n": 1}) == {"n": 1}
    assert (
        time.monotonic() - began >= 0.5 + 1.0
    )  # the least of the growing times, which are longer than what was asked for
    assert len(fake.frames) == 3


def test_who_was_refused_comes_back_later_each_time() -> None:
    """J10: never before the time that was named, never all at one moment, and not much later than that either."""
    told = made("QUEUE_FULL", "")
    told.retry_after.seconds = 2
    delays = [exchange.come_back(refusals, told) for refusals in (0, 1, 2, 3, 9) for _ in range(50)]
    assert all(2.0 <= delay <= 3.0 for delay in delays[:150])
    assert all(4.0 <= delay <= 6.0 for delay in delays[150:200])
    assert all(exchange.MAX_RETURN <= delay <= exchange.MAX_RETURN * 1.5 for delay in delays[200:])
    assert len(set(delays)) > 200


async def test_a_client_with_much_to_submit_does_not_flood(fake: FakeCoordinator, client: Client) -> None:
    """J10: requests beyond those that may be unanswered wait in the client, until answers come."""
    fake.silent = True
    pending = [asyncio.create_task(client.submit("a")) for _ in range(exchange.MAX_ASKED + 300)]
    await eventually(lambda: sum(len(frame.execute) for frame in fake.frames) >= exchange.MAX_ASKED)
    assert sum(len(frame.execute) for frame in fake.frames) == exchange.MAX_ASKED
    fake.silent = False
    await fake.stop()
    await fake.start()
    assert len({handle.id for handle in await asyncio.gather(*pending)}) == len(pending)


async def test_a_draining_instance_is_asked_again(fake: FakeCoordinator, client: Client) -> None:
    """Q22: UNAVAILABLE as the answer to one request means: ask again; the caller does not notice."""
    fake.refusals = [made("UNAVAILABLE", "draining"), None]
    assert await client.run("a", {"n": 1}) == {"n": 1}
    assert len(fake.frames) == 2


async def test_a_failed_execution_raises_with_its_story(fake: FakeCoordinator, client: Client) -> None:
    """F23, F29: the failure of the step reaches the caller with its cause, and the text says where to look."""
    fake.hold = True
    handle = await client.submit("a")
    cause = failure_pb2.Failure(
        code=failure_pb2.ERROR_CODE_HANDLER_FAILED,
        message="card declined",
        step_id="pay",
        attempt=3,
        tier=failure_pb2.TIER_3,
    )
    await fake.finish(
        handle.id,
        "FAILED",
        failure_pb2.Failure(code=failure_pb2.ERROR_CODE_STEP_FAILED, message="step pay failed", cause=cause),
    )
    with pytest.raises(
        ExecutionFailed, match=r"FAILED: step pay failed, because: card declined \(step pay, attempt 3\)"
    ) as caught:
        await handle.result(60)
    assert caught.value.failure.cause.tier == failure_pb2.TIER_3
    assert caught.value.result is not None
    assert (await handle.wait()).state == "FAILED"


async def test_large_outputs_are_fetched(fake: FakeCoordinator, client: Client) -> None:
    """Q15: an output that is stored apart is read, checked and handed over as if it had come along."""
    content = orjson.dumps({"text": "x" * 300_000})
    digest = hashlib.sha256(content).hexdigest()
    fake.blobs[digest] = content
    fake.hold = True
    handle = await client.submit("a")
    fake.swarms[handle.id].output.CopyFrom(
        Payload(ref=BlobRef(sha256=digest, size=len(content), media_type="application/json"))
    )
    await fake.finish(handle.id)
    assert await handle.result(60) == {"text": "x" * 300_000}


async def test_a_handle_from_an_id_waits_too(fake: FakeCoordinator, client: Client) -> None:
    """Q26: the result by id, in a process that did not submit; over a restart of the coordinator."""
    fake.hold = True
    submitted = await client.submit("a", {"n": 1})
    async with Client(fake.address) as other:
        waiting = asyncio.create_task(other.handle(submitted.id).result(60))
        await fake.stop()
        await fake.start()
        await fake.finish(submitted.id)
        assert await waiting == {"n": 1}
        with pytest.raises(NotFound):
            await other.handle("unknown").result(5)


async def test_flows_are_named_or_brought_along(fake: FakeCoordinator, client: Client, tmp_path: Path) -> None:
    """A3: a name, a file, a dict and a builder each arrive as what they are."""

    class Built:
        def to_json(self) -> str:
            return '{"name":"built"}'

    path = tmp_path / "flow.yaml"
    path.write_text("name: file\n")
    for flow in ("named", str(path), path, {"name": "dict"}, Built()):
        await client.run(flow)
    refs = [request.input.flow.flow for frame in fake.frames for request in frame.execute]
    assert [ref.name for ref in refs] == ["named", "", "", "", ""]
    assert [ref.source.yaml or ref.source.json for ref in refs[1:]] == [
        "name: file\n",
        "name: file\n",
        '{"name":"dict"}',
        '{"name":"built"}',
    ]
    with pytest.raises(NotFound, match="There is no file"):
        await client.submit("missing/flow.yaml")


async def test_who_calls_is_sent(fake: FakeCoordinator) -> None:
    """L2: tenant and user travel as metadata, not in the request."""
    async with Client(fake.address, tenant="acme", user="ada") as client:
        await client.run("a")
    assert fake.metadata[0]["tierflow-tenant"] == "acme"
    assert fake.metadata[0]["tierflow-user"] == "ada"
    assert fake.frames[0].execute[0].context.tenant == ""


async def test_the_callers_span_is_the_parent(fake: FakeCoordinator, client: Client) -> None:
    """M1: the trace of the caller goes on in the execution."""
    from opentelemetry import trace
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(span):
        await client.run("a")
    assert fake.frames[0].execute[0].context.traceparent == f"00-{0xABC:032x}-{0xDEF:016x}-01"


async def test_closing_leaves_nobody_waiting(fake: FakeCoordinator) -> None:
    """B15: who waits on a closed client is told so, and no loop stays behind."""
    before = asyncio.all_tasks()
    fake.hold = True
    client = Client(fake.address)
    handle = await client.submit("a")
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(Unavailable, match="closed"):
        await waiting
    assert not [task for task in asyncio.all_tasks() - before if task.get_name().startswith("tierflow")]


@pytest.mark.parametrize("value", [float("nan"), {"a": [1.5, float("inf")]}, [None, (float("-inf"),)]])
def test_what_is_no_number_is_refused(value: object) -> None:
    """B12: NaN and the infinities are told, not turned into null."""
    with pytest.raises(InvalidRequest, match="NaN and infinite"):
        encode(value, "input")
    assert encode({"a": None, "b": 1.5, "c": "null"}, "input") == '{"a":null,"b":1.5,"c":"null"}'


async def _nothing_apart(ref: BlobRef) -> bytes:
    raise AssertionError(f"{ref} is not stored apart")


async def test_whole_numbers_stay_whole() -> None:
    """B12: a value that went by way of doubles is read as it was sent: 3, not 3.0."""
    sent = Payload()
    sent.value.struct_value.update({"count": 3, "share": 0.5, "many": [1, 2.5]})
    found = await value_of(sent, _nothing_apart)
    assert json.dumps(found, sort_keys=True) == '{"count": 3, "many": [1, 2.5], "share": 0.5}'


def test_a_refusal_says_each_thing_once() -> None:
    """H22: a message that tells of the first violation itself gives way to the list of all."""
    first, second = (
        failure_pb2.Violation(field="a", description="is wrong"),
        failure_pb2.Violation(field="b", description="is late", line=4),
    )
    assert str(InvalidRequest(failure_pb2.Failure(message="a: is wrong", violations=[first]))) == "a: is wrong"
    both = InvalidRequest(failure_pb2.Failure(message="a: is wrong (and 1 more)", violations=[first, second]))
    assert str(both) == "The request is not valid.\n  a: is wrong\n  b: is late (line 4)"
