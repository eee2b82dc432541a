"""What should not happen: odd values, defects of the executor itself, a blocked loop. No attempt stays without an end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tierflow import Context
from tierflow_contracts.common.v1 import state_pb2
from tierflow_contracts.executor.v1 import executor_service_pb2 as pb
from tierflow_executor import observing, wire
from tierflow_executor.watchdog import Watchdog
from tierflow_executor.wheel import Wheel
from tierflow_runtime.wire import ERROR_CODES
from tierflow_testing.executor_peer import Peer, a_request

Serve = Callable[..., Any]
COMPLETED, FAILED = state_pb2.STEP_STATE_COMPLETED, state_pb2.STEP_STATE_FAILED


def code(result: Any) -> str:
    return ERROR_CODES.name(result.failure.code)


ODD: dict[str, Callable[[Context], Any]] = {
    "progress with a text": lambda context: context.progress("half"),  # type: ignore[arg-type]
    "metric with a text": lambda context: context.progress(1, n="x"),  # type: ignore[arg-type]
    "fraction of a credit": lambda context: context.spend(0.5),  # type: ignore[arg-type]
    "negative spending": lambda context: context.spend(-1),
    "heartbeat that is not JSON": lambda context: context.heartbeat(object()),
    "heartbeat that is too large": lambda context: context.heartbeat("x" * 70_000),
    "broken text in an error": lambda context: (_ for _ in ()).throw(ValueError("\ud800\0")).__next__(),
}
FINE: dict[str, Callable[[Context], Any]] = {
    "progress beyond all bounds": lambda context: context.progress(float("nan"), "\ud800\0", x=float("inf")),
    "more credits than there are": lambda context: [context.spend(2**63 - 1, pages=1) for _ in range(3)] and None,
    "thousands of metrics": lambda context: context.progress(1, **{f"m{n}": n for n in range(5_000)}),
    "broken text in the log": lambda context: context.log.info("\ud800\0" * 10_000),
}


@pytest.mark.parametrize("name", [*ODD, *FINE])
async def test_odd_values(serve: Serve, name: str) -> None:
    """F28, Lesson 28: whatever a handler hands over, its attempt ends, as its own mistake or as if nothing had been; the executor goes on."""
    act = (ODD | FINE)[name]

    def odd(context: Context) -> None:
        act(context)

    served = await serve({"odd": odd})
    async with Peer(served.address, "one") as peer:
        result = await peer.run(a_request("odd"))
        assert (result.state, code(result)) == ((COMPLETED, "") if name in FINE else (FAILED, "HANDLER_FAILED"))
        assert (await peer.run(a_request("echo"))).state == COMPLETED
        assert served.engine.last_failure is None


async def test_a_defect_while_starting(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """F28, Lesson 17: an attempt that the executor itself fails to start ends with INTERNAL, and DescribeExecutor shows it."""

    def broken(*_: Any) -> None:
        raise RuntimeError("defect")

    served = await serve()
    async with Peer(served.address, "one") as peer:
        monkeypatch.setattr(observing.Observer, "accepted", broken)
        assert code(await peer.run(a_request("echo"))) == "INTERNAL"
        monkeypatch.undo()
        assert (await peer.run(a_request("echo"))).state == COMPLETED
        described: Any = await peer.stub.DescribeExecutor(pb.DescribeExecutorRequest())  # type: ignore[misc]
        assert "defect" in described.last_failure.message


async def test_a_result_that_cannot_be_coded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """F28: it becomes INTERNAL; the slot is free again."""
    real, calls = wire.result, []

    def broken(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise ValueError("defect")
        return real(*args)

    monkeypatch.setattr(wire, "result", broken)
    served = await serve(slots=1)
    async with Peer(served.address, "one") as peer:
        assert code(await peer.run(a_request("echo"))) == "INTERNAL"
        assert (await peer.run(a_request("echo"))).state == COMPLETED


async def test_one_timer_that_fails_does_not_stop_the_others() -> None:
    """F27, Lesson 26: the wheel goes on, and says what failed."""

    class Item:
        place = 0

    items = [Item() for _ in range(3)]
    seen: list[Item] = []
    broken: list[BaseException] = []
    done = asyncio.Event()

    def due(item: Item) -> None:
        seen.append(item)
        if len(seen) == 3:
            done.set()
        if len(seen) == 1:
            raise RuntimeError("defect")

    wheel: Wheel[Item] = Wheel(due, broken.append)
    for item in items:
        wheel.put(item, asyncio.get_running_loop().time())
    await asyncio.wait_for(done.wait(), 60)
    assert seen == items
    assert len(broken) == 1
    gone = Item()
    wheel.put(gone, asyncio.get_running_loop().time() + 0.05)
    wheel.remove(gone)
    later = Item()
    done.clear()
    wheel.put(later, asyncio.get_running_loop().time() + 0.1)
    wheel.put(later, asyncio.get_running_loop().time() + 0.01)
    seen[:] = items[:2]
    await asyncio.wait_for(done.wait(), 60)
    assert seen[2] is later
    wheel.close()


async def test_a_blocked_loop_is_noticed() -> None:
    """Lesson 23, K9: it is reported with the place where it is stuck, once, while it is stuck."""
    found: list[str] = []
    noticed = threading.Event()

    def blocked(stack: str) -> None:
        found.append(stack)
        noticed.set()

    watchdog = Watchdog(0.05, blocked)
    watchdog.start()
    blocking_handler(noticed)
    watchdog.stop()
    assert len(found) == 1
    assert "blocking_handler" in found[0]


def blocking_handler(noticed: threading.Event) -> None:
    """Blocks the loop that calls it until that was noticed."""
    assert noticed.wait(10)
    assert time.monotonic() > 0
