"""Limits, stopping, slots, progress: what an attempt may take, and that it really ends."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tierflow import Context
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request
from tierflow_testing.waiting import eventually

Serve = Callable[..., Any]
COMPLETED, FAILED, CANCELLED = (
    state_pb2.STEP_STATE_COMPLETED,
    state_pb2.STEP_STATE_FAILED,
    state_pb2.STEP_STATE_CANCELLED,
)


def code(result: Any) -> str:
    return ERROR_CODES.name(result.failure.code)


async def test_a_timeout_stops_the_work(serve: Serve) -> None:
    """F5, F32, Lesson 14: the handler itself is cancelled, and can clean up; the failure is TIMEOUT and retryable."""
    cleaned = asyncio.Event()

    async def wait(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    served = await serve({"wait": wait})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("wait", timeout=0.1))
        assert (code(result), result.failure.retryable) == ("TIMEOUT", True)
        assert cleaned.is_set()
        assert result.usage.wall_time.ToMilliseconds() / 1000 >= 0.1
        assert result.usage.attempts == 1


async def test_the_nearest_limit_counts(serve: Serve) -> None:
    """Q2, D5: the flow's timeout before the handler's own; the deadline and the granted wall time have codes of their own."""

    async def wait(context: Context) -> None:
        await asyncio.Event().wait()

    served = await serve({"wait": wait}, {"wait": {"timeout": "50ms"}}, default_timeout=30.0)
    async with Peer(served.address, "one") as peer:
        assert code(await peer.run(a_request("wait", timeout=None))) == "TIMEOUT"
        assert code(await peer.run(a_request("wait", timeout=9.0, time_remaining=0.1))) == "DEADLINE_EXCEEDED"
        assert code(await peer.run(a_request("wait", timeout=9.0, wall_time=0.1))) == "BUDGET_EXHAUSTED"


async def test_without_any_timeout_there_is_a_default(serve: Serve) -> None:
    """F32: an attempt for which nobody says anything is held to the executor's default (30 s; here less)."""

    async def wait(context: Context) -> None:
        await asyncio.Event().wait()

    served = await serve({"wait": wait}, default_timeout=0.1)
    async with Peer(served.address, "one") as peer:
        assert code(await peer.run(a_request("wait", timeout=None))) == "TIMEOUT"
    from tierflow_executor.settings import ExecutorSettings

    assert ExecutorSettings().default_timeout == 30.0


async def test_heartbeats_come_from_the_work(serve: Serve) -> None:
    """K9, Q2, Lesson 20: signs of life keep an attempt going; one whose work is stuck is stopped although its executor lives."""

    async def beat(context: Context, beats: int, pause: float = 0.05) -> str:
        beat = 0
        while beat < beats:
            await asyncio.sleep(pause)
            context.heartbeat({"at": beat})
            beat += 1
        if beats < 5:
            await asyncio.Event().wait()
        return "done"

    served = await serve({"beat": beat})
    async with Peer(served.address, "one") as peer:
        for pause in (0.05, 0.5, 5.0):  # a slow machine is silent for longer; still, less than the whole takes
            given = json.dumps({"beats": 10, "pause": pause})
            well = await peer.run(a_request("beat", given, heartbeat_timeout=6 * pause))
            if well.state == COMPLETED:
                break
        assert well.state == COMPLETED
        given = json.dumps({"beats": 2, "pause": pause})
        stuck = a_request("beat", given, heartbeat_timeout=6 * pause, timeout=120.0)
        result = await peer.run(stuck)
        assert (code(result), result.failure.retryable) == ("HEARTBEAT_TIMEOUT", True)
        assert json.loads(result.last_heartbeat.json) == {"at": 1}
        latest = peer.items("progress", stuck.context.attempt_id)[-1]
        assert json.loads(latest.heartbeat.json) == {"at": 1}


async def test_the_next_attempt_knows_where_the_last_was(serve: Serve) -> None:
    """Q3: the details of the last heartbeat reach the handler."""

    async def resume(context: Context) -> Any:
        return context.last_heartbeat

    served = await serve({"resume": resume})
    async with Peer(served.address, "one") as peer:
        request = a_request("resume")
        assert (await peer.run(request)).output.json == "null"
        request = a_request("resume")
        request.input.last_heartbeat.json = '{"page": 7}'
        assert json.loads((await peer.run(request)).output.json) == {"page": 7}


async def test_a_plain_function_is_told(serve: Serve) -> None:
    """G1, F32: a plain function sees `context.cancelled`, `context.check()` ends it, and the receipt says STOPPED."""

    def spin(context: Context) -> None:
        while True:
            context.check()
            time.sleep(0.005)

    served = await serve({"spin": spin})
    async with Peer(served.address, "one") as peer:
        request = a_request("spin")
        attempt_id = request.context.attempt_id
        peer.start(request)
        await peer.item("started", attempt_id)
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=attempt_id, reason="no longer needed")])
        result = await peer.result(attempt_id)
        assert result.state == CANCELLED
        assert result.failure.message == "no longer needed"
        assert (await peer.item("cancelled", attempt_id)).receipt == pb.CANCEL_RECEIPT_STOPPED


async def test_what_cannot_be_stopped_is_said_so(serve: Serve) -> None:
    """R29, Lesson 14: after the grace time the receipt is UNCONFIRMED and the slot stays taken, until it really ends; then its result comes."""
    gate = threading.Event()
    served = await serve({"deaf": lambda: gate.wait() and "late"}, slots=2, grace=0.1)
    async with Peer(served.address, "one") as peer:
        request = a_request("deaf")
        attempt_id = request.context.attempt_id
        peer.start(request)
        await peer.item("started", attempt_id)
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=attempt_id)])
        assert (await peer.item("cancelled", attempt_id)).receipt == pb.CANCEL_RECEIPT_UNCONFIRMED
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=attempt_id)])
        assert (await peer.item("cancelled", attempt_id, 2)).receipt == pb.CANCEL_RECEIPT_UNCONFIRMED
        assert served.engine.runner.busy == 1
        assert peer.results(attempt_id) == []
        gate.set()
        result = await peer.result(attempt_id)
        assert (result.state, result.output.json) == (COMPLETED, '"late"'), "work that was done is not thrown away"


async def test_a_timeout_that_cannot_be_enforced(serve: Serve) -> None:
    """F5, Lesson 17, Lesson 26: the attempt fails after the grace time, nobody waits for ever; its slot is not granted again until the work has ended."""
    gate = threading.Event()
    served = await serve({"deaf": gate.wait}, slots=2, grace=0.1)
    async with Peer(served.address, "one") as peer:
        request = a_request("deaf", timeout=0.1)
        result = await peer.run(request)
        assert code(result) == "TIMEOUT"
        assert "may still be running" in result.failure.message
        await peer.until(lambda: [f.slots for f in peer.frames if f.HasField("slots")] == [1], "one slot less")
        gate.set()
        await peer.until(lambda: [f.slots for f in peer.frames if f.HasField("slots")] == [1, 2], "the slot again")
        assert len(peer.results(request.context.attempt_id)) == 1


async def test_a_handler_that_swallows_its_cancellation(serve: Serve) -> None:
    """F32, Lesson 32: an async handler that ignores being cancelled is unconfirmed, is told again, and its slot comes back when it gives in."""
    told = 0

    async def stubborn(context: Context) -> None:
        nonlocal told
        while told < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1

    served = await serve({"stubborn": stubborn}, slots=2, grace=0.05)
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("stubborn", timeout=0.05))
        assert code(result) == "TIMEOUT"
        await eventually(lambda: served.engine.runner.busy == 0)
        assert told == 3


async def test_a_cancel_before_the_first_line(serve: Serve) -> None:
    """G1, F28: an attempt that is cancelled in the moment it starts still has a result and gives its slot back."""

    async def wait(context: Context) -> None:
        await asyncio.Event().wait()

    served = await serve({"wait": wait}, slots=4)
    async with Peer(served.address, "one") as peer:
        requests = [a_request("wait") for _ in range(50)]
        ids = [each.context.attempt_id for each in requests]
        peer.send(execute=requests)
        peer.send(cancel=[pb.CancelStepRequest(attempt_id=each) for each in ids])
        await peer.until(lambda: len(peer.results()) == 50, "all results")
        assert {each.state for each in peer.results()} == {CANCELLED}
        assert {each.receipt for each in peer.items("cancelled")} == {pb.CANCEL_RECEIPT_STOPPED}
        assert served.engine.runner.busy == served.engine.runner.waiting == 0


async def test_no_more_than_the_slots_run_at_once(serve: Serve) -> None:
    """D14, Q11: further attempts wait, known as SCHEDULED, in the order in which they came."""
    running, most, order = 0, 0, []

    async def count(context: Context, n: int) -> None:
        nonlocal running, most
        order.append(n)
        running += 1
        most = max(most, running)
        await asyncio.to_thread(lambda: None)
        running -= 1

    served = await serve({"count": count}, slots=3)
    async with Peer(served.address, "one") as peer:
        requests = [a_request("count", json.dumps({"n": number})) for number in range(20)]
        peer.start(*requests)
        last = requests[-1].context.attempt_id
        peer.send(adopt=[last])
        assert (await peer.item("statuses", last)).state == state_pb2.STEP_STATE_SCHEDULED
        await peer.until(lambda: len(peer.results()) == 20)
        assert most == 3
        assert order == list(range(20))


async def test_a_queued_attempt_does_not_outwait_its_deadline(serve: Serve) -> None:
    """D5: what waits for a slot beyond its deadline ends with DEADLINE_EXCEEDED and is never started."""
    gate = asyncio.Event()
    started = []

    async def wait(context: Context) -> None:
        started.append(context.attempt_id)
        await gate.wait()

    served = await serve({"wait": wait}, slots=1)
    async with Peer(served.address, "one") as peer:
        first, second = a_request("wait"), a_request("wait", time_remaining=0.1)
        peer.start(first, second)
        assert code(await peer.result(second.context.attempt_id)) == "DEADLINE_EXCEEDED"
        gate.set()
        await peer.result(first.context.attempt_id)
        assert started == [first.context.attempt_id]


async def test_a_slow_plain_function_blocks_nobody(serve: Serve) -> None:
    """Lesson 23, F27: plain functions run in threads; while all of those are taken everything else goes on."""
    gate = threading.Event()
    served = await serve({"slow": gate.wait}, threads=2, slots=50)
    async with Peer(served.address, "one") as peer:
        slow = [a_request("slow") for _ in range(4)]
        peer.start(*slow)
        for _ in range(20):
            assert (await peer.run(a_request("echo", "1"))).state == COMPLETED
        assert served.engine.runner.busy_threads == 2
        gate.set()
        for each in slow:
            assert (await peer.result(each.context.attempt_id)).state == COMPLETED


async def test_fast_attempts_are_not_announced(serve: Serve) -> None:
    """P15: `started` is a message only where it tells something: after 50 ms; the result carries the time anyhow."""
    served = await serve()
    async with Peer(served.address, "one") as peer:
        fast, slow = a_request("echo", "1"), a_request("sleep", '{"seconds": 0.2}')
        await peer.run(fast)
        result = await peer.run(slow)
        assert peer.items("started", fast.context.attempt_id) == []
        announced = peer.items("started", slow.context.attempt_id)
        assert [each.started_at for each in announced] == [result.started_at]


async def test_nothing_is_left_behind(serve: Serve) -> None:
    """B15: after 1,000 attempts of every kind the tasks are what they were, and nothing is held or timed."""

    async def work(context: Context, n: int) -> int:
        if n % 7 == 0:
            await asyncio.to_thread(lambda: None)
        if n % 11 == 0:
            raise ValueError(n)
        context.progress(50)
        return n

    served = await serve({"work": work, "plain": lambda: None})
    async with Peer(served.address, "one") as peer:
        await peer.settled()
        before = len(asyncio.all_tasks())
        requests = [a_request("work", json.dumps({"n": n})) for n in range(900)] + [
            a_request("plain") for _ in range(100)
        ]
        peer.start(*requests)
        await peer.until(lambda: len(peer.results()) == 1_000, "all results")
        peer.acknowledge(*(each.context.attempt_id for each in requests))
        await peer.settled()
        assert len(asyncio.all_tasks()) == before
        engine = served.engine
        assert (engine.runner.busy, engine.runner.waiting, len(engine.attempts), engine.attempts.holding.bytes) == (
            0,
            0,
            0,
            0,
        )
