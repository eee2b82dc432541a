"""Chaos tests share a harness beside them; what they have seen is printed at the end, and kept where CHAOS_REPORT is set."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from evidence import Evidence

KEY = pytest.StashKey[Evidence]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[KEY] = Evidence()


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """Takes what a test has seen."""
    return request.config.stash[KEY]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    seen = config.stash[KEY]
    if not seen.rows:
        return
    terminalreporter.section("faults")
    for line in seen.table():
        terminalreporter.write_line(line)
    if os.environ.get("CHAOS_REPORT"):
        terminalreporter.write_line(f"written to {seen.write()}")
