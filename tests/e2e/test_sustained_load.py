"""The sustained load in short: that it works, not how fast."""

import asyncio
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OF_SPEED = {"it kept up with what was offered", "at most 1% is refused"}
"""Findings that say something of the machine."""


async def test_a_few_seconds_of_everything(tmp_path: pathlib.Path) -> None:
    """O9, H7, P13: work of every kind through all tiers ends as it must, errors are typed, tool calls are seen, the auditor finds nothing; a report with pictures and a verdict is left."""
    environment = {**os.environ, "MINUTES": "0.1", "RATE": "10", "REPORT": str(tmp_path / "report")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.sustained", cwd=ROOT, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(240):
        said, _ = await process.communicate()
    assert (tmp_path / "report/report.json").exists(), said.decode()
    facts = json.loads((tmp_path / "report/report.json").read_text())
    held = {finding["what"]: finding["holds"] for finding in facts["findings"] if finding["judged"]}
    assert [what for what, holds in held.items() if not holds and what not in OF_SPEED] == [], said.decode()
    assert process.returncode == int(not all(held.values()))
    assert len(facts["kinds"]) == 12
    assert sum(each["ended"] for each in facts["kinds"].values()) == facts["outcome"]["ended"] > 0
    assert {"orchestrator-0", "postgres", "nats"} <= facts["samples"][-1]["memory"].keys()
    assert "![memory](memory.svg)" in (tmp_path / "report/report.md").read_text()
    assert (tmp_path / "report/memory.svg").exists()
