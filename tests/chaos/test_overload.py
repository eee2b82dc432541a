"""Far more work is offered than there is room for: what is accepted is done, the rest is refused at once and says when to come back, and afterwards all is as before."""

import os
from collections.abc import Callable

import harness
import pytest
from evidence import Evidence
from tierflow import Client
from tierflow.submission import flow_ref, swarm_request
from tierflow_testing.flood import Flood, Tide
from tierflow_testing.overload import Overload
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

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


ONE = {"name": "one", "version": "1", "steps": {"only": {"call": "echo", "with": {"i": "${{ input.i }}"}}}}
RATES = (500, 1000, 1500, 2000, 3000, 4000)
"""Offered one after the other, until no more is done of it."""
FLOODS = (2, 5)
"""Times the most that was done."""
KEPT = 0.8
"""Share of the most that was done, which is done in a flood as well."""
EARLY, LATE = 2.0, 10.0
"""Seconds within which 19 of 20 refusals come, and within which 99 of 100 accepted runs end, on a machine that is full."""


async def _flood(stack: Stack, rate: float, seconds: float) -> Tide:
    """Offers one-step runs at that rate; all that were accepted have ended when it returns."""
    ref = flow_ref("one@1")
    flood = Flood([stack.address], lambda request_id: swarm_request(ref, {"i": 1}, request_id))
    try:
        await flood.offer(rate, seconds)
        await eventually(lambda: not flood.open, 180, message="all are answered, and all that are accepted end")
    finally:
        await flood.close()
    return flood.tide


async def test_beyond_saturation(make_stack: MakeStack, evidence: Evidence) -> None:
    """J10, O7, Lesson 34: with default settings, twice and five times what the machine can do: as much is done as before, the rest is refused early; memory and latency are bounded, and recover."""
    stack = make_stack(slots=1024)
    async with Client(stack.address) as client:
        await harness.ready(client)
        await client.register_flow(ONE)
    clients = Overload(stack, seconds_per_run=0.0)
    try:
        before = await clients.alone(share=0.95)
        clients.sample()
        seconds, peak = SECONDS / 3, 0.0
        for rate in RATES:
            done = (await _flood(stack, rate, seconds)).rate()
            peak = max(peak, done)
            if done < 0.9 * rate:
                break
        tides = {times: await _flood(stack, times * peak, seconds) for times in FLOODS}
        clients.sample()
        after = await clients.alone(share=0.95)
        grown = max(clients.figures.grown().values())
    finally:
        await clients.close()
    held = {
        "answers": all(set(tide.refused) <= {"QUEUE_FULL"} and not tide.without_time for tide in tides.values()),
        "done": all(len(tide.ends) == tide.accepted for tide in tides.values()),
        "kept": all(tide.rate() >= KEPT * peak for tide in tides.values()),
        "early": all(tide.p(tide.refusing, 0.95) < EARLY for tide in tides.values()),
        "latency": all(tide.p([took for _, took in tide.ends], 0.99) < LATE for tide in tides.values()),
        "memory": grown < MEMORY,
        "recovered": after < before * RECOVERED,
    }
    seen = f"{peak:.0f} runs/s at the most; " + "; ".join(
        f"of {times} times that {tide.rate() / peak:.0%} of it done, {sum(tide.refused.values()) / max(1, tide.offered):.0%} refused, 95 % of these within {tide.p(tide.refusing, 0.95):.2f} s, "
        f"99 % of what was accepted ended within {tide.p([took for _, took in tide.ends], 0.99):.1f} s"
        for times, tide in tides.items()
    )  # fmt: skip
    seen += f"; services grew by at most {grown} MiB; 19 of 20 runs alone took {before * 1000:.0f} ms before and {after * 1000:.0f} ms after"
    evidence.add(
        "overload",
        "2 and 5 times the most that the machine can do offered, open loop, default settings",
        len(FLOODS),
        "at least 80 % of the most is done all the while; all that is accepted is done; the rest is refused typed and early, with a time to come back; memory and latency are bounded and recover",
        seen,
        holds=all(held.values()),
    )
    assert [name for name, holds in held.items() if not holds] == [], (
        seen,
        [tide.summary() for tide in tides.values()],
    )


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
