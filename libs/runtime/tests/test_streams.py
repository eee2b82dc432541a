"""Frames: order, limits, closing."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tierflow_contracts.executor.v1.executor_service_pb2 import CancelStepRequest, ExecuteStepsRequest
from tierflow_contracts.executor.v1.step_pb2 import StepExecutionRequest
from tierflow_runtime.streams import FRAME_BYTES, FRAME_ITEMS, LARGEST_ITEM, Frames
from tierflow_runtime.values import FailureError


def step(handler: str, size: int = 0) -> StepExecutionRequest:
    """A request that is told from others by its handler, with an input of so many bytes."""
    request = StepExecutionRequest()
    request.input.handler = handler
    request.input.input.json = "x" * size
    return request


async def test_a_lone_item_goes_at_once() -> None:
    """P15, PERFORMANCE: nothing waits for company: an item is handed out in the same turn of the loop in which somebody waits."""
    frames = Frames()
    waiting = asyncio.ensure_future(frames.next())
    await asyncio.sleep(0)
    frames.put("execute", step("a"))
    assert not waiting.done()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting.done()
    assert [one.input.handler for one in waiting.result()["execute"]] == ["a"]


async def test_what_gathers_goes_together() -> None:
    """B11: items of all fields that gathered are one frame, which is the stream's message."""
    frames = Frames()
    for n in range(3):
        frames.put("execute", step(str(n)))
    frames.put("adopt", "attempt-7")
    frames.set("hello", {"instance_id": "me"})
    assert frames.size == 5
    message = ExecuteStepsRequest(**await frames.next())
    assert [one.input.handler for one in message.execute] == ["0", "1", "2"]
    assert (list(message.adopt), message.hello.instance_id) == (["attempt-7"], "me")
    assert frames.size == 0


async def test_cancels_and_acknowledgements_go_first() -> None:
    """G1, R27: what is put first leaves before everything that waits, however much that is."""
    frames = Frames()
    for n in range(FRAME_ITEMS + 10):
        frames.put("execute", step(str(n)))
    frames.put_first("cancel", CancelStepRequest(attempt_id="x"))
    frames.put_first("acknowledge", "y")
    first = await frames.next()
    assert [one.attempt_id for one in first["cancel"]] == ["x"]
    assert first["acknowledge"] == ["y"]
    assert len(first["execute"]) == FRAME_ITEMS - 2
    assert len((await frames.next())["execute"]) == 12


async def test_frames_are_cut_by_bytes() -> None:
    """Lesson 38: no frame that holds more than one item exceeds 1 MiB, for 4 MB would end the stream."""
    frames = Frames()
    for n in range(40):
        frames.put("execute", step(str(n), 100_000))
    seen = []
    while frames.size:
        message = ExecuteStepsRequest(**await frames.next())
        assert message.ByteSize() <= FRAME_BYTES
        seen += [one.input.handler for one in message.execute]
    assert seen == [str(n) for n in range(40)]


async def test_a_large_item_goes_alone() -> None:
    """Q15: an item larger than a frame should be, and smaller than a message may be, is a frame of its own."""
    frames = Frames()
    frames.put("execute", step("small"))
    frames.put("execute", step("large", 2 * FRAME_BYTES))
    frames.put("execute", step("after"))
    sizes = [[one.input.handler for one in (await frames.next())["execute"]] for _ in range(3)]
    assert sizes == [["small"], ["large"], ["after"]]


async def test_an_item_that_no_message_can_carry_is_refused_at_its_producer() -> None:
    """Lesson 27, Lesson 34: too large is said at once, typed and for good, and nothing of it is queued."""
    frames = Frames()
    with pytest.raises(FailureError) as caught:
        frames.put("execute", step("huge", LARGEST_ITEM + 1))
    assert (caught.value.failure.code, caught.value.failure.retryable) == ("MESSAGE_TOO_LARGE", False)
    assert frames.size == 0


async def test_closing() -> None:
    """Q22: what was put before the end is still handed out, what comes after is not taken, and whoever waits is told."""
    frames = Frames()
    frames.put("execute", step("last"))
    frames.close()
    frames.put("execute", step("too late"))
    frames.set("hello", {})
    assert [list(frame) async for frame in frames] == [["execute"]]
    assert await frames.next() == {}
    empty = Frames()
    waiting = asyncio.ensure_future(empty.next())
    await asyncio.sleep(0)
    empty.close()
    assert await waiting == {}


async def test_a_reader_that_was_cancelled_loses_nothing() -> None:
    """Q22: an item that comes after its waiting reader was cancelled is there for the next one."""
    frames = Frames()
    waiting = asyncio.ensure_future(frames.next())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    frames.put("adopt", "a")
    assert await frames.next() == {"adopt": ["a"]}


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["execute", "cancel"]), st.integers(0, 5000)), max_size=60))
def test_order_is_kept_and_nothing_is_lost(puts: list[tuple[bool, str, int]]) -> None:
    """R20, Lesson 33: per field and urgency, items leave in the order in which they came, each once."""

    async def scenario() -> None:
        frames = Frames(items=7, frame_bytes=8_000)
        urgent, normal = [], []
        for number, (first, field, size) in enumerate(puts):
            (frames.put_first if first else frames.put)(field, step(str(number), size))
            (urgent if first else normal).append((field, str(number)))
        frames.close()
        left = []
        async for frame in frames:
            assert sum(len(items) for items in frame.values()) <= 7
            left += [(field, one.input.handler) for field, items in frame.items() for one in items]
        for field in ("execute", "cancel"):
            want = [one for one in urgent if one[0] == field] + [one for one in normal if one[0] == field]
            assert [one for one in left if one[0] == field] == want

    asyncio.run(scenario())
