"""Many tenants at once, each with a mark in everything that it says: nobody sees a mark that is not theirs."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg
from tierflow import Client, NotFound
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

TENANTS, RUNS = 25, 16
MARK = re.compile(rb"mark-([a-z0-9]+)-[0-9]+")
FLOW: dict[str, Any] = {
    "name": "marked",
    "version": "1",
    "steps": {
        "say": {"call": "echo", "with": {"mark": "${{ input.mark }}"}},
        "each": {"map": "${{ [input.mark, input.mark] }}", "call": "echo", "with": {"again": "${{ item }}"}},
        "refuse": {
            "fail": {"code": "REFUSED", "message": "${{ steps.say.output.mark }} is refused"},
            "on_error": "continue",
            "needs": ["each"],
        },
    },
    "output": {"mark": "${{ steps.say.output.mark }}", "all": "${{ steps.each.output }}"},
}


async def _work(client: Client, tenant: str) -> list[str]:
    """The ids of a tenant's swarms, all ended, each with its own mark."""
    await client.register_flow(FLOW)

    async def one(number: int) -> str:
        mark = f"mark-{tenant}-{number}"
        handle = await client.submit("marked@1", {"mark": mark}, labels={"mark": mark}, correlation_id=mark)
        assert await handle.result() == {"mark": mark, "all": [{"again": mark}, {"again": mark}]}
        return handle.id

    return list(await asyncio.gather(*(one(number) for number in range(RUNS))))


async def _shown(client: Client, ids: list[str]) -> bytes:
    """Everything that a tenant is shown of swarms: lists, one swarm whole, its events."""
    listed = [swarm async for swarm in client.list(limit=None)]
    assert {swarm.context.swarm_id for swarm in listed} == set(ids)
    texts = [str(swarm) for swarm in listed]
    texts.append(str(await client.get(ids[0])))
    texts += [str(event) async for event in client.watch(ids[0])]
    return "\n".join(texts).encode()


async def test_nobody_sees_what_is_not_theirs(make_stack: Callable[..., Stack]) -> None:
    """L4, O13, A8, L16: 400 runs of 25 tenants at once over two replicas of each tier; results, lists, events, subjects and logs hold no mark of another."""
    stack = make_stack(coordinators=2, orchestrators=2, executors=2, slots=64)
    heard: dict[str, Counter[str]] = defaultdict(Counter)

    async def hear(message: Msg) -> None:
        for mark in MARK.findall(message.data):
            heard[message.subject.split(".")[2]][mark.decode()] += 1

    connection = await nats.connect(stack.nats.url)
    await connection.subscribe("tierflow.v1.>", cb=hear)
    names = [f"tenant{number}" for number in range(TENANTS)]
    addresses = [service.address for service in stack.coordinators]
    clients = [Client(addresses[n % 2], tenant=name, patience=60) for n, name in enumerate(names)]
    ids = dict(zip(names, await asyncio.gather(*map(_work, clients, names)), strict=True))
    for name, client in zip(names, clients, strict=True):
        shown = await _shown(client, ids[name])
        assert {mark.decode() for mark in MARK.findall(shown)} == {name}
    stranger, owner = clients[0], names[1]
    for call in (stranger.get, stranger.cancel, stranger.pause, stranger.stop):
        with pytest.raises(NotFound):
            await call(ids[owner][0])
    with pytest.raises(NotFound):
        async for _ in stranger.watch(ids[owner][0]):
            pass
    await eventually(lambda: len(heard) == TENANTS)
    assert {subject: set(marks) for subject, marks in heard.items()} == {name: {name} for name in names}
    for client in clients:
        await client.close()
    await connection.close()
    for service in stack.services:
        assert not MARK.findall(service.log.read_bytes()), service.name
