"""Offers a mixed load to the real three tiers for a while, watches them, asks the auditor, and writes a report: `make load MINUTES=10`.

MINUTES (10), RATE (pieces of work a second, 40: below what two processors can do), REPORT (a directory; `.tierflow/load` where it is left out). Ends with 1 where something does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys

import uvloop
from tierflow import Client
from tierflow_testing.auditor import audit
from tierflow_testing.stack import Stack
from tierflow_testing.waiting import eventually

from benchmarks import measuring
from benchmarks.curves.stage import ROOT, client_of, system
from benchmarks.sustained import report
from benchmarks.sustained.mix import FLOWS
from benchmarks.sustained.offering import Offer
from benchmarks.sustained.sampling import Sampler, metric
from benchmarks.sustained.verdict import holds, judge

HANDLERS = ["tierflow_executor.handlers", "benchmarks.sustained.handlers"]
SAMPLES = 120
"""Samples in a load of usual length; never more than one a second."""
SCHEDULE = "load"


async def load(stack: Stack, client: Client, seconds: float, rate: float) -> tuple[Offer, Sampler]:
    """The load itself; returns when everything has ended and the auditor has looked."""
    for flow in FLOWS:
        await client.register_flow(flow)
    await client.schedules.create(SCHEDULE, "bench-one@1", {"i": 1}, every=1, overlap="allow")
    offer = Offer(client, rate)
    sampler = Sampler(stack, offer)
    sampling = asyncio.create_task(sampler.run(max(1.0, seconds / SAMPLES)))
    try:
        await offer.run(seconds)
    finally:
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
    await ended(client)
    found = await audit(stack.database_url, stack.nats.url, settled=True)
    offer.outcome.audit = [*map(str, found.problems)]
    shown = [await metric(service, "tierflow_tool_visibility") for service in stack.orchestrators]
    offer.outcome.visibility = min(shown)
    return offer, sampler


async def ended(client: Client) -> None:
    """The schedule has fired, ends, and what it began is over."""

    async def has_fired() -> bool:
        return (await client.schedules.get(SCHEDULE)).counts.fired > 0

    await eventually(has_fired, 60, interval=0.2, message="the schedule fires")
    await client.schedules.pause(SCHEDULE, "the load is over")

    async def all_over() -> bool:
        return not (await client.schedules.get(SCHEDULE)).open

    await eventually(all_over, 60, interval=0.2, message="what the schedule began is over")


async def main() -> int:
    """See the module."""
    seconds = float(os.environ.get("MINUTES") or "10") * 60
    rate = float(os.environ.get("RATE") or "40")
    directory = pathlib.Path(os.environ.get("REPORT") or ROOT / ".tierflow/load")
    where = measuring.circumstances()
    print(
        f"{seconds / 60:g} minutes at {rate:g} pieces of work a second; the report comes into {directory}", flush=True
    )
    async with system(audited=False, handlers=HANDLERS) as stack, client_of(stack) as client:
        offer, sampler = await load(stack, client, seconds, rate)
    findings = judge(sampler.samples, offer.outcome)
    path = report.write(directory, where, offer.outcome, sampler.samples, offer.kinds, findings)
    print(path.read_text().partition("\n![")[0])
    for finding in findings:
        if finding.judged and not finding.holds:
            print(f"DOES NOT HOLD: {finding.what}: {finding.seen}", file=sys.stderr)
    return 0 if holds(findings) else 1


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
