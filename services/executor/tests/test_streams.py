"""Progress, held results, and who is connected."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Context
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_executor.clocks import rising
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request

Serve = Callable[..., Any]
COMPLETED, FAILED, CANCELLED = (
    state_pb2.STEP_STATE_COMPLETED,
    state_pb2.STEP_STATE_FAILED,
    state_pb2.STEP_STATE_CANCELLED,
)


def code(result: Any) -> str:
    return ERROR_CODES.name(result.failure.code)


@pytest.mark.parametrize("plain", [False, True])
async def test_progress_is_coalesced(serve: Serve, plain: bool) -> None:
    """H14, H20: 10,000 calls a second give at most ten messages a second; the last value always arrives, before the result; never above 100 %."""
    took: list[float] = []

    def report(context: Context, number: int) -> None:
        context.progress(number / 1e6, f"item {number}", items=float(number))

    def flood_plainly(context: Context) -> None:
        began = time.monotonic()
        end = began + 0.5
        number = 0
        while time.monotonic() < end:
            report(context, number)
            number += 1
            time.sleep(0.00005)
        context.progress(250, "item 10000", items=10_000.0)
        took.append(time.monotonic() - began)

    async def flood(context: Context) -> None:
        began = time.monotonic()
        end = began + 0.5
        number = 0
        while time.monotonic() < end:
            report(context, number)
            number += 1
            await asyncio.sleep(0)
        context.progress(250, "item 10000", items=10_000.0)
        took.append(time.monotonic() - began)

    served = await serve({"flood": flood_plainly if plain else flood})
    async with Peer(served.address, "one") as peer:
        request = a_request("flood")
        await peer.run(request)
        messages = peer.items("progress", request.context.attempt_id)
        assert 2 <= len(messages) <= 10 * took[0] + 2
        assert (messages[-1].percent, messages[-1].message) == (100.0, "item 10000")
        assert messages[-1].metrics["items"] == 10_000.0
        assert [each.percent for each in messages] == sorted(each.percent for each in messages)


async def test_tokens_are_joined_not_lost(serve: Serve) -> None:
    """Q18, H14: texts of kind `token` are put together, so that few messages carry all of them."""
    took: list[float] = []

    async def write(context: Context) -> None:
        began = time.monotonic()
        for number in range(500):
            context.progress(message=f"{number} ", kind="token")
            if number % 50 == 0:
                context.progress(number / 5, "writing", kind="thinking")
                await asyncio.to_thread(lambda: None)
        took.append(time.monotonic() - began)

    served = await serve({"write": write})
    async with Peer(served.address, "one") as peer:
        request = a_request("write")
        await peer.run(request)
        messages = peer.items("progress", request.context.attempt_id)
        assert "".join(each.message for each in messages if each.kind == "token") == "".join(
            f"{n} " for n in range(500)
        )
        assert [each.message for each in messages if each.kind == "thinking"][-1] == "writing"
        assert len(messages) < 10 + 20 * took[0]  # ten a second of each kind


async def test_no_slots_beyond_the_bytes_that_may_be_held(serve: Serve) -> None:
    """R27: results nobody acknowledges are kept, and beyond the bound no slots are granted, until there is room again."""
    served = await serve(slots=4, held_bytes=20_000)
    async with Peer(served.address, "one") as peer:
        requests = [a_request("echo", json.dumps("x" * 5_000)) for _ in range(5)]
        peer.start(*requests)
        await peer.until(lambda: [f.slots for f in peer.frames if f.HasField("slots")] == [0], "no slots")
        await peer.until(lambda: len(peer.results()) == 5, "all results")
        peer.acknowledge(*(each.context.attempt_id for each in requests[:3]))
        await peer.until(lambda: [f.slots for f in peer.frames if f.HasField("slots")] == [0, 4], "slots again")
        peer.send(adopt=[requests[4].context.attempt_id])
        await peer.result(requests[4].context.attempt_id, 2)


async def test_results_expire_at_the_stated_time(serve: Serve) -> None:
    """R27: at its time a result that nobody fetched is forgotten; the id is still not run again."""
    served = await serve(held_seconds=600)
    async with Peer(served.address, "one") as peer:
        request = a_request("echo", "1")
        peer.start(request)
        await peer.result(request.context.attempt_id)
        attempts = served.engine.attempts
        assert attempts.expire(rising()) == []
        assert len(attempts.expire(rising() + 600_000_000)) == 1
        peer.start(request)
        second = await peer.result(request.context.attempt_id, 2)
        assert code(second) == "EXECUTOR_LOST"


@pytest.mark.parametrize("named", [True, False], ids=["a successor", "any orchestrator"])
async def test_a_result_whose_owner_is_gone_is_given_to_another(serve: Serve, named: bool) -> None:
    """R27, N6: an acknowledgement that was lost with its orchestrator does not hold up a drain: a successor, or who else is there, gets the result and acknowledges it."""
    served = await serve()
    request = a_request("echo", "1")
    attempt_id = request.context.attempt_id
    async with Peer(served.address, "dead") as peer:
        await peer.run(request)
    async with Peer(served.address, "heir") as heir:
        if named:  # said after the stream was opened: the heir learnt only then whom it replaces
            heir.send(hello=pb.OrchestratorHello(instance_id="heir", replaces=["dead"]))
            await heir.settled()
        assert heir.results(attempt_id) == []
        served.engine.start_draining()
        assert (await heir.result(attempt_id)).state == COMPLETED
        assert not await served.engine.settled(0.01)
        heir.acknowledge(attempt_id)
        assert await served.engine.settled(5)


async def test_batches_are_cut(serve: Serve) -> None:
    """Q15, Lesson 38: frames have at most 256 items or 1 MiB, and large ones do not stall the stream."""
    served = await serve(slots=1_000)
    async with Peer(served.address, "one") as peer:
        requests = [a_request("echo", json.dumps("x" * 20_000)) for _ in range(120)] + [
            a_request("echo") for _ in range(600)
        ]
        for start in range(0, len(requests), 40):
            peer.start(*requests[start : start + 40])
        await peer.until(lambda: len(peer.results()) == 720, "all results")
        assert max(len(frame.results) for frame in peer.frames) <= 256
        assert max(frame.ByteSize() for frame in peer.frames) <= 1 << 20


async def test_the_newest_stream_of_an_instance_counts(serve: Serve) -> None:
    """R25, Lesson 23: an orchestrator that connects again, before its old connection is known to be dead, gets everything on the new one."""
    served = await serve()
    async with Peer(served.address, "one") as old, Peer(served.address, "one") as new:
        await old.until(lambda: old.ended, "the end of the old stream")
        assert new.hello.slots == served.engine.settings.slots
        assert (await new.run(a_request("echo", "1"))).state == COMPLETED
        assert old.results() == []


async def test_a_hello_in_the_middle(serve: Serve) -> None:
    """R25: an orchestrator that takes over later says so on the stream it has; the answer means that nothing of the old one is started any more."""
    served = await serve()
    async with Peer(served.address, "new") as new, Peer(served.address, "old") as old:
        kept = a_request("sleep", '{"seconds": 0.2}')
        old.start(kept)
        await old.settled()
        new.send(hello=pb.OrchestratorHello(instance_id="new", name="new", replaces=["old"]))
        await new.until(lambda: new.items("replaced") == ["old"], "the answer")
        await old.until(lambda: old.ended, "the end of the old stream")
        assert old.error is not None
        new.send(adopt=[kept.context.attempt_id])
        assert (await new.result(kept.context.attempt_id)).state == COMPLETED


async def test_slots_are_divided(serve: Serve) -> None:
    """R24: three orchestrators share ten slots 4, 3, 3; with one slot each has one."""
    served = await serve(slots=10)
    async with Peer(served.address, "a"), Peer(served.address, "b"), Peer(served.address, "c"):
        assert sorted(stream.slots for stream in served.engine.streams) == [3, 3, 4]
    served = await serve(slots=1)
    async with Peer(served.address, "a") as a, Peer(served.address, "b") as b:
        assert (a.hello.slots, b.hello.slots) == (1, 1)


async def test_results_outlive_a_wall_clock_that_jumps(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """R27, R17: a wall clock that jumps ahead by two hours drops no result that waits for its acknowledgement."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        request = a_request("echo", "1")
        peer.start(request)
        await peer.result(request.context.attempt_id)
        real = time.time_ns
        with monkeypatch.context() as jump:
            jump.setattr(time, "time_ns", lambda: real() + 7200 * 10**9)
            served.engine._expire()
        assert served.engine.attempts.get(request.context.attempt_id) is not None
        peer.send(adopt=[request.context.attempt_id])
        await peer.result(request.context.attempt_id, 2)
