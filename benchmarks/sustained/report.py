"""The report of a load: Markdown, JSON and pictures in a directory."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from benchmarks import measuring
from benchmarks.curves.plot import draw
from benchmarks.curves.stage import Panel, Point
from benchmarks.sustained.offering import Counts
from benchmarks.sustained.verdict import Finding, Outcome, Sample, holds


def write(
    directory: pathlib.Path,
    where: Mapping[str, Any],
    outcome: Outcome,
    samples: Sequence[Sample],
    kinds: Mapping[str, Counts],
    findings: Sequence[Finding],
) -> pathlib.Path:
    """Writes `report.md`, `report.json` and the pictures; returns the first."""
    directory.mkdir(parents=True, exist_ok=True)
    facts = {
        **where,
        "holds": holds(findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "outcome": dataclasses.asdict(outcome),
        "kinds": {name: _figures(counts) for name, counts in kinds.items()},
        "samples": [dataclasses.asdict(sample) for sample in samples],
    }
    (directory / "report.json").write_text(json.dumps(facts, indent=1) + "\n")
    pictures = []
    for name, panels in PICTURES.items():
        if samples:
            points = [{**point, **where} for panel in panels for point in panel.points(samples)]
            (directory / f"{name}.svg").write_text(draw([panel.shown for panel in panels], points))
            pictures.append(name)
    path = directory / "report.md"
    path.write_text(text(where, outcome, samples, kinds, findings, pictures))
    return path


def text(
    where: Mapping[str, Any],
    outcome: Outcome,
    samples: Sequence[Sample],
    kinds: Mapping[str, Counts],
    findings: Sequence[Finding],
    pictures: Sequence[str] = (),
) -> str:
    """The report as Markdown: the verdict first."""
    minutes = samples[-1].at / 60 if samples else 0.0
    verdict = "**Everything holds.**" if holds(findings) else "**It does not hold.**"
    lines = [
        "# Sustained load", "", f"{verdict} {outcome.offered} pieces of work at {outcome.rate:g} a second, {minutes:.1f} minutes.",
        "", f"Commit `{where.get('commit', '')}`, {where.get('machine', '')}, load average {where.get('load_before', 0)} before, {where.get('at', '')}.", "",
        "| What | Holds | Seen |", "|---|---|---|",
    ]  # fmt: skip
    for each in findings:
        said = ("yes" if each.holds else "**no**") if each.judged else "not judged: too short"
        lines.append(f"| {each.what} | {said} | {_cell(each.seen)} |")
    lines += ["", "| Work | Ended | p50 ms | p99 ms |", "|---|---|---|---|"]
    for name, counts in sorted(kinds.items()):
        figures = _figures(counts)
        lines.append(f"| {name} | {counts.ended} | {figures['p50_ms']:g} | {figures['p99_ms']:g} |")
    if samples:
        lines += ["", *_processes(samples)]
    lines += [f"\n![{name}]({name}.svg)" for name in pictures]
    return "\n".join(lines) + "\n"


def _cell(said: str) -> str:
    return said.replace("|", "\\|").replace("\n", " ")[:600]


def _figures(counts: Counts) -> dict[str, float]:
    found = measuring.milliseconds(counts.latencies) or {"p50_ms": 0.0, "p99_ms": 0.0}
    return {"ended": counts.ended, **found}


def _processes(samples: Sequence[Sample]) -> list[str]:
    """A line for each process: how busy it was, and its memory at the begin and at the end."""
    lines = ["| Process | CPU %, median | MiB at first | MiB at last | files at last |", "|---|---|---|---|---|"]
    first, last = samples[0], samples[-1]
    for name in last.memory:
        busy = statistics.median(sample.cpu.get(name, 0.0) for sample in samples)
        lines.append(
            f"| {name} | {busy:.1f} | {first.memory.get(name, 0):.0f} | {last.memory[name]:.0f} | {last.files.get(name, '')} |"
        )
    sizes = ", ".join(f"{name} {size:.0f} MiB" for name, size in last.tables_mib.items())
    return [*lines, "", f"Tables at last: {sizes}; {last.sessions} sessions of the database."]


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A panel, and the points of the samples that are drawn in it."""

    title: str
    values: Callable[[Sample], Mapping[str, float | None]]

    @property
    def shown(self) -> Panel:
        """How it is drawn."""
        return Panel("minute", self.title, self.title, "what")

    def points(self, samples: Sequence[Sample]) -> list[Point]:
        """A point for each value of each sample."""
        return [
            {"minute": sample.at / 60, self.title: value, "what": name}
            for sample in samples
            for name, value in self.values(sample).items()
            if value is not None
        ]


PICTURES: Final[Mapping[str, Sequence[Picture]]] = {
    "work": [Picture("offered and ended in an interval, under way", lambda s: {"offered": s.offered, "ended": s.ended, "under way": s.under_way})],
    "latency": [Picture("latency, ms", lambda s: {"p50": s.p50_ms, "p99": s.p99_ms})],
    "memory": [Picture("memory, MiB", lambda s: s.memory)],
    "cpu": [Picture("processor time, % of one", lambda s: s.cpu)],
    "files": [Picture("open files and connections", lambda s: {**s.files, "database sessions": s.sessions})],
    "stored": [Picture("tables, MiB", lambda s: s.tables_mib)],
    "lag": [Picture("journal positions that are not published", lambda s: {"lag": s.lag})],
}  # fmt: skip
