"""DBOS: load and engine in one process, as it is meant to be used; several of them share a database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import uvloop
from dbos import DBOS

from benchmarks.peers.driver import ITEMS, Once, serve, settings


@DBOS.step()
async def nothing() -> dict[str, bool]:
    """A step."""
    return {"ok": True}


@DBOS.workflow()
async def w1(number: int) -> int:
    """One step."""
    await nothing()
    return number


@DBOS.workflow()
async def w2(number: int) -> int:
    """Ten steps, one after the other."""
    for _ in range(10):
        await nothing()
    return number


@DBOS.workflow()
async def w3(items: int) -> int:
    """Steps at the same time and a join."""
    await asyncio.gather(*(nothing() for _ in range(items)))
    return items


async def main() -> None:
    """Runs the engine and drives it."""
    given = settings()
    # every write of DBOS goes through a thread of this pool
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(given["threads"]))
    DBOS(
        config={
            "name": "bench",
            "system_database_url": given["database_url"].replace("postgresql:", "postgresql+psycopg:"),
            "executor_id": f"load-{given['number']}",
            "application_version": "1",
            "log_level": "WARNING",
            "max_executor_threads": given["threads"],
            "sys_db_pool_size": given["pool"],
            # without asking before each transaction whether the connection lives: one round trip less
            "db_engine_kwargs": {"pool_size": given["pool"], "max_overflow": 0, "pool_pre_ping": False},
        }
    )
    DBOS.launch()

    def run(flow: Callable[[int], Awaitable[int]], items: int | None = None) -> Once:
        async def once(number: int) -> None:
            argument = number if items is None else items
            handle = await DBOS.start_workflow_async(flow, argument)
            if await handle.get_result() != argument:
                raise RuntimeError("wrong result")

        return once

    await serve({"w1": run(w1), "w2": run(w2), **{name: run(w3, items) for name, items in ITEMS.items()}})
    os._exit(0)  # its threads would be waited for


if __name__ == "__main__":
    uvloop.run(main())
