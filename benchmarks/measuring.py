"""What all measurements share: processor time, memory, percentiles, and the line that a result is kept as."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psutil

RESULTS = pathlib.Path(__file__).parent / "results"
MOST_LOAD = 1.5
"""Load average at the begin above which figures are shown and not kept: they would be those of somebody else's work."""


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all its children, those that have ended included, user and system, in seconds."""
    total = 0.0
    for each in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mib(pid: int) -> float:
    """Memory of a process and all its children in MiB, shared pages counted once (PSS)."""
    total = 0
    for each in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += each.memory_full_info().pss
    return round(total / 1_048_576, 2)


def cpu_of(processes: Mapping[str, int]) -> dict[str, float]:
    """Processor time by name of process, in seconds."""
    return {name: cpu_seconds(pid) for name, pid in processes.items()}


def spent(before: Mapping[str, float], after: Mapping[str, float], count: float) -> dict[str, float]:
    """Processor time between two moments by name of process, in microseconds for each of `count`."""
    return {name: round((after[name] - before[name]) / max(count, 1) * 1e6, 1) for name in before}


def own_cpu() -> float:
    """Processor time of this process alone, in seconds."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)


def percentile(values: Iterable[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed; not a number where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def milliseconds(latencies: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile of latencies in seconds, in milliseconds; nothing where there are none."""
    if not latencies:
        return {}
    return {
        "p50_ms": round(statistics.median(latencies) * 1000, 3),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 3),
    }


def commit() -> str:
    """The commit that is measured, with `+` where there are changes."""
    try:
        name = _said("git", "rev-parse", "--short", "HEAD")
        changed = _said("git", "status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results", ":!docs/pictures")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed else "")


def machine() -> str:
    """Processor, cores, Python, and whether the hot path is compiled (`make native`)."""
    spec = importlib.util.find_spec("tierflow_durable.host")
    native = spec is not None and not str(spec.origin).endswith(".py")
    return f"{platform.machine()}, {psutil.cpu_count()} cpus, Python {platform.python_version()}{', native' if native else ''}"


def circumstances(patience: float = 0.0) -> dict[str, Any]:
    """When, what and where: taken before the measurement, since afterwards the load is its own.

    Waits for at most `patience` seconds until the machine is quiet: the load average remembers the measurement before for a minute.
    """
    until = time.monotonic() + patience
    while os.getloadavg()[0] > MOST_LOAD and time.monotonic() < until:
        time.sleep(1.0)
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def keep(name: str, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Appends lines to `results/NAME.jsonl`, if the machine was ours alone when they were measured. Returns whether it did."""
    if any(line["load_before"] > MOST_LOAD for line in lines):
        print(f"not kept: the load was above {MOST_LOAD} before the measurement began", file=sys.stderr)
        return False
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return True


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=RESULTS.parents[1]).stdout.strip()


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []
