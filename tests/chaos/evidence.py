"""What the chaos tests have seen: printed at the end, and kept as JSON lines, from which docs/reliability.md is drawn (S13)."""

import datetime
import json
import os
import pathlib
import platform
import subprocess
from dataclasses import asdict, dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "benchmarks" / "results" / "chaos.jsonl"


@dataclass(slots=True)
class Row:
    """One kind of fault: how often it was caused, what is promised, and what was seen. `section` is one of docs/reliability.md."""

    section: str
    fault: str
    times: int
    promised: str
    seen: str
    holds: bool


@dataclass(slots=True)
class Evidence:
    """All rows of a session."""

    rows: list[Row] = field(default_factory=list)

    def add(self, section: str, fault: str, times: int, promised: str, seen: str, *, holds: bool) -> None:
        """Notes what was seen; the test itself fails where it does not hold."""
        self.rows.append(Row(section, fault, times, promised, seen, holds))

    def table(self) -> list[str]:
        """Lines to print."""
        lines = []
        for row in self.rows:
            lines.append(f"{row.fault}, {row.times} times{'' if row.holds else '  ** BROKEN **'}")
            lines += [f"    promised  {row.promised}", f"    seen      {row.seen}"]
        return lines

    def write(self) -> pathlib.Path:
        """Adds one line for each row to the results, those that do not hold too; returns their path."""
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "-uno", "--", ".", ":!benchmarks/results", ":!docs")
        about = {
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit + ("+" if changed else ""),
            "machine": f"{platform.machine()}, {os.cpu_count()} cpus, Python {platform.python_version()}",
        }
        FILE.parent.mkdir(parents=True, exist_ok=True)
        with FILE.open("a") as file:
            file.writelines(json.dumps({**asdict(row), **about}) + "\n" for row in self.rows)
        return FILE


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
