"""What the client itself costs."""

import asyncio
import subprocess
import sys
import time

from tierflow import Client

RUNS, WIDTH = 3000, 256
MOST = 60e-6
"""Seconds of processor time per run, request, answer and result included; the caller's own tasks and values too. Twice what it costs on a quiet machine, so that a
change in kind is seen and a busy neighbour is not."""


async def test_a_run_costs_the_client_little() -> None:
    """P15, A14: 256 in flight against a scripted Tier 1 in another process; the best of four, as the machine is shared."""
    command = [sys.executable, "-m", "tierflow_testing.fake_coordinator"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: ASYNC220 - before anything is measured
        assert server.stdout is not None
        try:
            async with Client(f"127.0.0.1:{int(server.stdout.readline())}") as client:
                await client.run("echo", {"n": -1})
                costs = [await _cost(client) for _ in range(4)]
        finally:
            server.terminate()
    assert min(costs) <= MOST, [f"{cost * 1e6:.1f} us" for cost in costs]


async def _cost(client: Client) -> float:
    numbers = iter(range(RUNS))

    async def caller() -> None:
        for number in numbers:
            assert await client.run("echo", {"n": number}) == {"n": number}

    before = time.process_time()
    await asyncio.gather(*(caller() for _ in range(WIDTH)))
    return (time.process_time() - before) / RUNS
