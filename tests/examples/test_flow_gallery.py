"""The flows in examples/flows, each with cases of its own on a virtual clock."""

import pathlib
import re

import pytest
from tierflow_kit.cases import Case, read_cases
from tierflow_kit.running import run_case

GALLERY = pathlib.Path(__file__).parents[2] / "examples" / "flows"
FLOWS = sorted(path for path in GALLERY.glob("*.yaml") if not path.stem.endswith(".test"))
FILES = sorted(GALLERY.glob("*.test.yaml"))
READ = {path.name.removesuffix(".test.yaml"): read_cases(path) for path in FILES}
CASES = [(name, case) for name, read in READ.items() for case in read.cases]


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}: {case.name}" for name, case in CASES])
def test_cases(name: str, case: Case) -> None:
    """Q24, E2: each case of each flow goes as its file says."""
    assert run_case(READ[name].flow, case).differences == ()


@pytest.mark.parametrize("path", FLOWS, ids=[path.stem for path in FLOWS])
def test_every_flow_has_cases_that_reach_every_step(path: pathlib.Path) -> None:
    """Q24, E2: each flow has a case in which it works; each of its steps completes, or fails as it should, in some case."""
    read = READ[path.stem]
    reports = [run_case(read.flow, case).report for case in read.cases]
    assert "COMPLETED" in {report.state for report in reports if report}
    reached = {
        step.of
        for report in reports
        if report
        for step in report.steps.values()
        if step.state in ("COMPLETED", "FAILED")
    }
    assert set(read.flow.by_id) - reached == set()


def test_the_list_is_complete() -> None:
    """E2: the page beside the flows names each of them, in its own words."""
    rows = dict(
        re.findall(r"^\| \[([\w-]+)\]\([\w-]+\.yaml\) \| (.+) \|$", (GALLERY / "README.md").read_text(), re.MULTILINE)
    )
    assert rows == {path.stem: READ[path.stem].flow.description for path in FLOWS}
    assert len(rows) >= 20
