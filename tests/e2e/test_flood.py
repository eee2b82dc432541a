"""More swarms than can be started: who is accepted is done, who is not hears when to come back, and the SDK comes back by itself."""

import asyncio
from collections.abc import Iterator

import pytest
from tierflow import Client
from tierflow.submission import flow_ref, swarm_request
from tierflow_testing.flood import Flood
from tierflow_testing.overload import Overload
from tierflow_testing.stack import Stack, StackOptions
from tierflow_testing.waiting import eventually

ONE = {"name": "one", "version": "1", "steps": {"only": {"call": "echo", "with": {"i": "${{ input.i }}"}}}}
OFFERED = 4000.0
"""Swarms in one second: several times what any machine does in Python."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("flood"), StackOptions(slots=256)) as stack:
        yield stack


async def test_a_flood_ends_well(stack: Stack) -> None:
    """J10, H13, Lesson 34: with the settings that everybody has, each of some thousands is accepted and ends, or is refused typed and told when to come back."""
    async with Client(stack.address, patience=60) as client:
        await eventually(client.executors, 60)
        await client.register_flow(ONE)
        assert await client.run("one@1", {"i": 0}) == {"only": {"i": 0}}
    ref = flow_ref("one@1")
    flood = Flood([stack.address], lambda request_id: swarm_request(ref, {"i": 1}, request_id))
    clients = Overload(stack, seconds_per_run=0.0)
    clients.sample()
    try:
        await flood.offer(OFFERED, 1.0)
        await eventually(lambda: not flood.open, 240, message="all are answered, and all that are accepted end")
        clients.sample()
    finally:
        await flood.close()
        await clients.close()
    tide = flood.tide
    assert tide.accepted == len(tide.ends)
    assert tide.accepted + sum(tide.refused.values()) == tide.offered
    assert set(tide.refused) <= {"QUEUE_FULL"}
    assert tide.without_time == 0
    assert max(clients.figures.grown().values()) < 128


async def test_a_client_with_much_to_do_is_slowed_down(stack: Stack) -> None:
    """J10: two clients ask for more at once than may wait; nobody hears of a refusal, all is done."""
    count = 1500
    async with Client(stack.address, patience=240) as one, Client(stack.address, patience=240) as other:
        await one.register_flow(ONE)
        runs = [client.run("one@1", {"i": number}) for number in range(count) for client in (one, other)]
        results = await asyncio.gather(*runs)
    assert results == [{"only": {"i": number}} for number in range(count) for _ in (one, other)]
