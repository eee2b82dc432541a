"""Faults that were caused, what was promised of each, and what was seen: from the lines that `make chaos` keeps."""

import json
import pathlib
from typing import Any

RESULTS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "chaos.jsonl"
INTRODUCTION = """# Reliability: what was broken on purpose, and what happened

`make chaos` starts whole systems, keeps hundreds of runs under way, and breaks things under them. Afterwards the auditor reads both journals, the event stream and the notes that handlers made of
their own executions, and looks for every contradiction that it knows: runs that have not ended or ended twice, gaps, steps that ran twice without need, results told wrongly, events that are missing.
Each session adds its lines to `benchmarks/results/chaos.jsonl`, also where a promise was broken; this page is drawn from them. *Times tried* counts all sessions; *seen* is what the last one saw.

`make chaos ROUNDS=20` is the long form: 20 rounds in which one process of each tier is killed at random moments, with 200 runs of 10 steps under way at every moment.

`make chaos FROM=commit` also replaces a running earlier version by this one ([upgrading](upgrading.md)).

How it is done: processes are killed and frozen by signals. The network is a TCP proxy between all parts (`tierflow_testing.cables`), which cuts, refuses, delays, throttles, holds up one direction,
or lets connections die in silence, as a firewall does that has forgotten them; calls among peers and those for blobs go past it. The liar is a program that speaks the executors' protocol. Slow disks and clocks
that jump are a shim in the processes concerned (`tests/chaos/shim.c`, by LD_PRELOAD; NATS, which does not use the C library, cannot have it); full disks are small file systems in memory. Both are
skipped where there is no C compiler or no right to mount. While the network is bad and executors lie, of ten runs one is cancelled, and two are paused and resumed, one of these by an interrupt.
"""
SECTIONS = {
    "processes": "Processes die",
    "servers": "Postgres and NATS go away",
    "frozen": "Processes stop and go on",
    "deployments": "Deployments",
    "network": "The network",
    "executors": "Executors that lie",
    "disk": "The disk",
    "clocks": "Clocks",
    "overload": "Far more work than there is room for",
}


def page() -> str:
    """The page."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    unknown = {line["section"] for line in lines} - SECTIONS.keys()
    if unknown:
        raise SystemExit(f"{RESULTS.name} has sections that the page does not know: {', '.join(sorted(unknown))}")
    parts = [INTRODUCTION]
    for section, title in SECTIONS.items():
        parts.append(f"\n## {title}\n\n" + _section([line for line in lines if line["section"] == section]))
    return "".join(parts)


def _section(lines: list[dict[str, Any]]) -> str:
    if not lines:
        return "Nothing was recorded yet.\n"
    by_fault: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_fault.setdefault(line["fault"], []).append(line)
    rows = ["| fault | times tried | promised | seen | held | commit, machine |", "|---|---|---|---|---|---|"]
    for fault, sessions in by_fault.items():
        last = sessions[-1]
        held = sum(session["holds"] for session in sessions)
        verdict = "yes" if last["holds"] else "**no**"
        cells = (
            fault,
            sum(session["times"] for session in sessions),
            last["promised"],
            last["seen"],
            f"{verdict} ({held} of {len(sessions)} sessions)",
            f"{last['commit']}, {last['machine']}, {last['at'][:10]}",
        )
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
