"""Runs one workload against the real stack and prints one JSON line last.

Usage: python -m benchmarks.run w1|w2|w3|w3big|w3part [--keep] [--profile SERVICE]

Everything counts: client, three tiers, Postgres with fsync and synchronous_commit, NATS with every event acknowledged. Runs end with the auditor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
from typing import Any

import psutil
from tierflow import Client
from tierflow_testing.stack import Stack, StackOptions

from benchmarks.measuring import commit, cpu_of, machine, own_cpu, percentile
from benchmarks.workloads import SCENARIOS, Scenario, drive, ready

PLACES = [str(pathlib.Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
"""Where the executor finds the handlers of the workloads, and what else is put before the sources: the compiled tree."""

OPTIONS = StackOptions(
    slots=1024,
    handlers=["tierflow_executor.handlers", "benchmarks.handlers"],
    executor_environment={"PYTHONPATH": os.pathsep.join(PLACES)},
)


def processes_of(stack: Stack) -> dict[str, int]:
    """Names and pids of everything that takes part, but for the client."""
    found = {service.name.rpartition("-")[0]: service.pid for service in stack.services}
    found["postgres"] = stack.postgres.process_id
    found["nats"] = stack.nats.process_id
    return found


async def measure(stack: Stack, name: str, scenario: Scenario) -> dict[str, Any]:
    """Drives the workload and returns the figures."""
    before: dict[str, float] = {}

    def take() -> None:
        before.update(cpu_of(processes_of(stack)), client=own_cpu())

    async with Client(stack.address) as client:
        await ready(client)
        took = await drive(client, scenario, between=take)
    after = {**cpu_of(processes_of(stack)), "client": own_cpu()}
    steps = scenario.runs * scenario.steps
    cpu = {who: round((after[who] - before[who]) / steps * 1e6, 1) for who in before}
    latencies = sorted(took["latencies"])
    return {
        "scenario": name,
        "runs_per_s": round(scenario.runs / took["seconds"], 1),
        "steps_per_s": round(steps / took["seconds"], 1),
        "p50_ms": round(statistics.median(latencies) * 1000, 3),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 3),
        "single_p50_ms": round(statistics.median(took["alone"]) * 1000, 3) if took["alone"] else None,
        "seconds": round(took["seconds"], 4),
        "cpu_us_per_step": cpu,
        "cpu_us_per_step_total": round(sum(cpu.values()), 1),
        "commit": commit(),
        "machine": machine(),
        "load": round(psutil.getloadavg()[0], 1),
    }


def perform(name: str, scenario: Scenario, *, audited: bool = True) -> dict[str, Any]:
    """The figures of one workload on a system of its own. Ends the program where the auditor finds a problem."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tierflow-bench-"))
    directory.chmod(0o755)
    try:
        with Stack(directory, OPTIONS) as stack:
            figures = asyncio.run(measure(stack, name, scenario))
            if audited:
                audit_or_exit(stack)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return figures


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--keep", action="store_true", help="append the figures to benchmarks/results")
    parser.add_argument("--no-audit", action="store_true", help="leave out the auditor")
    given = parser.parse_args()
    line = json.dumps(perform(given.scenario, SCENARIOS[given.scenario], audited=not given.no_audit))
    if given.keep:
        with (pathlib.Path(__file__).parent / "results" / f"{given.scenario}.jsonl").open("a") as results:
            results.write(line + "\n")
    print(line)


def audit_or_exit(stack: Stack) -> None:
    """Ends the program with an error where the auditor finds a problem: fast and wrong does not count."""
    from tierflow_testing.auditor import audit

    report = asyncio.run(audit(stack.database_url, stack.nats.url))
    print(f"audit: {len(report.problems)} problems, {report.counts}", file=sys.stderr)
    if report.problems:
        raise SystemExit("\n".join(report.problems[:20]))


if __name__ == "__main__":
    main()
