"""What the samples of a load amount to: findings, each of which holds or does not. Pure."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

LEAST_MINUTES: Final = 3.0
"""What grows is judged only in a load that lasted as long; before, caches fill."""
MOST_LEAK_MIB: Final = 24.0
MOST_LEAK_SHARE: Final = 0.15
"""A service may grow over the second half of the load by the larger of the two."""
MOST_P50: Final = (1.5, 10.0)
MOST_P99: Final = (2.0, 100.0)
"""Latency of the last third: at most so many times that of the first third after the beginning, and so many milliseconds."""
LEAST_DONE: Final = 0.97
"""Share of what was offered that must have ended when nothing more is offered."""
MOST_REFUSED: Final = 0.01
"""Share that may be refused, typed: the load is meant to be below what the system can do."""
MOST_LAG: Final = 5_000
"""Journal positions that JetStream may not have confirmed, in the middle of the last third."""
MOST_FILES: Final = 16
"""Open files and connections that a service may have gained from the first third to the last."""
SERVICES: Final = ("coordinator", "orchestrator", "executor")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    holds: bool
    seen: str
    judged: bool = True
    """Whether it counts: what a load is too short for is shown only."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen in one interval, or at its end. Moments in seconds since the load began."""

    at: float
    offered: int
    ended: int
    under_way: int
    p50_ms: float | None
    p99_ms: float | None
    memory: Mapping[str, float]
    """MiB by process."""
    cpu: Mapping[str, float]
    """Percent of one processor by process."""
    files: Mapping[str, int]
    """Open files and connections by process."""
    tables_mib: Mapping[str, float]
    """By schema."""
    sessions: int
    """Sessions of the database."""
    lag: int
    """Journal positions that JetStream has not confirmed."""


@dataclass(slots=True)
class Outcome:
    """What became of everything that was offered."""

    offered: int = 0
    ended: int = 0
    in_time: int = 0
    """Ended before nothing more was offered."""
    refused: dict[str, int] = field(default_factory=dict)
    """By code: what was refused, or could not be reached, with a typed error."""
    untyped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Work that ended otherwise than it must."""
    audit: list[str] = field(default_factory=list)
    """What the auditor found."""
    visibility: float = 1.0
    """Of the events of tool calls, the share that is confirmed at the end."""
    rate: float = 0.0
    due_under_way: int = 0
    """Work that may be under way when the offer ends: what is offered in two seconds."""


def judge(samples: Sequence[Sample], outcome: Outcome) -> list[Finding]:
    """All findings."""
    return [*_of_outcome(outcome), *_of_growth(samples)]


def holds(findings: Sequence[Finding]) -> bool:
    """Whether everything that counts holds."""
    return all(finding.holds for finding in findings if finding.judged)


def _of_outcome(outcome: Outcome) -> list[Finding]:
    refused = sum(outcome.refused.values())
    codes = ", ".join(f"{code} {count}" for code, count in sorted(outcome.refused.items())) or "none"
    late = outcome.offered - outcome.in_time - refused
    most_late = max(outcome.due_under_way, (1 - LEAST_DONE) * outcome.offered)
    return [
        Finding("everything that was offered ended", outcome.ended + refused + len(outcome.untyped) + len(outcome.wrong) == outcome.offered, f"{outcome.ended} of {outcome.offered}"),
        Finding("it kept up with what was offered", late <= most_late, f"{late} were under way when nothing more was offered; at most {most_late:.0f} may be"),
        Finding("every error is typed", not outcome.untyped, _some(outcome.untyped)),
        Finding("every end is the right one", not outcome.wrong, _some(outcome.wrong)),
        Finding(f"at most {MOST_REFUSED:.0%} is refused", refused <= MOST_REFUSED * outcome.offered, codes),
        Finding("both events of every tool call are confirmed", outcome.visibility == 1.0, f"{outcome.visibility:.4f}"),
        Finding("the auditor finds nothing", not outcome.audit, _some(outcome.audit)),
    ]  # fmt: skip


def _of_growth(samples: Sequence[Sample]) -> list[Finding]:
    minutes = samples[-1].at / 60 if samples else 0.0
    judged = minutes >= LEAST_MINUTES and len(samples) >= 9
    if len(samples) < 6:
        return [Finding("growth", holds=False, seen=f"{len(samples)} samples are too few to see any", judged=False)]
    first, last = thirds(samples)
    found = [_leak(name, samples, judged=judged) for name in _services(samples)]
    found += [
        _slower("median latency", "p50_ms", first, last, MOST_P50, judged=judged),
        _slower("99th percentile of latency", "p99_ms", first, last, MOST_P99, judged=judged),
        _lag(last, judged=judged),
    ]
    found += [_files(name, first, last, judged=judged) for name in _services(samples)]
    return found


def thirds(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The first third after the beginning, which is a tenth, and the last."""
    rest = samples[max(1, len(samples) // 10) :]
    size = max(1, len(rest) // 3)
    return rest[:size], rest[-size:]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By how much a value rises for each unit: the median of the slopes between all pairs (Theil and Sen), which a few spikes do not move. 0 where there are no pairs."""
    steps = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 != x1]
    return statistics.median(steps) if steps else 0.0


def _services(samples: Sequence[Sample]) -> list[str]:
    return sorted(name for name in samples[-1].memory if name.startswith(SERVICES))


def _leak(name: str, samples: Sequence[Sample], *, judged: bool) -> Finding:
    half = samples[len(samples) // 2 :]
    points = [(sample.at / 60, sample.memory[name]) for sample in half if name in sample.memory]
    level = statistics.median(y for _, y in points)
    each = slope(points)
    grown = each * (half[-1].at - half[0].at) / 60
    most = max(MOST_LEAK_MIB, MOST_LEAK_SHARE * level)
    seen = f"{level:.0f} MiB, {each:+.2f} MiB a minute: {grown:+.1f} MiB in the second half, at most {most:.0f}"
    return Finding(f"memory of {name} does not grow", grown <= most, seen, judged)


def _slower(
    what: str,
    name: str,
    first: Sequence[Sample],
    last: Sequence[Sample],
    most: tuple[float, float],
    *,
    judged: bool,
) -> Finding:
    before, after = _median(first, name), _median(last, name)
    if before is None or after is None:
        return Finding(f"{what} does not grow", holds=False, seen="nothing ended in a third of the time", judged=judged)
    bound = before * most[0] + most[1]
    seen = f"{before:.1f} ms at the beginning, {after:.1f} ms at the end, at most {bound:.1f}"
    return Finding(f"{what} does not grow", after <= bound, seen, judged)


def _lag(last: Sequence[Sample], *, judged: bool) -> Finding:
    lag = statistics.median(sample.lag for sample in last)
    return Finding("events are published as they come", lag <= MOST_LAG, f"{lag:.0f} journal positions behind", judged)


def _files(name: str, first: Sequence[Sample], last: Sequence[Sample], *, judged: bool) -> Finding:
    before = statistics.median(sample.files.get(name, 0) for sample in first)
    after = statistics.median(sample.files.get(name, 0) for sample in last)
    seen = f"{before:.0f} at the beginning, {after:.0f} at the end"
    return Finding(f"open files and connections of {name} do not grow", after <= before + MOST_FILES, seen, judged)


def _median(samples: Sequence[Sample], name: str) -> float | None:
    values: list[Any] = [value for sample in samples if (value := getattr(sample, name)) is not None]
    return statistics.median(values) if values else None


def _some(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more if lines else "none"
