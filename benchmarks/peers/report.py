"""The table: every product's best figures, and how many times better Tierflow is than the best of the others.

Reads lines as `bench` writes them. `python -m benchmarks.peers.report FILE` prints the table of the last series in a file.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """A figure: where it stands in a line, what it is called, and whether more of it is better."""

    operation: str
    figure: str
    title: str
    more_is_better: bool = False


COLUMNS = (
    Column("w1", "runs_per_s", "W1 runs/s", more_is_better=True),
    Column("w1", "p50_ms", "W1 p50 ms"),
    Column("w1", "p99_ms", "W1 p99 ms"),
    Column("w1", "alone_p50_ms", "W1 alone p50 ms"),
    Column("w1", "cpu_us_per_run", "W1 CPU us/run"),
    Column("w2", "steps_per_s", "W2 steps/s", more_is_better=True),
    Column("w2", "p99_ms", "W2 run p99 ms"),
    Column("w2", "alone_p50_ms", "W2 alone ms/step"),
    Column("w2", "cpu_us_per_step", "W2 CPU us/step"),
    Column("w3", "seconds", "W3 1,000 s"),
    Column("w3", "cpu_us_per_step", "W3 CPU us/step"),
    Column("w3big", "seconds", "W3 10,000 s"),
    Column("w3big", "cpu_us_per_step", "W3 10,000 CPU us/step"),
    Column("start", "first_run_s", "first run s"),
    Column("start", "pss_mib", "idle PSS MiB"),
)

Summary = Mapping[str, Mapping[Column, float]]
"""By product and column: the median over the rounds of the product's best variant."""


def summary(lines: Iterable[Mapping[str, Any]]) -> Summary:
    """The best variant's median of every figure of every product."""
    values: dict[tuple[str, Column], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for column in COLUMNS:
            value = line.get(column.operation, {}).get(column.figure)
            if isinstance(value, Mapping):
                value = sum(value.values())
            if value is not None:
                values[line["product"], column][line["variant"]].append(float(value))
    found: dict[str, dict[Column, float]] = defaultdict(dict)
    for (product, column), by_variant in values.items():
        found[product][column] = _best(column, [statistics.median(each) for each in by_variant.values()])
    return found


def table(found: Summary) -> str:
    """Markdown: a row for each figure, a column for each product, and how many times better Tierflow is (above 1: better)."""
    peers = [name for name in found if name != "tierflow"]
    rows = [["", "tierflow", *peers, "times better than the best peer"]]
    for column in COLUMNS:
        values = {name: found[name][column] for name in found if column in found[name]}
        if not values:
            continue
        others = [values[name] for name in peers if name in values]
        row = [column.title, *(_text(values.get(name)) for name in ["tierflow", *peers])]
        rows.append([*row, _ratio(column, values.get("tierflow"), others)])
    return _markdown(rows)


def _best(column: Column, values: Sequence[float]) -> float:
    return max(values) if column.more_is_better else min(values)


def _ratio(column: Column, ours: float | None, others: Sequence[float]) -> str:
    if not ours or not others:
        return "-"
    best = _best(column, others)
    return f"{ours / best if column.more_is_better else best / ours:.2f}"


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def main() -> None:
    """See the module."""
    lines = [json.loads(line) for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
    print(table(summary([line for line in lines if line["at"] == lines[-1]["at"]])))


if __name__ == "__main__":
    main()
