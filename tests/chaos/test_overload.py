"""Far more work is offered than there is room for: what is accepted is done, the rest is refused at once and says when to come back, and afterwards all is as before."""

import os
from collections.abc import Callable

import harness
import pytest
from evidence import Evidence
from tierflow import Client
from tierflow_testing.overload import Overload
from tierflow_testing.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
MakeStack = Callable[..., Stack]

SECONDS = float(os.environ.get("CHAOS_OVERLOAD", "15"))
"""How long; 60 is the long form."""
SLOTS = 4
EACH = 0.4
"""Seconds of a run: with the slots, what the system can do."""
CAPACITY = SLOTS / EACH
TIMES = 10
ROOM = 100
"""Swarms that may be under way."""
MEMORY = 128
"""MiB by which a service may grow."""
RECOVERED = 2.5
"""Times what a run took alone, 19 of 20, before."""


async def test_ten_times_the_capacity(make_stack: MakeStack, evidence: Evidence) -> None:
    """J10, Lesson 34: an open loop of ten times what can be done; nothing accepted is lost, refusals are typed, early and say when, memory is bounded, latency recovers."""
    stack = make_stack(slots=SLOTS, coordinator_environment={"TIERFLOW_MAX_SWARMS": str(ROOM)})
    async with Client(stack.address) as client:
        await harness.ready(client)
    clients = Overload(stack, seconds_per_run=EACH)
    try:
        before = await clients.alone(share=0.95)
        await clients.at_rate(CAPACITY * TIMES, SECONDS)
        figures = clients.figures
        states = await clients.finished()
        after = await clients.alone(share=0.95)
        clients.sample()
    finally:
        await clients.close()
    refused = sum(figures.refused.values())
    early = figures.p("refusing", 0.95)
    grown = figures.grown()
    held = {
        "answers": figures.wrong == [] and figures.without_time == 0,
        "typed": set(figures.refused) == {"QUEUE_FULL"} and refused > figures.offered / 2,
        "early": early < 1.0,
        "done": states == {"SWARM_STATE_COMPLETED": len(figures.accepted)} and len(figures.accepted) >= ROOM,
        "memory": max(grown.values()) < MEMORY,
        "recovered": after < before * RECOVERED,
        "ready": figures.not_ready == 0,
    }
    seen = (
        f"{figures.offered} offered in {SECONDS:.0f} s, {len(figures.accepted)} accepted and all done: {held['done']}; {refused} refused with QUEUE_FULL and a time, 95 % within {early * 1000:.0f} ms; "
        f"grown by at most {max(grown.values())} MiB; 19 of 20 runs alone took {before * 1000:.0f} ms before and {after * 1000:.0f} ms after"
    )  # fmt: skip
    evidence.add(
        "overload",
        f"{TIMES} times the capacity offered, open loop",
        1,
        "what is accepted is done; the rest is refused typed, within a second, with a time to come back; no service grows by more than 128 MiB or is unready; latency recovers",
        seen,
        holds=all(held.values()),
    )
    assert [name for name, holds in held.items() if not holds] == [], (seen, figures.wrong[:5], figures.summary())
