"""Procrastinate: load and engine in one process. It is a queue without results: a run counts as ended when its last function ends, before that is stored."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os

import procrastinate
import uvloop

from benchmarks.peers.driver import ITEMS, Once, serve, settings

GIVEN = settings()
QUEUE = f"load-{GIVEN['number']}"
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=GIVEN["database_url"], min_size=4, max_size=GIVEN["pool"])
)
ended: dict[int, asyncio.Future[None]] = {}
left_of: dict[int, int] = {}


@app.task(queue=QUEUE)
async def w1(number: int) -> None:
    """One step."""
    ended.pop(number).set_result(None)


@app.task(queue=QUEUE)
async def w2(number: int, left: int) -> None:
    """One of ten steps; puts the next into the queue."""
    if left > 1:
        await w2.defer_async(number=number, left=left - 1)
    else:
        ended.pop(number).set_result(None)


@app.task(queue=QUEUE)
async def each(number: int) -> None:
    """One of the steps at the same time; the last one is the join."""
    left_of[number] -= 1
    if not left_of[number]:
        del left_of[number]
        ended.pop(number).set_result(None)


@app.task(queue=QUEUE)
async def w3(number: int, items: int) -> None:
    """Puts the steps into the queue, all with one statement."""
    left_of[number] = items
    await each.batch_defer_async(*({"number": number} for _ in range(items)))


async def main() -> None:
    """Runs the engine and drives it."""
    logging.basicConfig(level=logging.ERROR)
    numbers = itertools.count()
    async with app.open_async():
        if GIVEN["prepare"]:
            await app.schema_manager.apply_schema_async()
        engine = asyncio.create_task(
            app.run_worker_async(
                queues=[QUEUE],
                concurrency=GIVEN["concurrency"],
                fetch_job_polling_interval=1.0,  # a notification is missed now and then; five seconds otherwise
                install_signal_handlers=False,
            )
        )

        def run(first: procrastinate.tasks.Task, **arguments: int) -> Once:
            async def once(_: int) -> None:
                number = next(numbers)
                end = ended[number] = asyncio.get_running_loop().create_future()
                await first.defer_async(number=number, **arguments)
                await end

            return once

        fans = {name: run(w3, items=items) for name, items in ITEMS.items()}
        await serve({"w1": run(w1), "w2": run(w2, left=10), **fans})
        engine.cancel()
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main())
