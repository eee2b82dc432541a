"""The database restarts, orderly or not, while clients call: they wait a little longer, and that is all."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from tierflow import Client
from tierflow_durable.database import PATIENCE
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack

FLOW = {
    "name": "restart",
    "version": "1",
    "steps": {
        "say": {"call": "echo", "with": {"n": "${{ input.n }}"}},
        "rest": {"call": "sleep", "with": {"seconds": 0.1}},
    },
    "output": "${{ steps.say.output }}",
}
TIMEOUT = 120.0


class _Calls:
    """Calls of every kind, again and again; notes what failed and how long the longest took."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.over = asyncio.Event()
        self.made = 0
        self.failed: list[str] = []
        self.longest = 0.0
        self.numbers = iter(range(1_000_000))

    async def run(self) -> None:
        kinds = [
            self._execute,
            self._execute,
            self._execute,
            self._look,
            self._list,
            self._count,
            self._watch,
            self._register,
        ]
        await asyncio.gather(*(self._repeat(kind) for kind in kinds))

    async def _repeat(self, kind: Callable[[], Awaitable[None]]) -> None:
        while not self.over.is_set():
            began = time.monotonic()
            try:
                await kind()
            except Exception as error:  # noqa: BLE001 - whatever a client is told is what this test is about
                self.failed.append(
                    f"{kind.__name__} after {time.monotonic() - began:.1f} s: {type(error).__name__}: {error}"
                )
            self.longest = max(self.longest, time.monotonic() - began)
            self.made += 1

    async def _execute(self) -> None:
        n = next(self.numbers)
        assert await self.client.run(FLOW, {"n": n}) == {"n": n}

    async def _look(self) -> None:
        async for swarm in self.client.list(limit=1):
            await self.client.get(swarm.context.swarm_id)
            await self.client.events(swarm.context.swarm_id)

    async def _list(self) -> None:
        assert len([run async for run in self.client.runs(limit=5)]) == 5

    async def _count(self) -> None:
        await self.client.queue()

    async def _watch(self) -> None:
        handle = await self.client.submit(FLOW, {"n": next(self.numbers)})
        assert [event async for event in handle.watch()]

    async def _register(self) -> None:
        await self.client.register_flow({**FLOW, "version": str(next(self.numbers))})


async def test_calls_outlive_a_restart(make_stack: Callable[..., Stack]) -> None:
    """K11, F31, R5, Lesson 29: stopped and killed under calls of every kind, none of which is tried again by the client: no call fails, all is stored right.

    Afterwards no session holds a transaction open, and the auditor finds nothing.
    """
    stack = make_stack(own_servers=True)
    async with Client(stack.address, timeout=TIMEOUT, patience=0) as client:
        await asyncio.gather(*(client.run(FLOW, {"n": -1}) for _ in range(5)))
        calls = _Calls(client)
        away: list[float] = []
        working = asyncio.create_task(calls.run())
        for end in (stack.postgres.stop, stack.postgres.kill, stack.postgres.kill):
            await _more(calls, 30)
            began = time.monotonic()
            await asyncio.to_thread(end)
            await asyncio.to_thread(stack.postgres.start)
            away.append(time.monotonic() - began)
            await _more(calls, 30)
        calls.over.set()
        await working
    assert calls.failed == [] or max(away) > PATIENCE / 2, away
    assert calls.longest < TIMEOUT
    assert all(service.restarts == 0 and service.running for service in stack.services)
    report = await audit(stack.database_url, stack.nats.url, settled=True)
    assert report.problems == []
    await _none_open(stack)


async def _more(calls: _Calls, count: int) -> None:
    made = calls.made
    async with asyncio.timeout(60):
        while calls.made < made + count:
            await asyncio.sleep(0.02)


async def _none_open(stack: Stack) -> None:
    connection: Any = await asyncpg.connect(stack.database_url)
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    assert await connection.fetchval(query) == 0
    await connection.close()
