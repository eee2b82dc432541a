"""What docs/testing-flows.md shows works, and it lists what there is."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from tierflow_kit.case_keys import CASE, EXPECT, EXPECTED_STEP, FAKE, TESTS
from tierflow_kit.cases import read_cases
from tierflow_kit.running import run_case

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs/testing-flows.md").read_text()


def block(kind: str) -> str:
    """The text of a block on the page."""
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def names(heading: str) -> set[str]:
    """The first column of the table below a heading."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert rows is not None
    return {name for row in rows[0].splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_cases_on_the_page_go_as_they_say(tmp_path: pathlib.Path) -> None:
    """Q24: the test file and the flow that the page shows."""
    (tmp_path / "refund.yaml").write_text(block("yaml flow=refund"))
    (tmp_path / "refund.test.yaml").write_text(block("yaml test-file=refund"))
    read = read_cases(tmp_path / "refund.test.yaml")
    assert {case.name: run_case(read.flow, case).differences for case in read.cases} == dict.fromkeys(
        (case.name for case in read.cases), ()
    )


def test_the_python_on_the_page_runs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q24: the functions that the page shows pass."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/refund.yaml").write_text(block("yaml flow=refund"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block("python"), names)
    tests = [value for name, value in names.items() if name.startswith("test_") and callable(value)]
    assert len(tests) == 2
    for test in tests:
        test()


def test_the_page_lists_what_there_is() -> None:
    """Q24: no key is missing, none is invented."""
    assert names("### Keys of a test file") == set(TESTS.keys)
    assert names("### Keys of a case") == set(CASE.keys)
    assert names("### Fakes") == set(FAKE.keys)
    assert names("### Keys of expect") == set(EXPECT.keys)
    row = next(line for line in PAGE.splitlines() if line.startswith("| `steps` | steps by id"))
    listed = re.search(r"\{([a-z_, ]+)\}", row)
    assert listed is not None
    assert set(listed[1].split(", ")) == set(EXPECTED_STEP.shape.keys)


def test_the_readme_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q24, Q25: the test that the first page shows passes."""
    monkeypatch.chdir(ROOT)
    [text] = [
        found
        for found in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if "FlowTest" in found
    ]
    names: dict[str, Any] = {}
    exec(text, names)
    names["test_hello"]()
