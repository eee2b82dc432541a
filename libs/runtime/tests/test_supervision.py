"""Background loops under supervision."""

import asyncio

import pytest
from tierflow_runtime.supervision import Restart, Supervisor

AT_ONCE = Restart(first=0.0, longest=0.0)


async def test_loops_end_with_their_supervisor() -> None:
    """B15: nothing started in the background outlives the supervisor, and the count is right all the time."""
    before = asyncio.all_tasks()
    ended = []

    async def forever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with Supervisor() as supervisor:
        for name in "ab":
            supervisor.loop(name, lambda name=name: forever(name))
        supervisor.spawn("short", asyncio.sleep(0))
        assert supervisor.count == 3
        while supervisor.count == 3:
            await asyncio.sleep(0)
        assert supervisor.count == 2
    assert sorted(ended) == ["a", "b"]
    assert supervisor.count == 0
    assert asyncio.all_tasks() == before


async def test_a_crash_ends_the_body() -> None:
    """B15, Lesson 20: the crash of a loop without restart reaches whoever runs the service, as it was and with the loop's name."""
    before = asyncio.all_tasks()

    async def crash() -> None:
        raise OSError("gone")

    async def service() -> None:
        async with Supervisor() as supervisor:
            supervisor.loop("heartbeat", crash)
            supervisor.loop("other", asyncio.Event().wait)
            await asyncio.Event().wait()

    with pytest.raises(OSError, match="gone") as caught:
        await service()
    assert caught.value.__notes__ == ["in the background: heartbeat"]
    assert asyncio.all_tasks() == before


async def test_a_crash_of_spawned_work() -> None:
    """B15: work that was to end by itself and failed is not swallowed either."""

    async def crash() -> None:
        raise ValueError("no")

    async def service() -> None:
        async with Supervisor() as supervisor:
            supervisor.spawn("greeting", crash())
            await asyncio.Event().wait()

    with pytest.raises(ValueError, match="no"):
        await service()


async def test_restartable_loops_begin_again() -> None:
    """B15, Lesson 29: a loop that was declared restartable begins again after each crash, and the restarts are counted."""
    starts = 0
    done = asyncio.Event()

    async def flaky() -> None:
        nonlocal starts
        starts += 1
        if starts < 4:
            raise ConnectionError("weather")
        done.set()
        await asyncio.Event().wait()

    async with Supervisor() as supervisor:
        supervisor.loop("nats", flaky, restart=AT_ONCE)
        await done.wait()
        assert (starts, supervisor.restarts, supervisor.count) == (4, 3, 1)


def test_delays_grow_and_have_a_cap() -> None:
    """F9: the pause before a restart doubles up to its cap, varied by a fifth."""
    restart = Restart(first=0.1, longest=2.0)
    for crashes, middle in ((1, 0.1), (2, 0.2), (3, 0.4), (6, 2.0), (1000, 2.0)):
        for _ in range(50):
            assert 0.8 * middle <= restart.delay(crashes) <= 1.2 * middle


async def test_the_bodys_own_error_wins() -> None:
    """F23: an error of the body leaves as it is, not as a group."""

    async def service() -> None:
        async with Supervisor() as supervisor:
            supervisor.loop("other", asyncio.Event().wait)
            raise KeyError("body")

    with pytest.raises(KeyError):
        await service()


async def test_stop() -> None:
    """B15: stopping waits until everything has ended."""
    ended = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    async with Supervisor() as supervisor:
        supervisor.loop("slow", slow)
        await asyncio.sleep(0)
        await supervisor.stop()
        assert ended.is_set()


async def test_cancelling_from_outside() -> None:
    """B15: a service that is cancelled takes its loops with it."""
    before = asyncio.all_tasks()
    started = asyncio.Event()

    async def service() -> None:
        async with Supervisor() as supervisor:
            supervisor.loop("other", asyncio.Event().wait)
            started.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(service())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before
