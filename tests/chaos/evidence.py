"""What the chaos tests have seen, as a table and as a file (S13)."""

import json
import os
import pathlib
import platform
import subprocess
from dataclasses import asdict, dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Row:
    """One kind of fault: how often it was caused, what is promised, and what was seen."""

    fault: str
    times: int
    promised: str
    seen: str
    holds: bool


@dataclass(slots=True)
class Evidence:
    """All rows of a session."""

    rows: list[Row] = field(default_factory=list)

    def add(self, fault: str, times: int, promised: str, seen: str, *, holds: bool) -> None:
        """Notes what was seen; the test itself fails where it does not hold."""
        self.rows.append(Row(fault, times, promised, seen, holds))

    def table(self) -> list[str]:
        """Lines to print."""
        lines = []
        for row in self.rows:
            lines.append(f"{row.fault}, {row.times} times{'' if row.holds else '  ** BROKEN **'}")
            lines += [f"    promised  {row.promised}", f"    seen      {row.seen}"]
        return lines

    def write(self) -> pathlib.Path:
        """Writes benchmarks/results/chaos-<commit>.json and returns its path."""
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        machine = {
            "processors": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        }
        path = ROOT / "benchmarks" / "results" / f"chaos-{commit}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"commit": commit, "machine": machine, "faults": [asdict(row) for row in self.rows]}
        path.write_text(json.dumps(document, indent=2) + "\n")
        return path
